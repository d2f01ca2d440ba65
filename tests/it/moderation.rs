//! Proves moderation over HTTP: a moderator's action reaches every viewer, and row level security decides who
//! moderates.

use serde_json::json;
use uuid::Uuid;

use crate::api::{Caller, data};
use crate::client::Client;
use crate::database::Database;
use crate::gateway::Gateway;

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one poll, from its opening to its end"
)]
async fn a_voting_is_opened_shown_and_closed_by_its_streamer_alone() {
    let db = Database::create().await;
    let (streamer, viewer) = (db.user("sam").await, db.user("vic").await);
    let session = db.session(&streamer).await;
    let movies = db.movies(3).await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let (sam, vic) = (
        Caller::new(&gateway, &streamer),
        Caller::new(&gateway, &viewer),
    );
    let mut client = Client::connect(gateway.at, &viewer).await;
    client.subscribe(session).await;

    let path = format!("/v1/sessions/{session}/votings");
    let ballot = [movies[2], movies[0]];
    let voting = json!({
        "question": "What <b>next</b>?", "movies": ballot, "closes_in_seconds": 600,
        "results_visibility": "after_close", "allow_change": false,
    });
    vic.send("POST", &path, voting.clone())
        .await
        .is_refusal(403, "forbidden");
    assert_eq!(
        db.one::<i64>("select count(*) from public.voting_sessions")
            .await,
        0
    );

    let opened = data(&sam.send("POST", &path, voting.clone()).await, 201);
    assert!(opened["closes_at"].is_string(), "{opened}");
    let event = client.event_of(session, 0, "voting.opened").await;
    let row = &event["data"];
    assert_eq!(row["id"], opened["voting"]);
    assert_eq!(row["question"], "What <b>next</b>?");
    let order: Vec<_> = row["options"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| &o["movie"])
        .collect();
    assert_eq!(order, [&json!(ballot[0]), &json!(ballot[1])]);
    assert_eq!(
        (&row["allow_change"], &row["results_visibility"]),
        (&json!(false), &json!("after_close"))
    );
    // One at a time, said by name, and without a draft left behind.
    sam.send("POST", &path, voting)
        .await
        .is_refusal(409, "conflict");
    assert_eq!(
        db.one::<i64>("select count(*) from public.voting_sessions")
            .await,
        1
    );

    let one = format!("/v1/votings/{}", opened["voting"].as_str().unwrap());
    vic.send("PATCH", &one, json!({"state": "closed"}))
        .await
        .is_refusal(403, "forbidden");
    let shown = data(
        &sam.send("PATCH", &one, json!({"results_visibility": "live"}))
            .await,
        200,
    );
    assert_eq!(
        (&shown["state"], &shown["results_visibility"]),
        (&json!("open"), &json!("live"))
    );
    client
        .vote(
            opened["voting"].as_str().unwrap().parse().unwrap(),
            Some(ballot[0]),
        )
        .await;
    let closed = data(
        &sam.send("PATCH", &one, json!({"state": "closed"})).await,
        200,
    );
    assert_eq!(closed["state"], "closed");
    let event = client
        .event_of(session, event["seq"].as_u64().unwrap(), "voting.closed")
        .await;
    assert_eq!(event["data"]["results"]["total"], 1);
    sam.send("PATCH", &one, json!({"state": "closed"}))
        .await
        .is_refusal(409, "voting_closed");
}

#[tokio::test]
async fn a_ballot_must_be_of_the_catalogue_and_a_session_alive() {
    let db = Database::create().await;
    let streamer = db.user("sam").await;
    let session = db.session(&streamer).await;
    let movies = db.movies(2).await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let sam = Caller::new(&gateway, &streamer);
    let path = format!("/v1/sessions/{session}/votings");

    let strange = json!({"question": "Which?", "movies": [movies[0], Uuid::new_v4()]});
    let answer = sam.send("POST", &path, strange).await;
    answer.is_refusal(400, "bad_request");
    assert!(answer.body.contains("movies must be"), "{answer:?}");
    let same = json!({"question": "Which?", "movies": [movies[0], movies[0]]});
    sam.send("POST", &path, same)
        .await
        .is_refusal(400, "bad_request");
    assert_eq!(
        db.one::<i64>("select count(*) from public.voting_sessions")
            .await,
        0
    );

    db.set_session(session, "status = 'ended'").await;
    let good = json!({"question": "Which?", "movies": movies});
    sam.send("POST", &path, good.clone())
        .await
        .is_refusal(409, "session_ended");
    let nowhere = format!("/v1/sessions/{}/votings", Uuid::new_v4());
    sam.send("POST", &nowhere, good)
        .await
        .is_refusal(404, "not_found");
}

