//! Holds the tree to what no compiler checks: layers, purity, lengths, stray markers, undocumented bounds.
//!
//! Reads the sources as text with the standard library alone, so that it runs in no time. Each test lists everything
//! that it finds, with file and line, and says what would be right.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

#[path = "tidy/sql.rs"]
mod sql;

/// What each module may use besides itself. The longest name that fits a path decides, on both sides.
const LAYERS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("causes", &[]),
    ("protocol", &["limits"]),
    ("auth", &["limits", "protocol::id"]),
    ("relay", &["limits", "protocol", "auth"]),
    // The two files that settings are parsed with, and which therefore know no settings.
    ("postgres::tls", &["limits"]),
    ("postgres::trouble", &["limits"]),
    (
        "postgres::connect",
        &["limits", "postgres::tls", "postgres::trouble"],
    ),
    (
        "config",
        &["limits", "causes", "postgres::connect", "postgres::tls"],
    ),
    ("exposition", &[]),
    ("process_metrics", &[]),
    (
        "metrics",
        &[
            "limits",
            "protocol",
            "auth",
            "relay",
            "exposition",
            "process_metrics",
        ],
    ),
    (
        "postgres",
        &[
            "limits", "protocol", "auth", "relay", "causes", "config", "metrics",
        ],
    ),
    (
        "keyring",
        &["limits", "protocol", "auth", "causes", "config", "metrics"],
    ),
    (
        "server",
        &[
            "limits", "protocol", "auth", "relay", "causes", "config", "metrics", "postgres",
            "keyring",
        ],
    ),
    // It drives any gateway from outside, and must see what a client sees.
    (
        "load",
        &[
            "limits",
            "protocol",
            "postgres::connect",
            "postgres::tls",
            "postgres::trouble",
        ],
    ),
    (
        "http",
        &[
            "exposition",
            "limits",
            "protocol",
            "auth",
            "relay",
            "causes",
            "config",
            "metrics",
            "postgres",
            "keyring",
            "server",
        ],
    ),
    (
        "app",
        &[
            "limits", "protocol", "auth", "relay", "causes", "config", "metrics", "postgres",
            "keyring", "server", "http",
        ],
    ),
    (
        "cli",
        &[
            "limits", "protocol", "auth", "relay", "causes", "config", "metrics", "postgres",
            "keyring", "server", "http", "app", "load",
        ],
    ),
    ("main", &["cli"]),
];

/// The layers below the line.
const PURE: &[&str] = &["limits", "protocol", "auth", "relay"];

/// What a pure layer does not know, and why.
const IMPURE: &[(&str, &str)] = &[
    ("async", "the core never waits"),
    ("await", "the core never waits"),
    ("tokio", "the core never waits"),
    ("futures", "the core never waits"),
    ("tracing", "the core does not log"),
    ("println", "the core does not log"),
    ("eprintln", "the core does not log"),
    ("Instant::now", "the core is told the time"),
    ("SystemTime", "the core is told the time"),
    (
        "std::env",
        "the environment is read once, by the command line",
    ),
    (
        "env::var",
        "the environment is read once, by the command line",
    ),
    ("std::fs", "the core touches nothing"),
    ("std::net", "the core touches nothing"),
    ("std::thread", "every value has one owner task"),
    ("Mutex", "every value has one owner task"),
    ("RwLock", "every value has one owner task"),
    ("new_v4", "the core is given its randomness"),
    ("SystemRandom", "the core is given its randomness"),
];

/// Lines of code before the tests, beyond which a file is to be split.
const CODE_LINES_MAX: usize = 500;

/// The files that are longer, each with what it may have. An entry goes when its file has been split.
const LONG_FILES: &[(&str, usize)] = &[];

/// Columns of a comment's text; its indentation and marker are not counted.
const COMMENT_COLUMNS_MAX: usize = 120;

/// Columns of code without text literals. `rustfmt` makes it 100, but leaves the insides of some macros alone.
const CODE_COLUMNS_MAX: usize = 120;

