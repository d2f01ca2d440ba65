//! Proves polls: the counts are exact, only permitted viewers see them, and updates arrive soon but not too often.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use usher_core::limits::DIRTY_VOTINGS_MAX;
use uuid::Uuid;

use crate::client::{Client, PATIENCE, refused, until, votes};
use crate::database::{self, Database, User};
use crate::gateway::Gateway;
use crate::http::metric;

#[tokio::test]
async fn tallies_equal_the_table_under_concurrent_voters() {
    const VOTERS: usize = 32;
    let Stage {
        db,
        gateway,
        session,
        ..
    } = stage().await;
    let movies = db.movies(4).await;
    let voting = db.voting(session, &movies, "").await;
    let mut viewer = Client::anonymous(gateway.at).await;
    viewer.subscribe(session).await;

    let mut voters = JoinSet::new();
    for n in 0..VOTERS {
        let user = db.user(&format!("voter_{n}")).await;
        let (at, url, movies) = (gateway.at, db.url.clone(), movies.clone());
        // Half of them by the gateway, half by SQL, each changing the mind; every fourth withdraws in the end.
        let last = (n % 4 != 3).then(|| movies[(n + 5) % 4]);
        let choices = (0..6).map(move |round| (n + round) % 4);
        voters.spawn(async move {
            if n % 2 == 0 {
                let mut client = Client::connect(at, &user).await;
                for choice in choices {
                    client.vote(voting, Some(movies[choice])).await;
                }
                client.vote(voting, last).await;
            } else {
                let client = database::connect(&url).await;
                for choice in choices {
                    client
                        .execute(VOTE, &[&voting, &user.id, &movies[choice]])
                        .await
                        .unwrap();
                }
                if last.is_none() {
                    let withdraw =
                        "delete from public.votes where voting_session_id = $1 and user_id = $2";
                    client
                        .execute(withdraw, &[&voting, &user.id])
                        .await
                        .unwrap();
                }
            }
        });
    }
    while let Some(voter) = voters.join_next().await {
        voter.unwrap();
    }

    let expected = db.count_votes(voting).await;
    assert_eq!(expected.iter().map(|(_, votes)| votes).sum::<u64>(), 24);
    viewer
        .expect_where("tally", |tally| votes(tally) == expected)
        .await;
    // No later tally contradicts it; a new subscriber receives the same counts.
    let told = viewer.subscribe(session).await["votings"][0].clone();
    assert_eq!(votes(&told), expected);
    db.set_voting(voting, "state = 'closed'").await;
    let closed = viewer
        .expect_where("tally", |tally| tally["status"] == "closed")
        .await;
    assert_eq!(votes(&closed), expected);
    assert!(closed["version"].as_u64() > told["version"].as_u64());
}

#[tokio::test]
async fn the_last_tally_comes_however_many_polls_changed_before_it() {
    let Stage {
        db,
        gateway,
        session,
        sam,
    } = stage().await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    let mut viewer = Client::anonymous(gateway.at).await;
    viewer.subscribe(session).await;
    let channel = db.channel("votes").await;

    // More polls than the gateway caches, and after them the one with a viewer.
    let polls = DIRTY_VOTINGS_MAX + 5_000;
    db.run(&format!(
        "begin;
         select count(pg_notify('{channel}', gen_random_uuid()::text)) from generate_series(1, {polls});
         insert into public.votes (voting_session_id, user_id, movie_id)
         values ('{voting}', '{}', '{}');
         select usher.settle()",
        sam.id, movies[1]
    ))
    .await;
    // No counts can be read until all of that was heard.
    let locker = database::connect(&db.url).await;
    let lock = async {
        let lock = "begin; lock table usher.vote_tallies in access exclusive mode";
        locker.batch_execute(lock).await.unwrap();
    };
    let commit = async {
        db.until(
            "exists (select from pg_locks where relation = 'usher.vote_tallies'::regclass and not granted)",
        )
        .await;
        db.run("commit").await;
    };
    tokio::join!(lock, commit);
    until("a tally is postponed", async || {
        metric(gateway.at, "usher_tallies_postponed_total").await > 0.0
    })
    .await;
    locker.batch_execute("rollback").await.unwrap();

    // The gateway reads at most so many polls in a query, and asks five times a second: this takes some twenty seconds.
    let deadline = Instant::now() + 4 * PATIENCE;
    let expected = vec![(movies[1], 1)];
    loop {
        let frame = viewer.read_until(deadline).await.unwrap();
        if frame["type"] == "tally" && votes(&frame) == expected {
            break;
        }
    }
}

