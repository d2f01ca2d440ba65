//! The checks of `usher doctor` in a database, one function each.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use crate::causes::with_causes;
use crate::cli::doctor::finding::{Finding, failed, ok, warning};
use crate::clock;
use crate::limits::SKEW_MAX_MS;
use crate::postgres::expected_schema::ExpectedSchema;
use crate::postgres::introspect::{self, Bucket, DatabaseRole, Function, Objects, ServerSettings};
use crate::postgres::store::{CALLERS_FUNCTIONS, OWN_FUNCTIONS};

/// The function that returns the buckets. The gateway's role may not read them itself.
const BUCKET_SETTINGS: &str = "usher.bucket_settings";
/// The buckets that the migrations create, with the largest file in bytes.
const BUCKETS: [(&str, i64); 2] = [("avatars", 1_048_576), ("posters", 5_242_880)];
/// The kinds of files that they accept.
const PICTURES: [&str; 3] = ["image/png", "image/jpeg", "image/webp"];
/// The oldest Postgres that the migrations run on.
const OLDEST_VERSION: i32 = 150_000;
/// Runs every check, as the client's role.
pub(crate) async fn all(client: &Client, pool_size: usize, findings: &mut Vec<Finding>) {
    let asked = async {
        let server = introspect::server(client).await?;
        let now = clock::moment().unix_ms;
        let (role, objects) = (
            introspect::role(client).await?,
            introspect::objects(client).await?,
        );
        Ok::<_, tokio_postgres::Error>((server, now, role, objects))
    };
    match asked.await {
        Ok((server, now_ms, is_role, objects)) => {
            version(&server, findings);
            headroom(&server, pool_size, findings);
            clock(&server, now_ms, findings);
            role(&is_role, findings);
            schema(&objects, findings);
            grants(&objects, findings);
            row_level_security(&objects, findings);
            triggers(&objects, findings);
            isolation(introspect::isolation(client).await, findings);
            let may_ask = objects.functions.get(BUCKET_SETTINGS);
            if may_ask.is_some_and(|function| function.is_executable) {
                buckets(introspect::buckets(client).await, findings);
            }
        }
        Err(error) => findings.push(failed(
            "database",
            with_causes(&error),
            "do what the server says",
        )),
    }
}

/// Reports the default isolation level. The gateway sets the level of its connections; other writers may not.
fn isolation(level: Result<Option<String>, tokio_postgres::Error>, findings: &mut Vec<Finding>) {
    findings.push(match level {
        Ok(Some(level)) if level != "read committed" => ok(
            "isolation",
            format!(
                "default_transaction_isolation is {level} here: the gateway's transactions are read committed all the \
                 same, those of others may fail with 40001 and must be tried again"
            ),
        ),
        Ok(_) => ok("isolation", "read committed, as Postgres has it"),
        Err(error) => failed("isolation", with_causes(&error), "do what the server says"),
    });
}

/// Compares the buckets with those that the migrations create. The migrations do not change an existing bucket.
fn buckets(found: Result<Vec<Bucket>, tokio_postgres::Error>, findings: &mut Vec<Finding>) {
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            let advice = "do what the server says";
            return findings.push(failed("buckets", with_causes(&error), advice));
        }
    };
    let before = findings.len();
    for (name, bytes_max) in BUCKETS {
        let Some(bucket) = found.iter().find(|bucket| bucket.name == name) else {
            let advice = "make it in the dashboard (Storage), public, or leave it where the app shows no such pictures";
            findings.push(warning(
                "buckets",
                format!("there is no bucket {name}"),
                advice,
            ));
            continue;
        };
        let mut differences = Vec::new();
        if !bucket.is_public {
            differences.push("it is private, so that its pictures are not shown".to_owned());
        }
        if bucket.bytes_max != Some(bytes_max) {
            let is = bucket.bytes_max.map_or_else(
                || "of any size".to_owned(),
                |bytes| format!("of up to {bytes} bytes"),
            );
            differences.push(format!("it takes files {is}, not of up to {bytes_max}"));
        }
        let kinds = bucket.mime_types.clone().unwrap_or_default();
        if !PICTURES
            .iter()
            .all(|kind| kinds.iter().any(|one| one == kind))
            || kinds.len() != 3
        {
            let is = if kinds.is_empty() {
                "files of any kind".to_owned()
            } else {
                kinds.join(", ")
            };
            differences.push(format!("it takes {is}, not {}", PICTURES.join(", ")));
        }
        if !bucket.has_policies {
            differences.push("it has none of Usher's policies".to_owned());
        }
        if !differences.is_empty() {
            let found = format!("bucket {name} was there before: {}", differences.join("; "));
            let advice = "leave it where it serves another purpose; else set it so in the dashboard (Storage), with \
                          policies of your own";
            findings.push(warning("buckets", found, advice));
        }
    }
    if findings.len() == before {
        findings.push(ok(
            "buckets",
            "avatars and posters are as the app needs them",
        ));
    }
}

