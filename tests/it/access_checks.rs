//! Proves that an app's own access policy also ends subscriptions that are already open.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::Caller;
use crate::client::{Client, refused, until};
use crate::database::{Database, User, connect};
use crate::gateway::Gateway;
use crate::http::metric;
use crate::stream::Source;

/// Longer than any test, so that no periodic check causes the observed change.
const NEVER: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_viewer_whom_a_policy_hides_the_session_from_stops_watching() {
    let stage = Stage::new(Duration::from_secs(5)).await;
    let Stage {
        db,
        gateway,
        session,
        ann,
        ben,
    } = &stage;
    let mut out = Client::connect(gateway.at, ann).await;
    out.subscribe(*session).await;
    let mut stays = Client::connect(gateway.at, ben).await;
    stays.subscribe(*session).await;
    let path = format!("/v1/sessions/{session}/stream");
    let mut stream = Source::open(gateway.at, &path, Some(ann), None).await;

    // Nothing of ours changes: no trigger tells of it.
    stage.unpay(ann).await;
    assert_eq!(out.expect("unsubscribed").await["reason"], "forbidden");
    assert_eq!(out.closed().await, 4503);
    while stream.frame().await.is_some() {}
    let position = out.position(*session);
    stage.say_to("only those who paid", &mut stays).await;
    assert!(out.seq(*session) < stays.seq(*session));

    // The token of before does not bring it back, nor does a call.
    let mut back = Client::connect(gateway.at, ann).await;
    let frame = json!({"type": "subscribe", "session": session, "resume": position});
    refused(back.ask(frame).await, "forbidden");
    for rest in ["events", "messages", "stream"] {
        let answer = Caller::new(gateway, ann)
            .get(&format!("/v1/sessions/{session}/{rest}"))
            .await;
        answer.is_refusal(404, "not_found");
    }
    db.run(&format!("insert into public.paid values ('{}')", ann.id))
        .await;
    back.subscribe(*session).await;
}

#[tokio::test]
async fn an_access_notice_of_an_app_is_handled_before_the_next_interval() {
    let stage = Stage::new(NEVER).await;
    let Stage {
        db,
        gateway,
        session,
        ann,
        ben,
    } = &stage;
    db.run(
        "create function public.on_unpaid() returns trigger language plpgsql as $$
         begin
           perform usher.access_changed(null, old.user_id);
           return null;
         end $$;
         create trigger on_unpaid after delete on public.paid for each row execute function public.on_unpaid()",
    )
    .await;
    let mut viewers = Vec::new();
    for user in [ann, ben] {
        let mut viewer = Client::connect(gateway.at, user).await;
        viewer.subscribe(*session).await;
        viewers.push(viewer);
    }
    let mut anonymous = Client::anonymous(gateway.at).await;
    refused(anonymous.try_subscribe(*session).await, "not_found");

    // By the writer's own role, which the trigger runs as.
    let writer = connect(&db.url).await;
    let sql = format!(
        "begin; set local role service_role; delete from public.paid where user_id = '{}'; commit",
        ann.id
    );
    writer.batch_execute(&sql).await.unwrap();
    let (out, rest) = viewers.split_first_mut().unwrap();
    assert_eq!(out.expect("unsubscribed").await["reason"], "forbidden");
    assert_eq!(out.closed().await, 4503);
    stage.say_to("still there", &mut rest[0]).await;

    // All viewers of one session, then all viewers.
    db.run("alter table public.paid disable trigger on_unpaid")
        .await;
    stage.unpay(ben).await;
    db.run(&format!("select usher.access_changed('{session}', null)"))
        .await;
    assert_eq!(rest[0].expect("unsubscribed").await["reason"], "forbidden");
    for user in [ann, ben] {
        db.run(&format!("insert into public.paid values ('{}')", user.id))
            .await;
    }
    let mut last = Client::connect(gateway.at, ben).await;
    last.subscribe(*session).await;
    stage.unpay(ben).await;
    db.run("select usher.access_changed()").await;
    assert_eq!(last.expect("unsubscribed").await["reason"], "forbidden");
}

