//! Finds type names that stand in two modules of the workspace.

use std::collections::BTreeMap;

use crate::{Problems, sources};

#[test]
fn a_type_name_stands_in_one_module() {
    let mut problems = Problems::default();
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for source in sources() {
        for (line, code) in source.code_before_tests() {
            let Some(name) = type_name(code) else {
                continue;
            };
            if let Some((path, first)) = found.get(name) {
                problems.add(
                    &source.path,
                    line,
                    format!("`{name}` stands in {path}:{first} too"),
                );
            }
            found.insert(name.to_owned(), (source.path.clone(), line));
        }
    }
    problems.expect_none("two types have the same name: name each by its role");
}

/// The name of the type that a line declares at the top level of its module.
fn type_name(code: &str) -> Option<&str> {
    let code = ["pub(crate) ", "pub "]
        .iter()
        .find_map(|start| code.strip_prefix(start))
        .unwrap_or(code);
    let kinds = ["struct ", "enum ", "trait ", "type "];
    let name = kinds.iter().find_map(|kind| code.strip_prefix(kind))?;
    let end = name
        .find(|c: char| !c.is_alphanumeric())
        .unwrap_or(name.len());
    Some(&name[..end])
}