fn version(server: &ServerSettings, findings: &mut Vec<Finding>) {
    findings.push(if server.version_number >= OLDEST_VERSION {
        ok("postgres", format!("version {}", server.version))
    } else {
        failed(
            "postgres",
            format!("version {}", server.version),
            "the schema needs Postgres 15 or newer",
        )
    });
}

/// Checks that the database has enough free connections for a gateway: its pool and LISTEN.
fn headroom(server: &ServerSettings, pool_size: usize, findings: &mut Vec<Finding>) {
    let wanted = i64::try_from(pool_size).unwrap_or(i64::MAX) + 1;
    for room in &server.rooms {
        // The connection of this check will be closed by then.
        let free = room.max - room.taken + 1;
        let found = format!(
            "{free} of the {} that {} takes are free; a gateway needs {wanted}",
            room.max, room.of
        );
        findings.push(if free >= wanted {
            ok("connections", found)
        } else {
            warning(
                "connections",
                found,
                "lower USHER_POOL_SIZE, raise the limit, or use a pooler",
            )
        });
    }
}

fn clock(server: &ServerSettings, now_ms: u64, findings: &mut Vec<Finding>) {
    let skew = u64::try_from(server.unix_ms).unwrap_or(0).abs_diff(now_ms);
    let found = format!("the database's and this machine's are {skew} ms apart at most");
    findings.push(if skew <= SKEW_MAX_MS {
        ok("clock", found)
    } else {
        warning(
            "clock",
            found,
            "run NTP on both: expiry of tokens and closing of polls go by the clock",
        )
    });
}

fn role(role: &DatabaseRole, findings: &mut Vec<Finding>) {
    let name = &role.name;
    if role.is_superuser || role.bypasses_rls {
        findings.push(failed(
            "role",
            format!("{name} is bound by no policy: it is a superuser or has BYPASSRLS"),
            "log in as usher_gateway: every policy must hold for the gateway",
        ));
    }
    if role.inherits {
        let advice = format!(
            "alter role {name} noinherit: it is to have a caller's rights only while it acts for one"
        );
        findings.push(warning("role", format!("{name} inherits"), &advice));
    }
    let lacks: Vec<_> = ["anon", "authenticated"]
        .into_iter()
        .filter(|group| !role.member_of.iter().any(|member| member == group))
        .collect();
    if !lacks.is_empty() && !role.is_superuser {
        let lacks = lacks.join(", ");
        let advice = format!("grant {lacks} to {name}");
        findings.push(failed(
            "role",
            format!("{name} may not act as {lacks}"),
            &advice,
        ));
    }
    if !role.may_use_schema {
        let found = format!("{name} may not use the schema usher, or there is none");
        findings.push(failed(
            "role",
            found,
            "usher migrate up, as the role that owns the schema",
        ));
    }
    if findings.iter().all(|finding| finding.check != "role") {
        findings.push(ok(
            "role",
            format!("{name} is bound by every policy, and may act for callers"),
        ));
    }
}

