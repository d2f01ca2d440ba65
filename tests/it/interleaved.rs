//! Proves that the log, the notifications, the tallies and the tables agree after many connections wrote at the same
//! time, with savepoints and rollbacks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::database::{Database, User, connect};
use crate::dice::Dice;
use crate::overheard::Overheard;
use crate::stress;

/// Connections that write by SQL, and those that write as the gateway does.
const WRITERS: u64 = 5;
const GATEWAYS: u64 = 2;
/// Transactions of each.
const TRANSACTIONS: usize = 70;

/// Refusals, conflicts and deadlocks end a step or a transaction, as for any client. Every other error fails the test.
const EXPECTED: &[&str] = &[
    "US005", "US008", "23503", "23505", "23514", "40P01", "55P03",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_and_the_tables_agree_after_interleaved_writes() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let db = Database::create().await;
    let heard = Overheard::start(&db).await;
    let stage = Arc::new(Stage::new(&db).await);

    let mut tasks = JoinSet::new();
    for n in 0..WRITERS + GATEWAYS {
        let is_gateway = n >= WRITERS;
        let client = connect(if is_gateway { &db.gateway_url } else { &db.url }).await;
        client.batch_execute(stress::PATIENT).await.unwrap();
        if !is_gateway {
            client.batch_execute(stress::SOON).await.unwrap();
        }
        let reader = connect(&db.url).await;
        let stage = Arc::clone(&stage);
        tasks.spawn(async move {
            let mut writer = Writer::new(client, reader, n, Dice::new(seed + n), &stage);
            for _ in 0..TRANSACTIONS {
                if is_gateway {
                    writer.batch().await;
                } else {
                    writer.transaction().await;
                }
            }
            writer.written
        });
    }
    let mut written = Written::default();
    while let Some(done) = tasks.join_next().await {
        let of_one = done.unwrap();
        written.committed.extend(of_one.committed);
        written.withdrawn.extend(of_one.withdrawn);
    }
    println!(
        "{} texts committed, {} withdrawn in their transaction",
        written.committed.len(),
        written.withdrawn.len()
    );
    assert!(!written.committed.is_empty() && !written.withdrawn.is_empty());

    let payloads = heard.payloads().await;
    let mut events = tell(&payloads);
    no_withdrawn_text_was_told(&payloads, &written);
    for session in &stage.sessions {
        let told = events.remove(session).unwrap_or_default();
        the_story_ends_as_the_tables_are(&db, *session, &told).await;
    }
    stress::balance(&db).await;
}

/// Returns the events of each session in the order of their notifications, which is the order of their numbers.
fn tell(payloads: &[String]) -> HashMap<Uuid, Vec<Value>> {
    let mut events: HashMap<Uuid, Vec<Value>> = HashMap::new();
    for payload in payloads {
        let hint: Value = serde_json::from_str(payload).unwrap();
        let session: Uuid = hint["s"].as_str().unwrap().parse().unwrap();
        let event = &hint["e"];
        assert!(event.is_object(), "transactions are small: {payload}");
        assert_eq!(event["seq"], hint["q"], "{payload}");
        let told = events.entry(session).or_default();
        let before = told
            .last()
            .map_or(0, |event| event["seq"].as_u64().unwrap());
        assert_eq!(event["seq"], before + 1, "after {before}: {payload}");
        told.push(event.clone());
    }
    events
}

/// What a transaction took back, no notification has; what it left, one has.
fn no_withdrawn_text_was_told(payloads: &[String], written: &Written) {
    let mut told = HashSet::new();
    for payload in payloads {
        let hint: Value = serde_json::from_str(payload).unwrap();
        if let Some(body) = hint["e"]["data"]["body"].as_str() {
            told.insert(body.to_owned());
        }
    }
    let leaked: Vec<&String> = told.intersection(&written.withdrawn).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    let untold: Vec<&String> = written.committed.difference(&told).collect();
    assert!(untold.is_empty(), "{untold:?}");
}

