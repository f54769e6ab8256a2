//! The order of the house, checked on the source itself.

use std::fs;
use std::path::{Path, PathBuf};

/// The floors of `src/lib.rs`, the highest first.
const FLOORS: [&[&str]; 11] = [
    &["cli", "figure", "animation", "signals"],
    &["device"],
    &["cpu", "cuda", "generate", "evaluate"],
    &["engine"],
    &["weights", "schedule"],
    &["network"],
    &["checkpoint", "config", "logistic"],
    &["images"],
    &["npy", "files"],
    &["memory", "philox"],
    &["error"],
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // The fuzz targets build into a folder of their own.
            if path.file_name().is_some_and(|n| n != "target") {
                found.extend(files(&path));
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

fn floor(module: &str) -> usize {
    let floor = FLOORS.iter().position(|floor| floor.contains(&module));
    floor.unwrap_or_else(|| panic!("{module} stands on no floor: give it one here and in src/lib.rs"))
}

#[test]
fn no_module_reaches_up() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut imports = 0;
    for file in files(&source) {
        let inside = file.strip_prefix(&source).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        if ["bin", "lib"].contains(&module) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        // What stands in a test module may look wherever it wants.
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        if file.file_stem().unwrap() == "tests" {
            continue;
        }
        for line in text.lines().filter_map(|l| l.trim_start().strip_prefix("use crate::")) {
            let names = line.trim_start_matches('{').trim_end_matches([';', '}']);
            let list = if line.starts_with('{') { names.split(", ").collect() } else { vec![names] };
            for name in list {
                let name = name.split("::").next().unwrap();
                // What `src/lib.rs` gives a short name.
                let name = if ["Error", "Result"].contains(&name) { "error" } else { name };
                let below = name == module || floor(name) > floor(module);
                assert!(below, "{} uses {name}, which is not below it", inside.display());
                imports += 1;
            }
        }
    }
    assert!(imports > 50, "only {imports} imports were seen");
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "tools", "benches", "tests"] {
        for file in files(&root.join(folder)) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= 500, "{} has {lines} lines", file.display());
        }
    }
}
