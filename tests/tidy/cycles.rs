//! Finds files of one crate that use each other in a circle.
//!
//! Reads `crate::…` paths before the tests. A file depends on the file of the longest prefix of such a path.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Problems, Source, sources};

/// The source folder of each crate.
const CRATES: &[&str] = &[
    "src/",
    "crates/core/src/",
    "crates/load/src/",
    "crates/devdb/src/",
];

#[test]
fn files_use_each_other_in_one_direction() {
    let mut problems = Problems::default();
    let sources = sources();
    for folder in CRATES {
        let files = sources
            .iter()
            .filter(|source| source.path.starts_with(folder));
        let modules: BTreeMap<String, &Source> = files
            .map(|file| (module(folder, &file.path), file))
            .collect();
        let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, source) in &modules {
            let used = paths(source)
                .into_iter()
                .filter_map(|path| owner(&modules, &path));
            uses.insert(name, used.filter(|used| used != name).collect());
        }
        for name in in_circles(uses) {
            problems.add(
                &modules[name].path,
                1,
                format!("`{name}` is a part of a circle, or between two"),
            );
        }
    }
    problems.expect_none("files use each other in a circle: move the shared part to a third file");
}

/// `crates/core/src/relay/mod.rs` is `relay`.
fn module(folder: &str, path: &str) -> String {
    let path = path.trim_start_matches(folder).trim_end_matches(".rs");
    path.trim_end_matches("/mod").replace('/', "::")
}

/// The `crate::…` paths of a file, without `crate::`.
fn paths(source: &Source) -> Vec<String> {
    let lines = source
        .code_before_tests()
        .into_iter()
        .map(|(_, line)| line.trim());
    let code: String = lines
        .filter(|line| !line.starts_with("//"))
        .collect::<Vec<_>>()
        .join(" ");
    let mut paths = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let end = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
            .unwrap_or(rest.len());
        let (path, rest) = rest.split_at(end);
        paths.push(path.to_owned());
        if let Some(group) = rest.strip_prefix('{') {
            let group = group.split('}').next().unwrap_or_default();
            paths.extend(
                group
                    .split(',')
                    .map(|item| format!("{path}{}", item.trim())),
            );
        }
    }
    paths
}

/// The file that a path leads to.
fn owner<'a>(modules: &'a BTreeMap<String, &Source>, path: &str) -> Option<&'a str> {
    let mut path = path.trim_end_matches(':');
    loop {
        if let Some((name, _)) = modules.get_key_value(path) {
            return Some(name);
        }
        (path, _) = path.rsplit_once("::")?;
    }
}

/// Removes files that use nothing, or that nothing uses, until only circles and the files between them remain.
fn in_circles<'a>(mut uses: BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    loop {
        let used: BTreeSet<&str> = uses.values().flatten().copied().collect();
        let before = uses.len();
        uses.retain(|name, targets| !targets.is_empty() && used.contains(name));
        let left: BTreeSet<&str> = uses.keys().copied().collect();
        for targets in uses.values_mut() {
            targets.retain(|target| left.contains(target));
        }
        if uses.len() == before {
            return left;
        }
    }
}
