//! Proves that a user's vote shows on all sockets of that user that follow the session, however the vote was made.

use serde_json::json;
use uuid::Uuid;

use crate::api::{Caller, data};
use crate::client::{Client, until};
use crate::database::{Database, User};
use crate::gateway::Gateway;
use crate::stream::Source;

#[tokio::test]
async fn a_vote_shows_in_every_tab_of_its_user_and_nowhere_else() {
    let Stage {
        db,
        gateway,
        ann,
        session,
        voting,
        movies,
    } = stage().await;
    let ben = db.user("ben").await;
    // Sockets are dealt to the two fan-out loops in turn.
    let mut tabs = Vec::new();
    for _ in 0..4 {
        let mut tab = Client::connect(gateway.at, &ann).await;
        tab.subscribe(session).await;
        tabs.push(tab);
    }
    let mut elsewhere = Client::connect(gateway.at, &ann).await;
    elsewhere.subscribe(db.session(&ann).await).await;
    let mut other = Client::connect(gateway.at, &ben).await;
    other.subscribe(session).await;
    let mut nobody = Client::anonymous(gateway.at).await;
    nobody.subscribe(session).await;

    for choice in [Some(movies[0]), Some(movies[1]), None] {
        tabs[0].vote(voting, choice).await;
        for tab in &mut tabs {
            let mine = tab.expect("mine").await;
            assert_eq!(
                mine,
                json!({"type": "mine", "session": session, "voting": voting, "movie": choice})
            );
        }
    }
    for client in [&mut elsewhere, &mut other, &mut nobody] {
        client.has_nothing(&["mine"]).await;
    }
    // A refused vote does not count.
    let refusal = tabs[0].try_vote(voting, Some(Uuid::new_v4())).await;
    assert_eq!(refusal["code"], "bad_request");
    tabs[1].has_nothing(&["mine"]).await;
}

#[tokio::test]
async fn a_vote_over_http_shows_on_the_sockets_and_streams_of_its_user() {
    let Stage {
        db: _db,
        gateway,
        ann,
        session,
        voting,
        movies,
    } = stage().await;
    let mut tab = Client::connect(gateway.at, &ann).await;
    tab.subscribe(session).await;
    let path = format!("/v1/sessions/{session}/stream");
    let mut stream = Source::open(gateway.at, &path, Some(&ann), None).await;

    let caller = Caller::new(&gateway, &ann);
    let path = format!("/v1/votings/{voting}/vote");
    let vote = caller.send("PUT", &path, json!({"movie": movies[1]})).await;
    data(&vote, 200);
    let streamed = loop {
        let frame = stream.frame().await.unwrap();
        if frame["type"] == "mine" {
            break frame;
        }
    };
    for mine in [tab.expect("mine").await, streamed] {
        assert_eq!(
            (&mine["voting"], &mine["movie"]),
            (&json!(voting), &json!(movies[1]))
        );
    }
}

#[tokio::test]
async fn a_later_vote_is_never_overwritten_by_an_earlier_one() {
    const VOTES: usize = 40;
    let Stage {
        db,
        gateway,
        ann,
        session,
        voting,
        movies,
    } = stage().await;
    let (mut tabs, mut shown) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut tab = Client::connect(gateway.at, &ann).await;
        let subscribed = tab.subscribe(session).await;
        shown.push(subscribed["votings"][0]["mine"].clone());
        tabs.push(tab);
    }
    // Two tabs vote concurrently and without a pause while other tabs connect.
    for round in 0..VOTES / 2 {
        for tab in 0..2 {
            let movie = movies[(round + tab) % 2];
            let vote = json!({"type": "vote", "id": format!("v{round}"), "voting": voting, "movie": movie});
            tabs[tab].say(&vote).await;
        }
        if round % 4 == 0 {
            let mut late = Client::connect(gateway.at, &ann).await;
            let subscribed = late.subscribe(session).await;
            shown.push(subscribed["votings"][0]["mine"].clone());
            tabs.push(late);
        }
    }
    for tab in &mut tabs[..2] {
        for _ in 0..VOTES / 2 {
            tab.expect("ack").await;
        }
    }
    let stored = db.count_votes(voting).await;
    let [(stored, 1)] = stored[..] else {
        panic!("one vote, not {stored:?}");
    };
    // A tab shows the last vote that it received.
    for (tab, shown) in tabs.iter_mut().zip(&mut shown) {
        until("the tab shows the last vote", async || {
            tab.has_nothing(&["error"]).await;
            if let Some(mine) = tab.take("mine").pop() {
                *shown = mine["movie"].clone();
            }
            *shown == json!(stored)
        })
        .await;
        tab.has_nothing(&["mine"]).await;
    }
}

#[tokio::test]
async fn a_vote_by_sql_shows_at_the_next_subscribed() {
    let Stage {
        db,
        gateway,
        ann,
        session,
        voting,
        movies,
    } = stage().await;
    let mut tab = Client::connect(gateway.at, &ann).await;
    tab.subscribe(session).await;
    tab.vote(voting, Some(movies[0])).await;
    db.run(&format!(
        "update public.votes set movie_id = '{}' where user_id = '{}'",
        movies[1], ann.id
    ))
    .await;
    let again = tab.subscribe(session).await;
    assert_eq!(again["votings"][0]["mine"], json!(movies[1]));
}

struct Stage {
    db: Database,
    gateway: Gateway,
    ann: User,
    session: Uuid,
    voting: Uuid,
    movies: Vec<Uuid>,
}

async fn stage() -> Stage {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "").await;
    let gateway = Gateway::start(&db, |_| {}).await;
    Stage {
        db,
        gateway,
        ann,
        session,
        voting,
        movies,
    }
}
