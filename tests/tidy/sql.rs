//! Checks the SQL for statements that Postgres accepts but Usher forbids: functions without a search path, and updates
//! of every row.

use crate::{Problems, has_extension, read, tree};

/// The search path of every function. With any other path, even an empty one, Postgres looks for types and relations in
/// `pg_temp` first, where every caller can create their own.
const PATH: &str = "set search_path = pg_catalog, pg_temp";

/// Files that are exempt from the rules, with the reason.
const EXEMPT: &[(&str, &str)] = &[
    (
        "sql/shim.sql",
        "its functions have the form of Supabase's own",
    ),
    (
        "sql/schema.sql",
        "a dump of the result of the migrations, which are checked themselves",
    ),
];

#[test]
fn every_sql_function_looks_in_pg_temp_last() {
    let mut problems = Problems::default();
    let mut functions = 0;
    for (path, text) in files() {
        for (line, head) in function_heads(&text) {
            // No caller can attack a test's own function in pg_temp.
            if path.starts_with("sql/tests/") && head.contains(" pg_temp.") {
                continue;
            }
            functions += 1;
            if !has_path(&head) {
                problems.add(&path, line, format!("a function needs `{PATH}`"));
            }
        }
    }
    assert!(functions > 50, "only {functions} functions");
    problems.expect_none("a function resolves types and tables with the caller's search path");
}

#[test]
fn every_update_and_delete_in_sql_says_which_rows() {
    let mut problems = Problems::default();
    for (path, text) in files() {
        if path.starts_with("sql/tests/") {
            continue;
        }
        for line in unbounded_writes(&text) {
            problems.add(
                &path,
                line,
                "safeupdate, which Supabase loads, refuses it: say `where true`",
            );
        }
    }
    problems.expect_none("an update or a delete has no where");
}

#[test]
fn the_readers_of_sql_are_right() {
    let heads = |text: &str| -> Vec<(usize, bool)> {
        let heads = function_heads(text).into_iter();
        heads.map(|(line, head)| (line, has_path(&head))).collect()
    };
    assert_eq!(
        heads(
            "-- create function c() as $$;$$;\n\
            create function a() returns text language sql\nset search_path = pg_catalog,\n  pg_temp as $$ select ';' $$;\n\
            CREATE OR REPLACE FUNCTION b() returns text as $x$ set search_path = pg_catalog, pg_temp; $x$;\n\
            create function d() returns text language sql set search_path = '' as '';\n\
            create procedure e() language sql begin atomic select 1; end;\n\
            create function f() returns text language sql return 'x';\n\
            create function g() returns text set search_path = pg_temp, pg_catalog as $$ return 1 $$;"
        ),
        [
            (2, true),
            (5, false),
            (6, false),
            (7, true),
            (8, true),
            (9, false)
        ]
    );
    assert_eq!(
        unbounded_writes(
            "update a set b = (select c from d where e);\n\
            update only a.b as x set c = 1 where d;\n\
            create function f() as $$\nbegin\n  delete from g;\n  perform 'delete from h';\nend $$;\n\
            with i as (delete from j returning k) select l from m where n;\n\
            insert into o values (1) on conflict (p) do update set q = 1;\n\
            create trigger r before update on s execute function t();\n\
            select u from v for no key update; -- update w set x = 1\n\
            create policy y on z for update using (true);\n\
            delete from a1 using b1 where true;"
        ),
        [1, 5, 8]
    );
}

/// Returns the SQL files of the tree, and the SQL examples of the documents.
fn files() -> Vec<(String, String)> {
    let paths = tree()
        .into_iter()
        .filter(|path| !EXEMPT.iter().any(|(exempt, _)| exempt == path));
    paths
        .filter_map(|path| {
            if has_extension(&path, "sql") {
                let text = read(&path);
                Some((path, text))
            } else if has_extension(&path, "md") {
                let text = examples(&read(&path));
                Some((path, text))
            } else {
                None
            }
        })
        .collect()
}

