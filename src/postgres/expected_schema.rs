//! What the migrations make, read off their own text, so that a database can be held to it without a list beside them.
//!
//! Every role may read the catalog, the gateway's too, which may not read the list of migrations.

use std::collections::BTreeMap;

use crate::postgres::migrations;

/// The objects of a database that has all migrations, each with the file of the one that made it as it is.
#[derive(Debug, Default)]
pub(crate) struct ExpectedSchema {
    /// Functions by name, with the text between the dollars; one that is a single expression has none.
    pub(crate) functions: BTreeMap<String, (Option<String>, String)>,
    /// Tables by name.
    pub(crate) tables: BTreeMap<String, String>,
    /// Triggers by table and name.
    pub(crate) triggers: BTreeMap<(String, String), String>,
}

impl ExpectedSchema {
    /// What all embedded migrations make.
    #[must_use]
    pub(crate) fn of_migrations() -> Self {
        let mut expected = Self::default();
        for migration in migrations::all() {
            expected.read(&migration.file(), &migrations::sql(&migration));
        }
        expected
    }

    /// Reads one migration, in the form that all of them have: a clause a line.
    fn read(&mut self, file: &str, sql: &str) {
        let mut lines = sql.lines();
        while let Some(line) = lines.next() {
            if let Some(rest) = line
                .strip_prefix("create table ")
                .or_else(|| line.strip_prefix("create unlogged table "))
            {
                self.tables.insert(name(rest), file.to_owned());
            } else if let Some(rest) = line
                .strip_prefix("create function ")
                .or_else(|| line.strip_prefix("create or replace function "))
            {
                let opening = lines
                    .by_ref()
                    .find(|line| *line == "as $$" || line.ends_with(';'));
                let body = (opening == Some("as $$")).then(|| {
                    let body = lines.by_ref().take_while(|line| *line != "$$;");
                    body.fold("\n".to_owned(), |text, line| text + line + "\n")
                });
                self.functions.insert(name(rest), (body, file.to_owned()));
            } else if let Some(rest) = line
                .strip_prefix("create trigger ")
                .or_else(|| line.strip_prefix("create constraint trigger "))
            {
                let table = lines
                    .by_ref()
                    .find_map(|line| line.split_once(" on "))
                    .map(|(_, table)| name(table));
                self.triggers
                    .insert((table.unwrap_or_default(), name(rest)), file.to_owned());
            }
        }
    }
}

/// The name that a text begins with, as the catalog has it: without the quotes.
fn name(text: &str) -> String {
    let name = text.split([' ', '(']).next().unwrap_or_default();
    name.trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_has_the_text_of_its_migration() {
        let expected = ExpectedSchema::of_migrations();
        let (body, file) = &expected.functions["usher.close_due_votings"];
        assert_eq!(file, "20261122120900_gateway_reads.sql");
        let body = body.as_deref().unwrap();
        assert!(
            body.starts_with("\ndeclare\n") && body.ends_with("end\n"),
            "{body}"
        );
        assert!(expected.tables.contains_key("usher.session_events"));
        assert!(expected.tables.contains_key("usher.pending_events"));
        for (table, trigger) in [
            ("public.votes", "00_usher_cast"),
            ("usher.pending_transactions", "pending_transactions_settled"),
        ] {
            let key = (table.to_owned(), trigger.to_owned());
            assert!(expected.triggers.contains_key(&key), "{key:?}");
        }
    }
}