/// Where our own text files are.
const TREE: &[&str] = &[
    ".ci",
    "benches",
    "client",
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
fn a_module_uses_only_what_is_below_it() {
    let mut problems = Problems::default();
    for source in sources() {
        let Some((owner, allowed)) = layer(&source.module) else {
            problems.add(
                &source.path,
                1,
                format!(
                    "`{}` is in no layer: add it to LAYERS here and to src/lib.rs",
                    source.module
                ),
            );
            continue;
        };
        for (line, used) in source.uses() {
            let is_own = top(&used) == top(owner) && top(owner) == owner;
            let is_allowed = is_own
                || starts_with_path(&used, owner)
                || allowed.iter().any(|path| starts_with_path(&used, path));
            if !is_allowed {
                let may = if allowed.is_empty() {
                    "nothing".into()
                } else {
                    allowed.join(", ")
                };
                problems.add(
                    &source.path,
                    line,
                    format!("`{owner}` uses `{used}`, but may use only itself and: {may}"),
                );
            }
        }
    }
    problems.expect_none("the layers of src/lib.rs are broken");
}

#[test]
fn below_the_line_there_is_no_clock_no_waiting_and_no_lock() {
    let mut problems = Problems::default();
    for source in sources() {
        if !PURE.contains(&top(&source.module)) {
            continue;
        }
        for (line, code) in source.code_before_tests() {
            for (word, why) in IMPURE {
                if holds_word(code, word) {
                    problems.add(&source.path, line, format!("`{word}`: {why}"));
                }
            }
        }
    }
    problems.expect_none("a pure layer does what only a shell may");
}

#[test]
fn every_module_begins_with_what_it_is_for() {
    let mut problems = Problems::default();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            problems.add(
                &source.path,
                1,
                "the first line must be a `//!` that says what the file is for",
            );
        }
    }
    problems.expect_none("a module is not introduced");
}

#[test]
fn paths_are_spelled_out() {
    let mut problems = Problems::default();
    for source in sources() {
        for (line, code) in source.code_before_tests() {
            if code.contains("super::super") {
                problems.add(&source.path, line, "`super::super`: say `crate::…`");
            }
            if code.trim_start().starts_with("use ") && code.contains("::*") {
                problems.add(
                    &source.path,
                    line,
                    "a glob import hides where a name comes from",
                );
            }
            if code.trim_start().starts_with("pub use ") && source.module != "lib" {
                problems.add(&source.path, line, "only src/lib.rs re-exports");
            }
        }
    }
    problems.expect_none("a reader cannot see where a name comes from");
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let mut problems = Problems::default();
    for source in sources() {
        let is_code = |(_, code): &(usize, &str)| !code.trim().is_empty();
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
                format!("{lines} lines of code before the tests, more than the {max} it may have: split it"),
            ),
            Some(_) if lines <= CODE_LINES_MAX => problems.add(
                &source.path,
                1,
                format!("{lines} lines of code now: take it off LONG_FILES in tests/tidy.rs"),
            ),
            None | Some(_) => {}
        }
    }
    problems.expect_none("a file is too long, or LONG_FILES is out of date");
}

/// `tests/broken` breaks each rule by replacing its text, which must therefore be there once.
#[test]
fn every_rule_that_can_be_broken_is_there() {
    let list = read("tests/broken.txt");
    let mut problems = Problems::default();
    let mut rules = 0;
    for rule in list.split("\n== ").skip(1) {
        rules += 1;
        let (head, texts) = rule.split_once("\n---\n").expect("a rule has a text");
        let (name, file) = head.split_once('\n').expect("a rule names its file");
        let file = file.lines().next().unwrap_or_default();
        let (text, _) = texts
            .split_once("\n+++")
            .expect("a rule says how it is broken");
        let count = read(file).matches(text.trim_matches('\n')).count();
        if count != 1 {
            problems.add(file, 1, format!("{count} times: the text of {name}"));
        }
    }
    assert!(rules > 80, "only {rules} rules");
    problems.expect_none("tests/broken.txt breaks what is not there once");
}

#[test]
fn lines_fit_the_page() {
    let mut problems = Problems::default();
    for path in tree().into_iter().filter(|path| has_extension(path, "rs")) {
        let text = read(&path);
        for (number, (line, code)) in text.lines().zip(blank(&text).lines()).enumerate() {
            let comment = line
                .trim_start()
                .strip_prefix("//")
                .filter(|_| code.trim().is_empty());
            let comment = comment.map(|text| text.trim_start_matches(['/', '!']).trim_start());
            let (columns, max) = match comment {
                Some(text) => (text.chars().count(), COMMENT_COLUMNS_MAX),
                None if code == line => (line.chars().count(), CODE_COLUMNS_MAX),
                // A text literal is as long as it is.
                None => continue,
            };
            if columns > max {
                problems.add(
                    &path,
                    number + 1,
                    format!("{columns} columns, more than {max}"),
                );
            }
        }
    }
    problems.expect_none("a line is too long");
}

#[test]
fn a_log_line_has_the_causes_of_its_error() {
    let mut problems = Problems::default();
    for_each_line(|path, number, line| {
        if path.starts_with("src/") && line.contains("error = &") {
            problems.add(
                path,
                number,
                "with_causes(…): JSON shows no causes by itself",
            );
        }
    });
    problems.expect_none("an error is logged without its causes");
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here so that this file does not find itself.
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
                    format!("`{marker}`: fix it, or open an issue and say nothing"),
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
                format!("`{needle}` is not part of this repository: say it here"),
            );
        }
    });
    problems.expect_none("the tree points to what its readers do not have");
}