/// Returns the SQL examples of a document, with all other lines empty.
fn examples(text: &str) -> String {
    let mut is_sql = false;
    let lines = text.lines().map(|line| {
        let fence = line.trim_start().strip_prefix("```");
        if let Some(language) = fence {
            is_sql = language.starts_with("sql");
        }
        if is_sql && fence.is_none() { line } else { "" }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns each function that a text creates: its line, and the statement in one line of lower case, with empty
/// literals.
fn function_heads(text: &str) -> Vec<(usize, String)> {
    let code = code(text, Bodies::Blanked);
    let words = words(&code);
    let mut heads = Vec::new();
    for (n, (at, word)) in words.iter().enumerate() {
        let next = |m: usize| words.get(n + m).map_or("", |(_, word)| word.as_str());
        let kind = if next(1) == "or" && next(2) == "replace" {
            next(3)
        } else {
            next(1)
        };
        if word == "create" && (kind == "function" || kind == "procedure") {
            let rest = words[n..].iter().take_while(|(_, word)| word != ";");
            let head: Vec<&str> = rest.map(|(_, word)| word.as_str()).collect();
            heads.push((line_of(&code, *at), format!("{} ", head.join(" "))));
        }
    }
    heads
}

/// Whether a function sets the path, or has a body that Postgres resolves at creation.
fn has_path(head: &str) -> bool {
    let is_resolved = head.contains(" begin atomic ") || head.contains(" return ");
    is_resolved || head.contains(&PATH.replace(',', " ,"))
}

/// Returns the lines with an update or a delete of every row of a table.
fn unbounded_writes(text: &str) -> Vec<usize> {
    let code = code(text, Bodies::Kept);
    let words = words(&code);
    let mut lines = Vec::new();
    for (n, (at, word)) in words.iter().enumerate() {
        let rest = || words[n + 1..].iter().map(|(_, word)| word.as_str());
        let is_write = match word.as_str() {
            // The table, and its alias.
            "update" => {
                let names = rest().take_while(|word| *word != "set" && is_name(word));
                (1..=4).contains(&names.clone().count()) && rest().nth(names.count()) == Some("set")
            }
            "delete" => rest().next() == Some("from"),
            _ => false,
        };
        if !is_write {
            continue;
        }
        let mut depth = 0_i32;
        let mut is_bounded = false;
        for word in rest() {
            match word {
                "(" => depth += 1,
                ")" => depth -= 1,
                ";" => break,
                "where" if depth == 0 => is_bounded = true,
                _ => {}
            }
            if depth < 0 {
                break;
            }
        }
        if !is_bounded {
            lines.push(line_of(&code, *at));
        }
    }
    lines
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '"')
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Returns the words and the punctuation of code in lower case, each with its offset. A dotted name counts as one word.
fn words(code: &str) -> Vec<(usize, String)> {
    let is_part = |c: char| c.is_alphanumeric() || "_.\"$".contains(c);
    let mut words: Vec<(usize, String)> = Vec::new();
    let mut is_inside = false;
    for (at, c) in code.char_indices() {
        match words.last_mut() {
            Some((_, word)) if is_inside && is_part(c) => word.extend(c.to_lowercase()),
            Some(_) | None if !c.is_whitespace() => words.push((at, c.to_lowercase().to_string())),
            Some(_) | None => {}
        }
        is_inside = is_part(c);
    }
    words
}

/// The treatment of text between dollar quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bodies {
    Blanked,
    Kept,
}

/// Replaces comments and literals with spaces, and keeps every byte offset.
fn code(text: &str, bodies: Bodies) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let blanked = match c {
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '\'' => 2 + rest[1..].find('\'').unwrap_or(rest.len() - 2),
            '$' => match dollar_tag(rest) {
                Some(tag) if bodies == Bodies::Blanked => {
                    let end = rest[tag.len()..].find(tag);
                    end.map_or(rest.len(), |end| end + 2 * tag.len())
                }
                Some(tag) => tag.len(),
                None => 0,
            },
            _ => 0,
        };
        if blanked == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        for byte in rest[..blanked].bytes() {
            out.push(if byte == b'\n' { '\n' } else { ' ' });
        }
        rest = &rest[blanked..];
    }
    out
}

/// Returns the `$$` or `$tag$` at the start of a text.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 2;
    let name = &text[1..end - 1];
    let is_tag = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    (is_tag && !name.starts_with(|c: char| c.is_ascii_digit())).then_some(&text[..end])
}