/// A viewer who applies all events ends with the messages of the table. Redaction aside, the log has the same events.
async fn the_story_ends_as_the_tables_are(db: &Database, session: Uuid, events: &[Value]) {
    let mut shown: BTreeMap<String, Value> = BTreeMap::new();
    for event in events {
        let data = &event["data"];
        let id = data["id"].as_str().unwrap_or_default().to_owned();
        match event["type"].as_str().unwrap() {
            "chat.created" => {
                let before = shown.insert(id, data["body"].clone());
                assert_eq!(before, None, "created twice: {event}");
            }
            "chat.updated" => {
                let before = shown.insert(id, data["body"].clone());
                assert!(before.is_some(), "updated before it was created: {event}");
            }
            "chat.deleted" => {
                shown.remove(&id);
            }
            _ => {}
        }
    }
    let sql = "select id::text, to_json(body) from public.chat_messages where session_id = $1 and deleted_at is null";
    let rows = db.client.query(sql, &[&session]).await.unwrap();
    let stored: BTreeMap<String, Value> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(shown, stored);

    let log = db.log(session).await;
    assert_eq!(log.len(), events.len());
    for (logged, told) in log.iter().zip(events) {
        let (mut logged, mut told) = (logged.clone(), told.clone());
        for event in [&mut logged, &mut told] {
            if let Some(data) = event["data"].as_object_mut() {
                for redacted in ["body", "deleted_at", "deleted_by", "user_id", "author"] {
                    data.remove(redacted);
                }
            }
        }
        assert_eq!(logged, told);
    }
}

struct Stage {
    sessions: Vec<Uuid>,
    movies: Vec<Uuid>,
    users: Vec<User>,
    streamer: User,
}

impl Stage {
    async fn new(db: &Database) -> Self {
        let streamer = db.user("sam").await;
        let mut users = Vec::new();
        for n in 0..8 {
            users.push(db.user(&format!("user_{n}")).await);
        }
        let movies = db.movies(3).await;
        let mut sessions = Vec::new();
        for _ in 0..3 {
            let session = db.session(&streamer).await;
            db.voting(session, &movies, "").await;
            sessions.push(session);
        }
        Self {
            sessions,
            movies,
            users,
            streamer,
        }
    }
}

/// The texts that transactions left behind when they committed, and all others that they wrote.
#[derive(Default)]
struct Written {
    committed: HashSet<String>,
    withdrawn: HashSet<String>,
}

struct Writer<'a> {
    client: Client,
    /// Sees what the gateway's role may not.
    reader: Client,
    n: u64,
    dice: Dice,
    stage: &'a Stage,
    transactions: usize,
    /// Of the running transaction.
    texts: Vec<String>,
    written: Written,
}

impl<'a> Writer<'a> {
    fn new(client: Client, reader: Client, n: u64, dice: Dice, stage: &'a Stage) -> Self {
        Self {
            client,
            reader,
            n,
            dice,
            stage,
            transactions: 0,
            texts: Vec::new(),
            written: Written::default(),
        }
    }

    /// What all texts of the running transaction begin with.
    fn mark(&self) -> String {
        format!("w{}t{}.", self.n, self.transactions)
    }

    fn text(&mut self) -> String {
        let text = format!("{}{}", self.mark(), self.texts.len());
        self.texts.push(text.clone());
        text
    }

    async fn transaction(&mut self) {
        self.transactions += 1;
        self.texts.clear();
        let mut survivors = None;
        if self.steps().await.is_ok() {
            // Nothing runs between this and the commit.
            let mark = format!("{}%", self.mark());
            let sql =
                "select body from public.chat_messages where deleted_at is null and body like $1";
            let left = self.client.query(sql, &[&mark]).await.unwrap();
            if !self.dice.chance(15) && self.run("commit").await.is_ok() {
                survivors = Some(left.iter().map(|row| row.get(0)).collect());
            }
        }
        let _ = self.client.batch_execute("rollback").await;
        self.note(survivors.unwrap_or_default());
    }

