//! Checks the tree for rules that no compiler checks: lengths, stray markers, undocumented bounds, migrations without
//! rollbacks.
//!
//! It reads the sources as text with the standard library only, so it is fast. Each test lists all violations, with
//! file, line and the fix.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[path = "tidy/sql.rs"]
mod sql;

/// Maximum lines of code before the tests of a file.
const CODE_LINES_MAX: usize = 500;

/// Files that may be longer, each with its own maximum. Remove an entry when its file has been split.
const LONG_FILES: &[(&str, usize)] = &[];

/// Maximum columns of a comment's text, without indentation and marker.
const COMMENT_COLUMNS_MAX: usize = 120;

/// The file with the bounds of the core.
const LIMITS: &str = "crates/core/src/limits.rs";

/// The files and folders with our own text.
const TREE: &[&str] = &[
    ".ci",
    "benches",
    "client",
    "crates",
    "deploy",
    "docs",
    "sql",
    "src",
    "tests",
    "CHANGELOG.md",
    "Cargo.toml",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "rustfmt.toml",
];

#[test]
fn every_module_begins_with_what_it_is_for() {
    let mut problems = Problems::default();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            problems.add(
                &source.path,
                1,
                "the first line must be a `//!` with the purpose of the file",
            );
        }
    }
    problems.expect_none("a module has no documentation");
}

#[test]
fn paths_are_spelled_out() {
    let mut problems = Problems::default();
    for source in sources() {
        for (line, code) in source.code_before_tests() {
            if code.contains("super::super") {
                problems.add(&source.path, line, "`super::super`: write `crate::…`");
            }
            if code.trim_start().starts_with("use ") && code.contains("::*") {
                problems.add(
                    &source.path,
                    line,
                    "a glob import hides where a name comes from",
                );
            }
            if code.trim_start().starts_with("pub use ") && !source.path.ends_with("/lib.rs") {
                problems.add(&source.path, line, "only lib.rs re-exports");
            }
        }
    }
    problems.expect_none("an import or a re-export hides the origin of a name");
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let mut problems = Problems::default();
    for source in sources() {
        let is_code = |(_, line): &(usize, &str)| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with("//")
        };
        let lines = source
            .code_before_tests()
            .into_iter()
            .filter(is_code)
            .count();
        let listed = LONG_FILES.iter().find(|(path, _)| *path == source.path);
        match listed {
            None if lines > CODE_LINES_MAX => problems.add(
                &source.path,
                1,
                format!("{lines} lines of code before the tests, more than {CODE_LINES_MAX}: split it"),
            ),
            Some((_, max)) if lines > *max => problems.add(
                &source.path,
                1,
                format!("{lines} lines of code before the tests, more than its maximum of {max}: split it"),
            ),
            Some(_) if lines <= CODE_LINES_MAX => problems.add(
                &source.path,
                1,
                format!("{lines} lines of code: remove it from LONG_FILES in tests/tidy.rs"),
            ),
            None | Some(_) => {}
        }
    }
    problems.expect_none("a file is too long, or LONG_FILES is out of date");
}

/// The patches of `tests/faults/broken` must apply to the code.
#[test]
fn every_patch_of_the_fault_matrix_fits() {
    let mut problems = Problems::default();
    let patches = walk("tests/faults/broken.d");
    for patch in &patches {
        let mut git = Command::new("git");
        git.args(["apply", "--check", patch]).current_dir(root());
        let output = git.output().expect("git is there");
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            problems.add(
                patch,
                1,
                format!("it does not apply, update it: {}", said.trim()),
            );
        }
    }
    assert!(patches.len() >= 6, "the patches were not found");
    problems.expect_none("a patch does not apply");
}

#[test]
fn comments_fit_the_page() {
    let mut problems = Problems::default();
    for path in tree().into_iter().filter(|path| has_extension(path, "rs")) {
        for (number, line) in read(&path).lines().enumerate() {
            let Some(comment) = line.trim_start().strip_prefix("//") else {
                continue;
            };
            let text = comment.trim_start_matches(['/', '!']).trim_start();
            let columns = text.chars().count();
            if columns > COMMENT_COLUMNS_MAX {
                let problem = format!("{columns} columns, more than {COMMENT_COLUMNS_MAX}");
                problems.add(&path, number + 1, problem);
            }
        }
    }
    problems.expect_none("a comment is too wide");
}

#[test]
fn a_log_line_has_the_causes_of_its_error() {
    let mut problems = Problems::default();
    for_each_line(|path, number, line| {
        if (path.starts_with("src/") || path.starts_with("crates/")) && line.contains("error = &") {
            problems.add(
                path,
                number,
                "use `with_causes(…)`: JSON logs do not include causes",
            );
        }
    });
    problems.expect_none("an error is logged without its causes");
}