#[tokio::test]
async fn the_catalogue_is_searched_by_title() {
    let db = Database::create().await;
    db.run("insert into public.movies (title, release_year) values ('Neon Orchard', 2023), ('100% Wolf', null)")
        .await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let anybody = Caller::anonymous(&gateway);
    let titles = async |query: &str| {
        let found = data(&anybody.get(&format!("/v1/movies{query}")).await, 200);
        let found = found["movies"].as_array().unwrap().clone();
        found
            .iter()
            .map(|movie| movie["title"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(titles("").await, ["100% Wolf", "Neon Orchard"]);
    assert_eq!(titles("?search=ORCH").await, ["Neon Orchard"]);
    // Nothing in it is a pattern.
    assert_eq!(titles("?search=0%25").await, ["100% Wolf"]);
    assert_eq!(titles("?search=_").await, Vec::<String>::new());
    assert_eq!(titles("?limit=1").await, ["100% Wolf"]);
    let long = "x".repeat(101);
    anybody
        .get(&format!("/v1/movies?search={long}"))
        .await
        .is_refusal(400, "bad_request");
    anybody
        .get("/v1/movies?search=%00")
        .await
        .is_refusal(400, "bad_request");
    anybody
        .get("/v1/movies?limit=101")
        .await
        .is_refusal(400, "bad_request");
}

#[tokio::test]
async fn slow_mode_and_the_chat_are_set_by_who_moderates() {
    let db = Database::create().await;
    let (streamer, viewer) = (db.user("sam").await, db.user("vic").await);
    let session = db.session(&streamer).await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let (sam, vic) = (
        Caller::new(&gateway, &streamer),
        Caller::new(&gateway, &viewer),
    );
    let mut client = Client::connect(gateway.at, &viewer).await;
    client.subscribe(session).await;
    let path = format!("/v1/sessions/{session}");

    vic.send("PATCH", &path, json!({"chat_enabled": false}))
        .await
        .is_refusal(403, "forbidden");
    let now = data(
        &sam.send("PATCH", &path, json!({"slow_mode_seconds": 30}))
            .await,
        200,
    );
    assert_eq!(
        now,
        json!({"session": session, "slow_mode_seconds": 30, "chat_enabled": true})
    );
    let event = client.event_of(session, 0, "session.updated").await;
    assert_eq!(event["data"]["slow_mode_seconds"], 30);
    let now = data(
        &sam.send("PATCH", &path, json!({"chat_enabled": false}))
            .await,
        200,
    );
    assert_eq!(
        now,
        json!({"session": session, "slow_mode_seconds": 30, "chat_enabled": false})
    );
    sam.send("PATCH", &path, json!({}))
        .await
        .is_refusal(400, "bad_request");

    db.set_session(session, "visibility = 'private'").await;
    vic.send("PATCH", &path, json!({"chat_enabled": true}))
        .await
        .is_refusal(404, "not_found");
    Caller::anonymous(&gateway)
        .send("PATCH", &path, json!({"chat_enabled": true}))
        .await
        .is_refusal(401, "unauthorized");
}

#[tokio::test]
async fn a_message_is_deleted_by_its_author_or_a_moderator() {
    let db = Database::create().await;
    let (streamer, viewer, other) = (
        db.user("sam").await,
        db.user("vic").await,
        db.user("olga").await,
    );
    let session = db.session(&streamer).await;
    let (first, second) = (
        db.say(session, &viewer, "first").await,
        db.say(session, &viewer, "second").await,
    );
    let gateway = Gateway::start(&db, |_| {}).await;
    let path = |message: Uuid| format!("/v1/messages/{message}");
    let delete = async |user, message| {
        let caller = Caller::new(&gateway, user);
        caller.send("DELETE", &path(message), json!({})).await
    };
    let mut client = Client::connect(gateway.at, &other).await;
    client.subscribe(session).await;

    delete(&other, first).await.is_refusal(403, "forbidden");
    assert_eq!(
        data(&delete(&streamer, first).await, 200),
        json!({"message": first})
    );
    let event = client.event_of(session, 0, "chat.deleted").await;
    assert_eq!(
        (&event["data"]["id"], &event["data"]["deleted_by"]),
        (&json!(first), &json!(streamer.id))
    );
    assert_eq!(
        data(&delete(&viewer, second).await, 200),
        json!({"message": second})
    );
    // Users who cannot see the deleted message get `not_found`, the streamer gets `conflict`.
    delete(&other, second).await.is_refusal(404, "not_found");
    delete(&streamer, second).await.is_refusal(409, "conflict");
}

#[tokio::test]
async fn a_time_out_and_a_ban_hold_and_are_lifted() {
    let db = Database::create().await;
    let (streamer, moderator, viewer) = (
        db.user("sam").await,
        db.user("max").await,
        db.user("vic").await,
    );
    let session = db.session(&streamer).await;
    db.run(&format!(
        "insert into public.session_members (session_id, user_id, role) values ('{session}', '{}', 'moderator')",
        moderator.id
    ))
    .await;
    let gateway = Gateway::start(&db, |_| {}).await;
    let (max, vic) = (
        Caller::new(&gateway, &moderator),
        Caller::new(&gateway, &viewer),
    );
    let path = |user: Uuid| format!("/v1/sessions/{session}/bans/{user}");
    let mut client = Client::connect(gateway.at, &viewer).await;
    client.subscribe(session).await;

    let time_out = json!({"seconds": 600, "reason": "spoilers"});
    vic.send("PUT", &path(moderator.id), time_out.clone())
        .await
        .is_refusal(403, "forbidden");
    max.send("PUT", &path(streamer.id), time_out.clone())
        .await
        .is_refusal(403, "forbidden");
    max.send("PUT", &path(moderator.id), time_out.clone())
        .await
        .is_refusal(403, "forbidden");
    max.send("PUT", &path(Uuid::new_v4()), time_out.clone())
        .await
        .is_refusal(404, "not_found");
    let banned = data(&max.send("PUT", &path(viewer.id), time_out).await, 200);
    assert!(banned["until"].is_string(), "{banned}");
    assert_eq!(client.expect("access").await["can"]["send"], false);

    let list = format!("/v1/sessions/{session}/bans");
    let bans = data(&max.get(&list).await, 200);
    let ban = &bans["bans"][0];
    assert_eq!(
        (&ban["user"], &ban["username"], &ban["reason"]),
        (&json!(viewer.id), &json!("vic"), &json!("spoilers"))
    );
    vic.send("DELETE", &path(viewer.id), json!({}))
        .await
        .is_refusal(403, "forbidden");
    let free = json!({"user": viewer.id, "until": null});
    for _ in 0..2 {
        assert_eq!(
            data(&max.send("DELETE", &path(viewer.id), json!({})).await, 200),
            free
        );
    }
    assert_eq!(client.expect("access").await["can"]["send"], true);

    let for_good = data(
        &max.send("PUT", &path(viewer.id), json!({"seconds": null}))
            .await,
        200,
    );
    assert_eq!(for_good["until"], json!(null));
    assert_eq!(client.expect("unsubscribed").await["reason"], "banned");
    max.send("PUT", &path(viewer.id), json!({}))
        .await
        .is_refusal(400, "bad_request");
    max.get("/v1/sessions/7/bans")
        .await
        .is_refusal(400, "bad_request");
    max.send("PUT", &format!("{list}/7"), json!({"seconds": 5}))
        .await
        .is_refusal(400, "bad_request");
}