    fn note(&mut self, survivors: HashSet<String>) {
        let texts = self.texts.drain(..);
        self.written
            .withdrawn
            .extend(texts.filter(|text| !survivors.contains(text)));
        self.written.committed.extend(survivors);
    }

    async fn steps(&mut self) -> Result<(), ()> {
        self.run("begin").await?;
        let mut savepoints = 0;
        for _ in 0..=self.dice.below(12) {
            match self.dice.below(16) {
                0 | 1 => {
                    savepoints += 1;
                    self.run("savepoint s").await?;
                }
                2 if savepoints > 0 => self.run("rollback to s").await?,
                3 if savepoints > 0 => {
                    savepoints -= 1;
                    self.run("release s").await?;
                }
                _ => {
                    let step = self.step();
                    if self.run(&step).await.is_err() {
                        if savepoints == 0 {
                            return Err(());
                        }
                        self.run("rollback to s").await?;
                    }
                }
            }
        }
        Ok(())
    }

    fn step(&mut self) -> String {
        let stage = self.stage;
        let session = self.dice.pick(&stage.sessions);
        let user = stage.users[self.dice.below(stage.users.len())].id;
        let movie = self.dice.pick(&stage.movies);
        let text = self.text();
        // Some message, of this transaction where it has one.
        let mine = format!("{}%", self.mark());
        let any = format!(
            "(select id from public.chat_messages where session_id = '{session}' and deleted_at is null
              order by body like '{mine}' desc, id limit 1 offset {})",
            self.dice.below(2)
        );
        let open = format!(
            "(select id from public.voting_sessions where session_id = '{session}' and state = 'open')"
        );
        match self.dice.below(25) {
            0..=5 => format!(
                "insert into public.chat_messages (session_id, user_id, body) values ('{session}', '{user}', '{text}')"
            ),
            6 => {
                let second = self.text();
                format!(
                    "insert into public.chat_messages (session_id, user_id, body)
                     select s.id, '{user}', t from public.movie_sessions s, unnest('{{{text},{second}}}'::text[]) t
                     where s.id = '{session}'"
                )
            }
            7 => format!("update public.chat_messages set body = '{text}' where id = {any}"),
            8 | 23 => format!("update public.chat_messages set deleted_at = now() where id = {any}"),
            9 => format!("delete from public.chat_messages where id = {any}"),
            // The same id again.
            10 => format!(
                "with gone as (delete from public.chat_messages where id = {any} returning id)
                 select set_config('test.id', coalesce((select id::text from gone), gen_random_uuid()::text), true);
                 insert into public.chat_messages (id, session_id, user_id, body)
                 values (current_setting('test.id')::uuid, '{session}', '{user}', '{text}')"
            ),
            11..=13 => format!(
                "insert into public.votes (voting_session_id, user_id, movie_id)
                 select {open}, '{user}', '{movie}' where {open} is not null
                 on conflict (voting_session_id, user_id) do update set movie_id = excluded.movie_id"
            ),
            14 => format!("delete from public.votes where user_id = '{user}' and voting_session_id = {open}"),
            15 => format!(
                "update public.voting_sessions set state = 'closed' where id = {open};
                 with v as (
                   insert into public.voting_sessions (session_id, question) values ('{session}', 'Next?') returning id
                 )
                 insert into public.voting_options (voting_session_id, movie_id)
                 select v.id, m.id from v cross join public.movies m;
                 update public.voting_sessions set state = 'open' where session_id = '{session}' and state = 'draft'"
            ),
            16 => format!("delete from public.voting_sessions where session_id = '{session}' and state = 'closed'"),
            17 => format!("update public.movie_sessions set title = '{text}' where id = '{session}'"),
            18 if self.dice.chance(60) => format!("delete from public.session_bans where user_id = '{user}'"),
            18 => format!(
                "insert into public.session_bans (session_id, user_id, until) values ('{session}', '{user}', now() + interval '1 h')
                 on conflict (session_id, user_id) do update set until = excluded.until"
            ),
            19..=21 => "set constraints all immediate".to_owned(),
            22 => "set constraints all deferred".to_owned(),
            // A session that comes and goes.
            _ => format!(
                "insert into public.movie_sessions (id, streamer_id, title, status)
                 values ('5e000000-0000-4000-8000-000000000001', '{}', 'short', 'live') on conflict do nothing;
                 insert into public.chat_messages (session_id, user_id, body)
                 values ('5e000000-0000-4000-8000-000000000001', '{user}', 'short');
                 delete from public.movie_sessions where id = '5e000000-0000-4000-8000-000000000001'",
                stage.streamer.id
            ),
        }
    }

    /// A batch as the gateway posts it.
    async fn batch(&mut self) {
        self.transactions += 1;
        self.texts.clear();
        let stage = self.stage;
        let mut survivors = HashSet::new();
        let author = |user: &User| json!({"role": "authenticated", "claims": {"role": "authenticated", "sub": user.id}});
        if self.dice.chance(50) {
            let mut items = Vec::new();
            for _ in 0..4 {
                let mut item = author(&stage.users[self.dice.below(stage.users.len())]);
                item["session"] = json!(self.dice.pick(&stage.sessions));
                item["body"] = json!(self.text());
                item["nonce"] = json!(Uuid::new_v4());
                items.push(item);
            }
            let sql = "select item, refusal from usher.post_messages($1)";
            if let Some(rows) = self.ask(sql, &items.into()).await {
                for (item, refusal) in rows {
                    match refusal.as_deref() {
                        None => {
                            survivors.insert(self.texts[item].clone());
                        }
                        Some("banned" | "busy") => {}
                        Some(other) => panic!("{other}"),
                    }
                }
            }
        } else {
            let sql = "select id from public.voting_sessions where state = 'open'";
            let votings = self.reader.query(sql, &[]).await.unwrap();
            let mut items = Vec::new();
            for voting in votings.iter().map(|row| row.get::<_, Uuid>(0)) {
                for _ in 0..2 {
                    let mut item = author(&stage.users[self.dice.below(stage.users.len())]);
                    item["voting"] = json!(voting);
                    if self.dice.chance(80) {
                        item["movie"] = json!(self.dice.pick(&stage.movies));
                    }
                    items.push(item);
                }
            }
            let sql = "select item, refusal from usher.cast_votes($1)";
            for (_, refusal) in self.ask(sql, &items.into()).await.unwrap_or_default() {
                let is_expected = matches!(
                    refusal.as_deref(),
                    None | Some("banned" | "busy" | "not_found" | "voting_closed" | "bad_request")
                );
                assert!(is_expected, "{refusal:?}");
            }
        }
        self.note(survivors);
    }

    /// The items of a batch and their refusals; none if it is rolled back.
    async fn ask(&self, sql: &str, items: &Value) -> Option<Vec<(usize, Option<String>)>> {
        match self.client.query(sql, &[items]).await {
            Ok(rows) => Some(
                rows.iter()
                    .map(|row| (usize::try_from(row.get::<_, i32>(0)).unwrap(), row.get(1)))
                    .collect(),
            ),
            Err(error) => {
                expected(&error, sql);
                None
            }
        }
    }

    async fn run(&self, sql: &str) -> Result<(), ()> {
        self.client
            .batch_execute(sql)
            .await
            .map_err(|error| expected(&error, sql))
    }
}

fn expected(error: &tokio_postgres::Error, sql: &str) {
    let code = error.code().map_or("", |code| code.code());
    assert!(EXPECTED.contains(&code), "{error:?}\nin {sql}");
}