#[tokio::test]
async fn hidden_counts_are_for_the_streamer_and_moderators_until_the_close() {
    let Stage {
        db,
        gateway,
        session,
        sam,
    } = stage().await;
    let (ann, max) = (db.user("ann").await, db.user("max").await);
    db.run(&format!(
        "insert into public.session_members (session_id, user_id, role) values ('{session}', '{}', 'moderator')",
        max.id
    ))
    .await;
    let movies = db.movies(2).await;
    let voting = db
        .voting(session, &movies, "results_visibility = 'after_close'")
        .await;
    let mut insiders = [
        Client::connect(gateway.at, &sam).await,
        Client::connect(gateway.at, &max).await,
    ];
    let mut outsiders = [
        Client::connect(gateway.at, &ann).await,
        Client::anonymous(gateway.at).await,
    ];
    for client in insiders.iter_mut().chain(&mut outsiders) {
        client.subscribe(session).await;
    }

    outsiders[0].vote(voting, Some(movies[1])).await;
    for client in &mut insiders {
        let tally = client
            .expect_where("tally", |tally| tally["total"] == 1)
            .await;
        assert_eq!(votes(&tally), [(movies[1], 1)]);
        assert_eq!(
            votes(&client.subscribe(session).await["votings"][0]),
            [(movies[1], 1)]
        );
    }
    for client in &mut outsiders {
        let tally = client
            .expect_where("tally", |tally| tally["total"] == 1)
            .await;
        assert_eq!(tally["counts"], Value::Null);
        let subscribed = client.subscribe(session).await;
        let told = &subscribed["votings"][0];
        assert_eq!((&told["counts"], &told["total"]), (&Value::Null, &json!(1)));
        for event in &client.standing(session).events {
            assert!(event["data"]["results"].is_null(), "{event}");
        }
    }

    db.set_voting(voting, "state = 'closed'").await;
    for client in insiders.iter_mut().chain(&mut outsiders) {
        let tally = client
            .expect_where("tally", |tally| tally["status"] == "closed")
            .await;
        assert_eq!(votes(&tally), [(movies[1], 1)]);
    }
}

#[tokio::test]
async fn a_new_moderator_sees_hidden_counts() {
    let Stage {
        db,
        gateway,
        session,
        ..
    } = stage().await;
    let (ann, ben) = (db.user("ann").await, db.user("ben").await);
    let movies = db.movies(2).await;
    let voting = db
        .voting(session, &movies, "results_visibility = 'after_close'")
        .await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;

    db.run(&format!(
        "update public.profiles set role = 'moderator' where id = '{}'",
        ann.id
    ))
    .await;
    let access = client.expect("access").await;
    assert_eq!(
        access["can"],
        json!({"send": true, "vote": true, "moderate": true})
    );
    cast(&db, voting, &ben, movies[0]).await;
    client
        .expect_where("tally", |tally| {
            tally["counts"].is_array() && tally["total"] == 1
        })
        .await;

    db.run(&format!(
        "update public.profiles set role = 'viewer' where id = '{}'",
        ann.id
    ))
    .await;
    assert_eq!(client.expect("access").await["can"]["moderate"], false);
    client.take("tally");
    cast(&db, voting, &ben, movies[1]).await;
    let tally = client.expect("tally").await;
    assert_eq!(tally["counts"], Value::Null);
}

#[tokio::test]
async fn the_close_brings_the_final_results() {
    let Stage {
        db,
        gateway,
        session,
        ..
    } = stage().await;
    let movies = db.movies(3).await;
    let voting = db.voting(session, &movies, "").await;
    let mut client = Client::anonymous(gateway.at).await;
    client.subscribe(session).await;
    for (n, movie) in [0, 2, 2].into_iter().enumerate() {
        let user = db.user(&format!("voter_{n}")).await;
        cast(&db, voting, &user, movies[movie]).await;
    }

    db.set_voting(voting, "state = 'closed'").await;

    let closed = client.event_of(session, 1, "voting.closed").await;
    let results = &closed["data"]["results"];
    assert_eq!(
        (&results["total"], votes(results)),
        (&json!(3), db.count_votes(voting).await)
    );
    assert_eq!(results["counts"].as_array().unwrap().len(), 3);
    let tally = client
        .expect_where("tally", |tally| tally["status"] == "closed")
        .await;
    assert_eq!(votes(&tally), votes(results));
}

#[tokio::test]
async fn a_voting_closes_by_itself_when_its_time_is_over() {
    let Stage {
        db,
        gateway,
        session,
        ..
    } = stage().await;
    let ann = db.user("ann").await;
    let movies = db.movies(2).await;
    let closes_at = "closes_at = clock_timestamp() + interval '700 milliseconds'";
    let voting = db.voting(session, &movies, closes_at).await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    client.vote(voting, Some(movies[0])).await;

    let closed = client.event_of(session, 1, "voting.closed").await;
    assert_eq!(votes(&closed["data"]["results"]), [(movies[0], 1)]);
    client
        .expect_where("tally", |tally| tally["status"] == "closed")
        .await;
    refused(
        client.try_vote(voting, Some(movies[1])).await,
        "voting_closed",
    );
}

