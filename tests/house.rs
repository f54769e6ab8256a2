//! The order of the house, checked on the source itself.

#[path = "common/imports.rs"]
mod imports;

use std::fs;
use std::path::PathBuf;

use imports::{cycles, files, graphs};

/// The floors of `src/lib.rs`, the highest first.
const FLOORS: [&[&str]; 13] = [
    &["cli"],
    &["device"],
    &["cpu", "cuda", "generate", "evaluate"],
    &["engine"],
    &["plan"],
    &["weights"],
    &["models", "precision"],
    &["graph"],
    &["heads"],
    &["checkpoint"],
    &["media"],
    &["memory", "philox"],
    &["error"],
];

/// Where a crate's root is, and programs of several files.
const CRATES: [&str; 5] = ["src", "src/bin/generate", "src/bin/bench", "src/bin/evaluate", "tools/vgpu/src"];

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn floor(module: &str) -> usize {
    let floor = FLOORS.iter().position(|floor| floor.contains(&module));
    floor.unwrap_or_else(|| panic!("{module} stands on no floor: give it one here and in src/lib.rs"))
}

#[test]
fn no_module_reaches_up() {
    let graphs = graphs(&root().join("src"));
    let imports = &graphs[&vec![]];
    for (from, to) in imports {
        assert!(floor(to) > floor(from), "{from} uses {to}, which is not below it");
    }
    assert!(imports.len() > 50, "only {} imports were seen", imports.len());
}

#[test]
fn no_two_files_import_each_other() {
    let mut found = Vec::new();
    for directory in CRATES {
        for (module, graph) in graphs(&root().join(directory)) {
            let place = [&[directory.to_string()], &module[..]].concat().join("/");
            found.extend(cycles(&graph).iter().map(|files| format!("{place}: {}", files.join(", "))));
        }
    }
    assert_eq!(found, [] as [String; 0]);
}

#[test]
fn an_import_is_seen_wherever_it_stands() {
    let crate_ = tempfile::tempdir().unwrap();
    fs::create_dir(crate_.path().join("a")).unwrap();
    for (file, text) in [
        ("lib.rs", "mod a;\nmod b;\nmod c;\nmod d;\npub use d::Thing;"),
        ("a/mod.rs", "mod x;\nmod y;\nmod z;\nuse z::Own;"),
        ("a/x.rs", "use super::y::{\n    self, One,\n};\nmacro_rules! m { () => { $crate::b::one() } }"),
        ("a/y.rs", "use super::Own;\nfn f() {\n    let _: Vec<crate::c::One>;\n}"),
        ("a/z.rs", "// use super::y;\nfn g(z: &Z) {\n    super::x::one();\n}"),
        ("b.rs", "use crate::{Thing, c::{One as Two, other::*}, d};"),
        ("c.rs", "#[cfg(test)]\nmod tests {\n    use crate::a;\n}"),
        ("d.rs", "use std::d::b::c;"),
    ] {
        fs::write(crate_.path().join(file), text).unwrap();
    }
    let graphs = graphs(crate_.path());
    let seen = |module: &[&str]| {
        let module: Vec<String> = module.iter().map(|part| part.to_string()).collect();
        graphs[&module].iter().map(|(from, to)| format!("{from}{to}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(seen(&[]), "ab ac bc bd");
    assert_eq!(seen(&["a"]), "xy yz zx");
    assert_eq!(cycles(&graphs[&vec!["a".to_string()]]), [["x", "y", "z"]]);
    assert!(cycles(&graphs[&vec![]]).is_empty());
}

#[test]
fn only_programs_speak_of_flags() {
    let source = root().join("src");
    let is_flag =
        |text: &str| text.strip_prefix("--").is_some_and(|t| t.starts_with(|c: char| c.is_ascii_lowercase()));
    for file in files(&source) {
        let inside = file.strip_prefix(&source).unwrap();
        let first = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if first == "bin" || FLOORS[0].contains(&first) {
            continue;
        }
        for line in fs::read_to_string(&file).unwrap().lines() {
            let code = line.split("//").next().unwrap();
            let strings = code.split('"').skip(1).step_by(2);
            let flag =
                strings.flat_map(str::split_whitespace).find(|word| is_flag(word.trim_matches(['(', '`'])));
            // A flag of cargo's, for whoever built the library.
            assert!(flag.is_none_or(|flag| flag == "--features"), "{}: {line}", inside.display());
        }
    }
}

#[test]
fn files_can_be_read_in_one_sitting() {
    for directory in ["src", "tools", "benches", "tests", "examples"] {
        for file in files(&root().join(directory)) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= 500, "{} has {lines} lines", file.display());
        }
    }
}

/// A build without CUDA has no engine for them.
#[test]
fn tests_of_the_cuda_engine_are_built_with_it_alone() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let names = files(&root().join("tests")).into_iter().filter_map(|file| {
        let name = file.file_stem()?.to_str()?.to_string();
        (file.parent()? == root().join("tests") && name.starts_with("cuda_")).then_some(name)
    });
    let names: Vec<_> = names.collect();
    assert!(names.len() > 5, "only {names:?} were seen");
    for name in names {
        let entry = format!("[[test]]\nname = \"{name}\"\nrequired-features = [\"cuda\"]\n");
        assert!(manifest.contains(&entry), "Cargo.toml lacks\n{entry}");
    }
}
