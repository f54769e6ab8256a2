//! Which modules of a crate import which, read from its source.
//!
//! The idea: a path that begins with `crate`, `super`, `self` or a child module names a module, wherever it stands:
//! in a `use`, in a body, in a macro. What it does not say (types, functions) is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module's path from the crate's root, which is empty.
pub type Module = Vec<String>;

/// For each module that has children, which of them import which: an import between two modules is one between the
/// two children, of the innermost module around both, that they are in.
pub type Graphs = BTreeMap<Module, BTreeSet<(String, String)>>;

/// All `.rs` files below a directory.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // The fuzz targets build into a directory of their own.
            if path.file_name().is_some_and(|n| n != "target") {
                found.extend(files(&path));
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// The imports of a crate whose root is `lib.rs` or `main.rs` in a directory. What stands in a test module may look
/// wherever it wants, and programs are crates of their own.
pub fn graphs(root: &Path) -> Graphs {
    let mut sources: BTreeMap<Module, String> = BTreeMap::new();
    for file in files(root) {
        let inside = file.strip_prefix(root).unwrap().with_extension("");
        let mut module: Module = inside.iter().map(|part| part.to_str().unwrap().to_string()).collect();
        if module[0] == "bin" || module.iter().any(|part| part == "tests") {
            continue;
        }
        if ["mod", "lib", "main"].contains(&module.last().unwrap().as_str()) {
            module.pop();
        }
        let text = fs::read_to_string(&file).unwrap();
        sources.insert(module, text.split("#[cfg(test)]\nmod tests").next().unwrap().to_string());
    }
    let named: BTreeMap<&Module, Vec<(Module, bool)>> =
        sources.iter().map(|(module, text)| (module, paths(module, text, &sources))).collect();
    // What a module's `use` takes from within itself, others may call the module's own.
    let mut lent: BTreeMap<Module, Module> = BTreeMap::new();
    for (module, paths) in &named {
        for path in paths.iter().filter(|(_, used)| *used).map(|(path, _)| path) {
            let from = longest(path, &sources);
            if from.starts_with(module) && from != **module && from.len() < path.len() {
                lent.insert([&module[..], &path[path.len() - 1..]].concat(), from);
            }
        }
    }
    let mut graphs = Graphs::new();
    for (module, paths) in named {
        for (path, _) in paths {
            let reached = longest(&path, &sources);
            let next = path.get(..=reached.len()).and_then(|name| lent.get(name));
            let target = next.unwrap_or(&reached);
            let common = module.iter().zip(target).take_while(|(a, b)| a == b).count();
            // Between a module and one within it there is no order.
            if let (Some(from), Some(to)) = (module.get(common), target.get(common)) {
                graphs.entry(module[..common].to_vec()).or_default().insert((from.clone(), to.clone()));
            }
        }
    }
    graphs
}

/// The innermost module on the way of a path.
fn longest(path: &[String], modules: &BTreeMap<Module, String>) -> Module {
    let lengths = (0..=path.len()).rev();
    let on_the_way =
        lengths.map(|length| path[..length].to_vec()).find(|module| modules.contains_key(module));
    on_the_way.unwrap_or_default()
}

/// The paths in a module's text that name modules of this crate, from its root, and whether a `use` has them.
fn paths(module: &Module, text: &str, modules: &BTreeMap<Module, String>) -> Vec<(Module, bool)> {
    let code: String = text.lines().flat_map(|line| [line.split("//").next().unwrap(), "\n"]).collect();
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = &code[..];
    let (mut before, mut last) = (' ', "");
    while let Some(start) = rest.find(is_name) {
        before = rest[..start].chars().next_back().unwrap_or(before);
        rest = &rest[start..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let child = || [&module[..], &[name.to_string()]].concat();
        let base = match name {
            "crate" => Some(Module::new()),
            "self" => Some(module.clone()),
            "super" => Some(module[..module.len().saturating_sub(1)].to_vec()),
            _ if modules.contains_key(&child()) => Some(child()),
            _ => None,
        };
        if let Some(base) = base.filter(|_| before != ':' && before != '.' && after.starts_with("::")) {
            let mut named = Vec::new();
            tree(&base, &after[2..], &mut named);
            found.extend(named.into_iter().map(|path| (path, last == "use")));
        }
        before = name.chars().next_back().unwrap();
        (last, rest) = (name, after);
    }
    found
}

/// Adds the paths of a use tree, which begins behind a `::`, and returns what comes after it.
fn tree<'a>(base: &Module, text: &'a str, found: &mut Vec<Module>) -> &'a str {
    let text = text.trim_start();
    if let Some(list) = text.strip_prefix('{') {
        let mut rest = list;
        loop {
            rest = tree(base, rest, found).trim_start();
            // Behind a name may come ` as other`.
            let end = rest.find([',', '}']).unwrap_or(rest.len());
            let comma = rest[end..].starts_with(',');
            rest = rest[end..].get(1..).unwrap_or_default().trim_start();
            if !comma || rest.starts_with('}') {
                return rest.strip_prefix('}').filter(|_| comma).unwrap_or(rest);
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    let path = match name {
        "" | "self" => base.clone(),
        "super" => base[..base.len().saturating_sub(1)].to_vec(),
        _ => [&base[..], &[name.to_string()]].concat(),
    };
    match after.strip_prefix("::") {
        Some(after) => tree(&path, after, found),
        None => {
            found.push(path);
            after
        }
    }
}

/// The modules of a graph that import themselves by way of others, in groups that import each other.
pub fn cycles(graph: &BTreeSet<(String, String)>) -> Vec<Vec<&str>> {
    let reached = |from: &str| {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut open = vec![from.to_string()];
        while let Some(next) = open.pop() {
            let targets = graph.iter().filter(|(a, _)| *a == next).map(|(_, b)| b.as_str());
            open.extend(targets.filter(|target| seen.insert(target)).map(String::from));
        }
        seen
    };
    let names: BTreeSet<&str> = graph.iter().map(|(from, _)| from.as_str()).collect();
    let reach: BTreeMap<&str, BTreeSet<&str>> = names.iter().map(|name| (*name, reached(name))).collect();
    let group = |name: &&str| {
        let both = |other: &&&str| reach[name].contains(**other) && reach[**other].contains(name);
        names.iter().filter(both).copied().collect::<Vec<_>>()
    };
    names.iter().map(group).filter(|group| !group.is_empty()).collect::<BTreeSet<_>>().into_iter().collect()
}