#[tokio::test]
async fn tallies_come_at_most_so_often_and_the_last_always() {
    const HZ: u32 = 4;
    let db = Database::create().await;
    let sam = db.user("sam").await;
    let session = db.session(&sam).await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    let gateway = Gateway::start(&db, |config| config.tally_hz = HZ).await;
    let mut viewer = Client::anonymous(gateway.at).await;
    viewer.subscribe(session).await;
    let voter = db.user("voter").await;
    // What the opening itself is worth.
    cast(&db, voting, &voter, movies[0]).await;
    viewer
        .expect_where("tally", |tally| tally["total"] == 1)
        .await;

    let began = Instant::now();
    let mut votes_cast = 0;
    while began.elapsed() < Duration::from_secs(2) {
        cast(&db, voting, &voter, movies[votes_cast % 2]).await;
        votes_cast += 1;
    }
    let expected = db.count_votes(voting).await;
    let version: i64 = db
        .one(&format!("select sum(revision)::bigint from usher.vote_tallies where voting_session_id = '{voting}'"))
        .await;
    viewer
        .expect_where("tally", |tally| {
            tally["version"] == version && votes(tally) == expected
        })
        .await;

    // Passed over by the wait above, so counted where everything is kept.
    let told = viewer.received("tally");
    let elapsed = began.elapsed().as_secs_f64();
    let bound = elapsed * f64::from(HZ) + 3.0;
    assert!(
        (told as f64) <= bound,
        "{told} tallies in {elapsed:.1} s for {votes_cast} votes"
    );
    assert!(told >= 4, "{told} tallies in {elapsed:.1} s");
}

#[tokio::test]
async fn votes_that_may_not_be_are_refused_by_name() {
    let Stage {
        db,
        gateway,
        session,
        ..
    } = stage().await;
    let ann = db.user("ann").await;
    let movies = db.movies(3).await;
    let draft = db.draft(session, &movies[..2], "").await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;

    refused(
        client.try_vote(draft, Some(movies[0])).await,
        "voting_closed",
    );
    refused(client.try_vote(draft, None).await, "voting_closed");
    refused(
        client.try_vote(Uuid::new_v4(), Some(movies[0])).await,
        "not_found",
    );

    db.set_voting(draft, "state = 'open', allow_change = false")
        .await;
    let refusal = refused(client.try_vote(draft, Some(movies[2])).await, "bad_request");
    assert!(
        refusal["message"].as_str().unwrap().contains("movie"),
        "{refusal}"
    );
    client.vote(draft, Some(movies[0])).await;
    client.vote(draft, Some(movies[0])).await;
    refused(client.try_vote(draft, Some(movies[1])).await, "conflict");
    refused(client.try_vote(draft, None).await, "conflict");

    db.set_voting(draft, "state = 'closed'").await;
    refused(
        client.try_vote(draft, Some(movies[0])).await,
        "voting_closed",
    );
    refused(client.try_vote(draft, None).await, "voting_closed");
    assert_eq!(db.count_votes(draft).await, [(movies[0], 1)]);
}

#[tokio::test]
async fn a_voting_that_opens_is_an_event_and_its_counts_follow() {
    let Stage {
        db,
        gateway,
        session,
        ..
    } = stage().await;
    let ann = db.user("ann").await;
    let mut client = Client::connect(gateway.at, &ann).await;
    assert_eq!(client.subscribe(session).await["votings"], json!([]));
    let movies = db.movies(2).await;
    let draft = db.draft(session, &movies, "").await;
    assert_eq!(db.head(session).await, 0, "a draft causes no event");

    db.set_voting(draft, "state = 'open'").await;
    let opened = client.event(session, 1).await;
    assert_eq!(
        (&opened["type"], &opened["data"]["id"]),
        (&json!("voting.opened"), &json!(draft))
    );
    assert_eq!(opened["data"]["options"][0]["movie"], json!(movies[0]));
    client.vote(draft, Some(movies[0])).await;
    client
        .expect_where("tally", |tally| tally["total"] == 1)
        .await;
    db.set_voting(draft, "question = 'And now?'").await;
    let updated = client.event(session, 2).await;
    assert_eq!(
        (&updated["type"], &updated["data"]["question"]),
        (&json!("voting.updated"), &json!("And now?"))
    );
    client.has_the_whole_log(&db, session).await;
}

const VOTE: &str =
    "insert into public.votes (voting_session_id, user_id, movie_id) values ($1, $2, $3)
    on conflict (voting_session_id, user_id) do update set movie_id = excluded.movie_id";

/// Votes by SQL.
async fn cast(db: &Database, voting: Uuid, voter: &User, movie: Uuid) {
    let cast = db.client.execute(VOTE, &[&voting, &voter.id, &movie]).await;
    cast.unwrap();
}

struct Stage {
    db: Database,
    gateway: Gateway,
    session: Uuid,
    sam: User,
}

async fn stage() -> Stage {
    let db = Database::create().await;
    let sam = db.user("sam").await;
    let session = db.session(&sam).await;
    let gateway = Gateway::start(&db, |_| {}).await;
    Stage {
        db,
        gateway,
        session,
        sam,
    }
}