/// Compares the schema with the migrations, and names the migrations whose objects are missing or changed.
fn schema(objects: &Objects, findings: &mut Vec<Finding>) {
    let expected = ExpectedSchema::of_migrations();
    let mut lacking: BTreeSet<&str> = BTreeSet::new();
    for (name, (body, file)) in &expected.functions {
        if objects
            .functions
            .get(name)
            .is_none_or(|function| body.as_ref().is_some_and(|body| function.body != *body))
        {
            lacking.insert(file);
        }
    }
    let tables = expected
        .tables
        .iter()
        .filter(|(name, _)| !objects.tables.contains_key(*name));
    lacking.extend(tables.map(|(_, file)| file.as_str()));
    findings.push(if lacking.is_empty() {
        ok(
            "migrations",
            "functions and tables are as the migrations make them",
        )
    } else {
        let files: Vec<_> = lacking.into_iter().collect();
        let found = format!(
            "objects of these migrations are missing or changed: {}",
            files.join(", ")
        );
        failed(
            "migrations",
            found,
            "usher migrate up, and usher migrate status, as the role that owns the schema",
        )
    });
}

fn grants(objects: &Objects, findings: &mut Vec<Finding>) {
    let closed = |names: &[&str], is_open: fn(&Function) -> bool| {
        let names = names.iter().map(|name| format!("usher.{name}"));
        let closed = names.filter(|name| {
            let function = objects.functions.get(name);
            function.is_some_and(|function| !is_open(function))
        });
        closed.collect::<Vec<_>>().join(", ")
    };
    let own = closed(&OWN_FUNCTIONS, |function| function.is_executable);
    let callers = closed(&CALLERS_FUNCTIONS, |function| {
        function.is_executable_by_callers
    });
    if !own.is_empty() {
        let advice = "grant execute on them to usher_gateway, as the migrations do";
        findings.push(failed(
            "grants",
            format!("the gateway may not call {own}"),
            advice,
        ));
    }
    if !callers.is_empty() {
        let advice = "grant execute on them to anon and authenticated, as the migrations do";
        findings.push(failed(
            "grants",
            format!("callers may not call {callers}"),
            advice,
        ));
    }
    if own.is_empty() && callers.is_empty() {
        findings.push(ok(
            "grants",
            "the gateway and its callers may call their functions",
        ));
    }
}

fn row_level_security(objects: &Objects, findings: &mut Vec<Finding>) {
    let expected = ExpectedSchema::of_migrations();
    let off = objects.tables.iter().filter(|(_, is_on)| !**is_on);
    let (ours, others): (Vec<&str>, Vec<&str>) = off
        .map(|(name, _)| name.as_str())
        .partition(|name| expected.tables.contains_key(*name));
    if !ours.is_empty() {
        let found = format!("it is off on {}", ours.join(", "));
        findings.push(failed(
            "row level security",
            found,
            "alter table … enable row level security",
        ));
    }
    if !others.is_empty() {
        let found = format!("it is off on {}, which are not Usher's", others.join(", "));
        findings.push(warning(
            "row level security",
            found,
            "turn it on where the Data API shows the table",
        ));
    }
    if ours.is_empty() && others.is_empty() {
        findings.push(ok("row level security", "it is on for every table"));
    }
}

fn triggers(objects: &Objects, findings: &mut Vec<Finding>) {
    let expected = ExpectedSchema::of_migrations();
    let silent: Vec<_> = expected
        .triggers
        .keys()
        .filter(|key| objects.triggers.get(*key) != Some(&true))
        .map(|(table, name)| format!("{name} on {table}"))
        .collect();
    findings.push(if silent.is_empty() {
        ok("triggers", "all are there and fire")
    } else {
        let found = format!("missing or disabled: {}", silent.join(", "));
        failed(
            "triggers",
            found,
            "alter table … enable trigger …, or usher migrate up where they are missing",
        )
    });
}