#[test]
fn every_bound_has_its_reason() {
    let mut problems = Problems::default();
    let limits = read("src/limits.rs");
    let mut is_documented = false;
    for (number, line) in limits.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with("///") {
            is_documented = true;
        } else if line.starts_with("pub const") && !is_documented {
            problems.add(
                "src/limits.rs",
                number + 1,
                "a bound needs a `///` with its reason",
            );
        }
        if !line.starts_with("///") && !line.starts_with("#[") {
            is_documented = false;
        }
    }
    problems.expect_none("a bound is not explained");
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
            "it is in only one of sql/migrations and sql/rollbacks",
        );
    }
    problems.expect_none("migrations and rollbacks do not match");
}

#[test]
fn the_readers_of_this_test_are_right() {
    let text = "let a = \"tokio\"; // tokio\nlet b = 'x'; let c: &'static str = r#\"a \" tokio\"#; b\"\\\"\"; d";
    let blanked = blank(text);
    assert!(!blanked.contains("tokio"), "{blanked}");
    assert!(
        blanked.contains("&'static str") && blanked.ends_with("d"),
        "{blanked}"
    );
    assert_eq!(blanked.lines().count(), 2);

    assert!(holds_word("a.await", "await") && !holds_word("awaited", "await"));
    assert!(holds_word("std::env::args()", "std::env") && !holds_word("env!(\"A\")", "std::env"));

    let text = "use crate::{\n    auth::identity,\n    relay::{self, router::Router as R},\n};\n\
        fn f() { crate::server::g() } // crate::app";
    let source = Source::new("src/relay/example.rs", text.to_owned());
    let used: Vec<_> = source.uses().into_iter().map(|(_, path)| path).collect();
    assert_eq!(
        used,
        [
            "auth::identity",
            "relay",
            "relay::router::Router",
            "server::g"
        ]
    );
    assert_eq!(layer("postgres::connect").unwrap().0, "postgres::connect");
    assert_eq!(layer("postgres::store").unwrap().0, "postgres");
}

// ---- the tree ----

/// One file of `src`.
struct Source {
    path: String,
    /// Its path in the crate, such as `relay::router`; a folder's `mod.rs` is the folder.
    module: String,
    text: String,
    /// The text without comments and the insides of literals.
    code: String,
    /// Whether the whole file is compiled for tests alone.
    is_test: bool,
}

impl Source {
    fn new(path: &str, text: String) -> Self {
        let stem = path["src/".len()..].trim_end_matches(".rs");
        Self {
            path: path.to_owned(),
            module: stem.trim_end_matches("/mod").replace('/', "::"),
            code: blank(&text),
            text,
            is_test: false,
        }
    }

    /// The lines of code before `mod tests`, numbered.
    fn code_before_tests(&self) -> Vec<(usize, &str)> {
        if self.is_test {
            return Vec::new();
        }
        let mut lines: Vec<_> = (1..).zip(self.code.lines()).collect();
        let tests = lines
            .iter()
            .position(|(_, line)| line.starts_with("mod tests {"));
        lines.truncate(tests.unwrap_or(lines.len()));
        lines
    }

    /// The paths within the crate that the code before the tests names, with the lines they begin on.
    fn uses(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let root = if self.module == "main" {
            "usher::"
        } else {
            "crate::"
        };
        let lines = self.code_before_tests();
        let code: String = lines.iter().map(|(_, line)| format!("{line}\n")).collect();
        for (at, _) in code.match_indices(root) {
            let is_inside =
                code[..at].ends_with(|c: char| c.is_alphanumeric() || "_:$".contains(c));
            if !is_inside {
                let line = code[..at].matches('\n').count() + 1;
                let mut paths = Vec::new();
                expand(&code[at + root.len()..], "", &mut paths);
                found.extend(paths.into_iter().map(|path| (line, path)));
            }
        }
        // From a folder's own document or a file of the root, `super` is the root.
        let is_folder = self.path.ends_with("/mod.rs") || !self.module.contains("::");
        if is_folder {
            for (line, code) in lines {
                if code.contains("super::") && !code.contains("pub(super)") {
                    found.push((line, "super".into()));
                }
            }
        }
        found
    }
}

