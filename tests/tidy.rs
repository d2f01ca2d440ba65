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

#[path = "tidy/cycles.rs"]
mod cycles;
#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/sql.rs"]
mod sql;

/// Maximum lines of code before the tests of a file.
const CODE_LINES_MAX: usize = 500;

/// Files that may be longer, each with its own maximum. Remove an entry when its file has been split.
const LONG_FILES: &[(&str, usize)] = &[];

/// Maximum columns of a comment's text, without indentation and marker.
const COMMENT_COLUMNS_MAX: usize = 120;

/// The files with the bounds, one per crate.
const LIMITS: [&str; 4] = [
    "crates/core/src/limits.rs",
    "crates/devdb/src/limits.rs",
    "crates/load/src/limits.rs",
    "src/limits.rs",
];

/// The files that read the time of day, one per crate that needs it.
const CLOCKS: [&str; 2] = ["crates/load/src/clock.rs", "src/clock.rs"];

/// Endings of names that only bounds have.
const BOUND_ENDINGS: [&str; 10] = [
    "_MAX",
    "_MIN",
    "_LEN",
    "_TIMEOUT",
    "_INTERVAL",
    "_PAUSE",
    "_TTL",
    "_TRIES",
    "_RETRIES",
    "_ATTEMPTS",
];

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
    for limits in LIMITS {
        let text = read(limits);
        let mut is_documented = false;
        for (number, line) in text.lines().enumerate() {
            if line.starts_with("///") {
                is_documented = true;
            } else if line.starts_with("pub") && !is_documented {
                problems.add(limits, number + 1, "a bound needs a `///` with its reason");
            } else if !line.starts_with("#[") {
                is_documented = false;
            }
        }
    }
    problems.expect_none("a bound is not explained");
}

#[test]
fn every_bound_is_in_the_limits_of_its_crate() {
    let mut problems = Problems::default();
    for source in sources() {
        if LIMITS.contains(&source.path.as_str()) {
            continue;
        }
        for (line, code) in source.code_before_tests() {
            if is_bound(code) {
                problems.add(
                    &source.path,
                    line,
                    "move this bound to the crate's limits.rs",
                );
            }
        }
    }
    problems.expect_none("a bound is outside of limits.rs");
}

/// Returns whether a line declares a bound, or contains a literal time or queue length. One is not a bound: a second is a
/// unit, and a queue of one wakes its receiver.
fn is_bound(code: &str) -> bool {
    let code = code.trim_start();
    let declared = code
        .split_once("const ")
        .filter(|(before, _)| matches!(*before, "" | "pub " | "pub(crate) "));
    let is_constant = declared.and_then(|(_, rest)| rest.split_once(':'));
    let is_constant = is_constant.is_some_and(|(name, of)| {
        of.starts_with(" Duration") || BOUND_ENDINGS.iter().any(|ending| name.ends_with(ending))
    });
    let is_literal = |opening: &str| {
        code.split(opening).skip(1).any(|rest| {
            let digits = rest.split_once('(').map_or(rest, |(_, digits)| digits);
            let number = digits.split(')').next().unwrap_or_default();
            number != "1"
                && !number.is_empty()
                && number
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || byte == b'_')
        })
    };
    is_constant || is_literal("Duration::from_") || is_literal("mpsc::channel")
}

#[test]
fn only_the_clocks_read_the_time_of_day() {
    let mut problems = Problems::default();
    for source in sources() {
        for (line, code) in source.code_before_tests() {
            if code.contains("SystemTime::now") && !CLOCKS.contains(&source.path.as_str()) {
                problems.add(&source.path, line, "ask the crate's clock.rs");
            }
        }
    }
    problems.expect_none("the time of day is read in more than one place");
}

/// The page names each bound with its value, and the tests that show it.
#[test]
fn the_bounds_in_hostile_input_are_those_of_the_code() {
    let page = "docs/hostile-input.md";
    let limits: Vec<String> = LIMITS.iter().map(|path| read(path)).collect();
    let mut problems = Problems::default();
    let mut bounds = 0;
    for (number, line) in read(page).lines().enumerate() {
        for (index, name) in line
            .split('`')
            .enumerate()
            .filter(|(index, _)| index % 2 == 1)
        {
            let after = line.split('`').nth(index + 1).unwrap_or_default();
            let is_bound =
                name.contains('_') && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            if is_bound && !name.starts_with("USHER_") {
                bounds += 1;
                let expression = limits.iter().find_map(|text| expression_of(text, name));
                let value = expression.map(|expression| format!(" ({})", shown(expression)));
                if value
                    .as_ref()
                    .is_none_or(|value| !after.starts_with(value.as_str()))
                {
                    problems.add(
                        page,
                        number + 1,
                        format!("{name} must be followed by its value:{value:?}"),
                    );
                }
            }
            if name.ends_with(".rs") {
                let found = [name.to_owned(), format!("tests/it/{name}")];
                if !found.iter().any(|path| root().join(path).exists()) {
                    problems.add(page, number + 1, format!("{name} does not exist"));
                }
            }
        }
    }
    assert!(bounds >= 10, "the bounds were not found");
    problems.expect_none("the page differs from the code");
}

/// Returns the expression of a constant.
fn expression_of<'a>(limits: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = limits.split_once(&format!("const {name}: "))?;
    let (_, expression) = rest.split_once(" = ")?;
    expression.split(';').next()
}

/// Returns the value of an expression as the docs show it: `10 s`, `40 KiB`, `1,024`.
fn shown(expression: &str) -> String {
    let (number, unit) = if let Some(kib) = expression.strip_suffix(" * 1024") {
        (kib, " KiB")
    } else if let Some(seconds) = expression.strip_prefix("Duration::from_secs(") {
        (seconds, " s")
    } else if let Some(number) = expression.strip_prefix("NonZero::new(") {
        (number, "")
    } else {
        (expression, "")
    };
    let number = number
        .split(')')
        .next()
        .unwrap_or_default()
        .replace('_', ",");
    format!("{number}{unit}")
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