#[tokio::test]
async fn a_resume_token_hides_nothing_from_the_check() {
    let stage = Stage::new(Duration::from_secs(5)).await;
    let Stage {
        gateway,
        session,
        ann,
        ben,
        ..
    } = &stage;
    // The window is kept up by another viewer, so the token is enough.
    let mut keeper = Client::connect(gateway.at, ben).await;
    keeper.subscribe(*session).await;
    let mut viewer = Client::connect(gateway.at, ann).await;
    viewer.subscribe(*session).await;
    stage.unpay(ann).await;
    let from_memory = "usher_subscription_starts_total{kind=\"recovered_from_memory\"}";
    let before = metric(gateway.at, from_memory).await;
    // The client reconnects repeatedly with its old resume token, and the gateway still notices the lost access.
    let position = viewer.position(*session);
    let mut rounds = 0;
    let refusal = loop {
        let mut back = Client::connect(gateway.at, ann).await;
        let frame = json!({"type": "subscribe", "session": session, "resume": position});
        let answer = back.ask(frame).await;
        if answer["type"] == "error" {
            break answer;
        }
        rounds += 1;
        // The pace of the reconnects.
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    refused(refusal, "forbidden");
    assert_eq!(
        metric(gateway.at, from_memory).await - before,
        f64::from(rounds)
    );
}

#[tokio::test]
async fn an_outage_during_a_check_keeps_those_who_watch() {
    let stage = Stage::new(Duration::from_secs(5)).await;
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = &stage;
    let mut viewer = Client::connect(gateway.at, ann).await;
    viewer.subscribe(*session).await;
    // The access query fails for all users, then for one.
    for broken in [
        "alter function usher.admit_many(jsonb) rename to moved_away",
        "create function public.broken() returns boolean language plpgsql as $$
         begin raise exception 'broken'; end $$;
         create policy broken on public.movie_sessions as restrictive for select to authenticated
         using (public.broken())",
    ] {
        let failures = metric(gateway.at, "usher_query_failures_total").await;
        let asked = metric(gateway.at, "usher_access_check_seconds_count").await;
        db.run(broken).await;
        until("a check has failed", async || {
            metric(gateway.at, "usher_query_failures_total").await > failures
                || metric(gateway.at, "usher_access_check_seconds_count").await > asked + 1.0
        })
        .await;
        viewer.has_nothing(&["unsubscribed", "access"]).await;
        db.run(
            "drop policy if exists broken on public.movie_sessions;
             do $$ begin
               alter function usher.moved_away(jsonb) rename to admit_many;
             exception when undefined_function then null; end $$",
        )
        .await;
    }
    // And once it can be asked, it is.
    stage.unpay(ann).await;
    assert_eq!(viewer.expect("unsubscribed").await["reason"], "forbidden");
    let mut stage = stage;
    stage.gateway.take_errors();
}

#[tokio::test]
async fn a_flood_of_changes_is_folded() {
    let stage = Stage::new(NEVER).await;
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = &stage;
    let mut viewer = Client::connect(gateway.at, ann).await;
    viewer.subscribe(*session).await;
    let checks = async || metric(gateway.at, "usher_access_checks_total").await;
    let before = checks().await;
    // Each has its own transaction, so Postgres does not merge the notifications.
    for _ in 0..300 {
        db.run(&format!(
            "select usher.access_changed('{session}', '{}')",
            ann.id
        ))
        .await;
    }
    stage.unpay(ann).await;
    db.run(&format!(
        "select usher.access_changed('{session}', '{}')",
        ann.id
    ))
    .await;
    assert_eq!(viewer.expect("unsubscribed").await["reason"], "forbidden");
    let checks = checks().await - before;
    assert!(checks < 100.0, "{checks} checks for 301 changes");
}

#[tokio::test]
async fn only_those_who_may_change_something_may_tell_of_a_change() {
    let db = Database::create().await;
    let client = connect(&db.url).await;
    for (role, is_allowed) in [
        ("anon", false),
        ("usher_gateway", false),
        ("authenticated", true),
        ("service_role", true),
    ] {
        client
            .batch_execute(&format!("set role {role}"))
            .await
            .unwrap();
        let told = client.batch_execute("select usher.access_changed()").await;
        assert_eq!(told.is_ok(), is_allowed, "{role}: {told:?}");
        client.batch_execute("reset role").await.unwrap();
    }
}

#[tokio::test]
async fn a_vote_by_sql_shows_at_the_next_check() {
    let stage = Stage::new(Duration::from_secs(5)).await;
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = &stage;
    let movies = db.movies(2).await;
    let voting = db.voting(*session, &movies, "").await;
    let mut viewer = Client::connect(gateway.at, ann).await;
    viewer.subscribe(*session).await;
    db.run(&format!(
        "insert into public.votes (voting_session_id, user_id, movie_id) values ('{voting}', '{}', '{}')",
        ann.id, movies[1]
    ))
    .await;
    let mine = viewer.expect("mine").await;
    assert_eq!(
        (&mine["voting"], &mine["movie"]),
        (&json!(voting), &json!(movies[1]))
    );
    db.run("delete from public.votes").await;
    assert_eq!(viewer.expect("mine").await["movie"], Value::Null);
}

/// A session that only paying users can see.
struct Stage {
    db: Database,
    gateway: Gateway,
    session: Uuid,
    ann: User,
    ben: User,
}

impl Stage {
    async fn new(interval: Duration) -> Self {
        let db = Database::create().await;
        let sam = db.user("sam").await;
        let (ann, ben) = (db.user("ann").await, db.user("ben").await);
        let session = db.session(&sam).await;
        db.run(&format!(
            "create table public.paid (user_id uuid primary key);
             grant select on public.paid to anon, authenticated;
             grant all on public.paid to service_role;
             insert into public.paid values ('{}'), ('{}'), ('{}');
             create policy paid_only on public.movie_sessions as restrictive for select to anon, authenticated
               using (exists (select 1 from public.paid p where p.user_id = auth.uid()))",
            sam.id, ann.id, ben.id
        ))
        .await;
        let gateway = Gateway::start(&db, |config| config.access_check = interval).await;
        Self {
            db,
            gateway,
            session,
            ann,
            ben,
        }
    }

    async fn unpay(&self, user: &User) {
        let sql = format!("delete from public.paid where user_id = '{}'", user.id);
        self.db.run(&sql).await;
    }

    async fn say_to(&self, text: &str, client: &mut Client) {
        self.db.say(self.session, &self.ben, text).await;
        client.has_the_whole_log(&self.db, self.session).await;
    }
}