/// Expands `a::{b, c::{self, d}}` into `a::b`, `a::c`, `a::c::d`; returns what follows the path.
fn expand<'a>(text: &'a str, prefix: &str, paths: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            if let Some(after) = rest.strip_prefix(',') {
                rest = after;
                continue;
            }
            let before = rest.len();
            rest = expand(rest, prefix, paths);
            assert!(
                rest.len() < before,
                "a use that this test cannot read: {rest:.60}"
            );
        }
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*'));
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    let path = match (prefix, name) {
        (prefix, "self") => prefix.to_owned(),
        ("", name) => name.to_owned(),
        (prefix, name) => format!("{prefix}::{name}"),
    };
    if let Some(rest) = rest.strip_prefix("::") {
        return if rest.starts_with('<') {
            paths.push(path);
            rest
        } else {
            expand(rest, &path, paths)
        };
    }
    paths.push(path);
    match rest.trim_start().strip_prefix("as ") {
        Some(renamed) => {
            let end = renamed.find(|c: char| !(c.is_alphanumeric() || c == '_'));
            &renamed[end.unwrap_or(renamed.len())..]
        }
        None => rest,
    }
}

fn sources() -> Vec<Source> {
    let paths = walk("src")
        .into_iter()
        .filter(|path| has_extension(path, "rs"));
    let mut sources: Vec<Source> = paths
        .map(|path| Source::new(&path, read(&path)))
        .filter(|source| source.module != "lib")
        .collect();
    let test_modules: BTreeSet<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        source.is_test = test_modules.contains(&source.module);
    }
    assert!(sources.len() > 10, "src was not found");
    sources
}

/// The modules that a file declares with `#[cfg(test)] mod name;`.
fn test_modules(source: &Source) -> Vec<String> {
    let lines: Vec<_> = source.text.lines().map(str::trim).collect();
    let pairs = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]");
    let names = pairs.filter_map(|pair| pair[1].strip_suffix(';')?.rsplit_once("mod "));
    names
        .map(|(_, name)| format!("{}::{name}", source.module))
        .collect()
}

fn tree() -> Vec<String> {
    TREE.iter().flat_map(|path| walk(path)).collect()
}

/// All files at or below a path, as paths from the root of the repository.
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
        // What is not text has no lines: pictures, fonts, corpora.
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

// ---- words and paths ----

fn layer(module: &str) -> Option<(&'static str, &'static [&'static str])> {
    let fits = LAYERS
        .iter()
        .filter(|(owner, _)| starts_with_path(module, owner));
    fits.max_by_key(|(owner, _)| owner.len()).copied()
}

fn top(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

fn starts_with_path(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn holds_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let goes_on = word.ends_with(is_part) && text[at + word.len()..].starts_with(is_part);
        !goes_on && !text[..at].ends_with(is_part)
    })
}

/// The text with comments and the insides of literals blanked out, line for line.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = comment_end(&chars, at).or_else(|| literal_end(&chars, at));
        let Some(end) = end else {
            out.push(chars[at]);
            at += 1;
            continue;
        };
        for c in &chars[at..end] {
            out.push(if *c == '\n' { '\n' } else { ' ' });
        }
        at = end;
    }
    out
}

fn comment_end(chars: &[char], at: usize) -> Option<usize> {
    match chars.get(at..at + 2)? {
        ['/', '/'] => {
            let line_end = chars[at..].iter().position(|c| *c == '\n');
            Some(line_end.map_or(chars.len(), |length| at + length))
        }
        ['/', '*'] => {
            let (mut depth, mut here) = (1, at + 2);
            while depth > 0 && here < chars.len() {
                match chars.get(here..here + 2) {
                    Some(['/', '*']) => (depth, here) = (depth + 1, here + 2),
                    Some(['*', '/']) => (depth, here) = (depth - 1, here + 2),
                    Some(_) | None => here += 1,
                }
            }
            Some(here)
        }
        _ => None,
    }
}

fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let is_in_name = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at] {
        '"' => Some(quoted_end(chars, at + 1, '"')),
        '\'' => {
            let is_escaped = chars.get(at + 1) == Some(&'\\');
            let is_char = is_escaped || chars.get(at + 2) == Some(&'\'');
            is_char.then(|| quoted_end(chars, at + 1, '\''))
        }
        'r' if !is_in_name || chars[at - 1] == 'b' => {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            let open = at + 1 + hashes;
            if chars.get(open) != Some(&'"') {
                return None;
            }
            let is_end = |here: &usize| {
                chars[*here] == '"'
                    && chars[here + 1..].iter().take_while(|c| **c == '#').count() >= hashes
            };
            let end = (open + 1..chars.len()).find(is_end);
            Some(end.map_or(chars.len(), |end| end + 1 + hashes))
        }
        _ => None,
    }
}

fn quoted_end(chars: &[char], mut here: usize, quote: char) -> usize {
    while here < chars.len() {
        match chars[here] {
            '\\' => here += 2,
            c if c == quote => return here + 1,
            _ => here += 1,
        }
    }
    chars.len()
}

/// What a test found.
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