#[test]
fn nothing_is_left_for_later() {
    // Split, so that this file does not match itself.
    let markers = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
        concat!("db", "g!"),
    ];
    let mut problems = Problems::default();
    for_each_line(|path, number, line| {
        for marker in markers {
            if holds_word(line, marker) {
                problems.add(
                    path,
                    number,
                    format!("`{marker}`: fix it, or open an issue and remove the marker"),
                );
            }
        }
    });
    problems.expect_none("a marker is left in the tree");
}

#[test]
fn the_tree_stands_on_its_own() {
    let needle = concat!("shar", "ed/");
    let mut problems = Problems::default();
    for_each_line(|path, number, line| {
        if line.contains(needle) {
            problems.add(
                path,
                number,
                format!("`{needle}` is not part of this repository: copy the fact here"),
            );
        }
    });
    problems.expect_none("the tree refers to files outside it");
}

#[test]
fn every_bound_has_its_reason() {
    let mut problems = Problems::default();
    let limits = read(LIMITS);
    let mut is_documented = false;
    for (number, line) in limits.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with("///") {
            is_documented = true;
        } else if line.starts_with("pub const") && !is_documented {
            problems.add(
                LIMITS,
                number + 1,
                "a bound needs a `///` that gives its reason",
            );
        }
        if !line.starts_with("///") && !line.starts_with("#[") {
            is_documented = false;
        }
    }
    problems.expect_none("a bound has no reason");
}

#[test]
fn every_migration_can_be_taken_back() {
    let names = |folder: &str| -> BTreeSet<String> {
        let files = walk(folder)
            .into_iter()
            .filter(|path| has_extension(path, "sql"));
        files
            .filter_map(|path| path.rsplit('/').next().map(str::to_owned))
            .collect()
    };
    let (migrations, rollbacks) = (names("sql/migrations"), names("sql/rollbacks"));
    let mut problems = Problems::default();
    for name in &migrations {
        if name.len() < 16 || !name.as_bytes()[..14].iter().all(u8::is_ascii_digit) {
            problems.add(name, 1, "a migration is named <14 digits>_<what>.sql");
        }
    }
    for name in migrations.symmetric_difference(&rollbacks) {
        problems.add(
            name,
            1,
            "this file is in only one of sql/migrations and sql/rollbacks",
        );
    }
    problems.expect_none("migrations and rollbacks do not match");
}

// ---- the tree ----

/// A Rust file of the product.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Returns the numbered lines before `mod tests`. A `_scripts.rs` file contains only tests, so it has none.
    fn code_before_tests(&self) -> Vec<(usize, &str)> {
        if self.path.ends_with("_scripts.rs") {
            return Vec::new();
        }
        let lines = (1..).zip(self.text.lines());
        lines
            .take_while(|(_, line)| *line != "mod tests {")
            .collect()
    }
}

fn sources() -> Vec<Source> {
    let crates = [
        "src",
        "crates/core/src",
        "crates/load/src",
        "crates/devdb/src",
    ];
    let paths = crates.iter().flat_map(|folder| walk(folder));
    let sources: Vec<Source> = paths
        .filter(|path| has_extension(path, "rs"))
        .map(|path| Source {
            text: read(&path),
            path,
        })
        .collect();
    assert!(sources.len() > 100, "the sources were not found");
    sources
}

fn tree() -> Vec<String> {
    TREE.iter().flat_map(|path| walk(path)).collect()
}

/// Returns all files at or below a path, as paths from the root of the repository.
fn walk(path: &str) -> Vec<String> {
    let full = root().join(path);
    if full.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = fs::read_dir(full) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("the folder can be read").file_name())
        .map(|name| name.to_str().expect("our file names are text").to_owned())
        .filter(|name| name != "node_modules" && name != "target" && name != ".env")
        .collect();
    names.sort();
    names
        .iter()
        .flat_map(|name| walk(&format!("{path}/{name}")))
        .collect()
}

fn for_each_line(mut act: impl FnMut(&str, usize, &str)) {
    for path in tree() {
        // Skips binary files, such as pictures, fonts and corpora.
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            act(&path, number + 1, line);
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(root().join(path));
    assert!(text.is_ok(), "read {path}: {text:?}");
    text.unwrap_or_default()
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|found| found == extension)
}

fn holds_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let goes_on = word.ends_with(is_part) && text[at + word.len()..].starts_with(is_part);
        !goes_on && !text[..at].ends_with(is_part)
    })
}

/// The violations that a test has found.
#[derive(Default)]
struct Problems {
    text: String,
    count: usize,
}

impl Problems {
    fn add(&mut self, path: &str, line: usize, problem: impl AsRef<str>) {
        self.count += 1;
        let _ = writeln!(self.text, "  {path}:{line}: {}", problem.as_ref());
    }

    fn expect_none(self, what: &str) {
        assert!(
            self.count == 0,
            "{what} ({} found):\n{}",
            self.count,
            self.text
        );
    }
}
