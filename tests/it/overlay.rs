//! Proves that an overlay token reads one session, cannot write, and works until it is revoked.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::error::SqlState;
use usher_core::auth::mint::NewClaims;
use usher_core::protocol::id::{SessionId, UserId};
use uuid::Uuid;

use crate::client::{Client, refused};
use crate::database::{self, Database, JWT_SECRET, User};
use crate::gateway::Gateway;

/// What the protocol gives a change of access, and the machine that runs the tests on top.
const SOON: Duration = Duration::from_secs(3);

#[tokio::test]
async fn an_overlay_watches_its_private_session_and_nothing_else() {
    let Stage {
        db,
        gateway,
        streamer,
        session,
        overlay,
    } = stage().await;
    let movies = db.movies(1).await;
    let voting = db.voting(session, &movies, "").await;
    let elsewhere = db.session(&streamer).await;

    let mut client = Client::connect(gateway.at, &overlay).await;
    let subscribed = client.subscribe(session).await;
    let nothing = json!({"send": false, "vote": false, "moderate": false});
    assert_eq!(subscribed["can"], nothing);
    db.say(session, &streamer, "for members and the overlay")
        .await;
    client.has_the_whole_log(&db, session).await;

    refused(client.try_send(session, "hello").await, "forbidden");
    refused(client.try_vote(voting, Some(movies[0])).await, "forbidden");
    // Public as it is, and open to any other anonymous viewer.
    refused(client.try_subscribe(elsewhere).await, "forbidden");
    Client::anonymous(gateway.at)
        .await
        .subscribe(elsewhere)
        .await;
}

#[tokio::test]
async fn a_revoked_overlay_goes_dark_at_once_and_does_not_come_back() {
    let Stage {
        db,
        gateway,
        session,
        overlay,
        ..
    } = stage().await;
    let mut client = Client::connect(gateway.at, &overlay).await;
    client.subscribe(session).await;
    let position = client.position(session);

    db.run("update public.overlay_tokens set revoked_at = now()")
        .await;
    let over = client.expect("unsubscribed").await;
    assert_eq!(over["reason"], "forbidden");
    assert_eq!(client.closed_within(SOON).await, 4503);

    let mut again = Client::connect(gateway.at, &overlay).await;
    let answer = try_resume(&mut again, session, position).await;
    refused(answer, "forbidden");
}

#[tokio::test]
async fn the_resume_token_of_an_overlay_opens_nothing_for_anybody_else() {
    let Stage {
        db,
        gateway,
        streamer,
        session,
        overlay,
    } = stage().await;
    let mut client = Client::connect(gateway.at, &overlay).await;
    client.subscribe(session).await;
    let position = client.position(session);
    assert!(position["token"].is_string(), "{position}");

    let mut stranger = Client::anonymous(gateway.at).await;
    let answer = try_resume(&mut stranger, session, position.clone()).await;
    refused(answer, "not_found");
    let other = issue(&db, session, &streamer, 1).await.unwrap();
    db.run(&format!(
        "update public.overlay_tokens set revoked_at = now() where id = '{}'",
        other.id
    ))
    .await;
    let mut other = Client::connect(gateway.at, &other).await;
    refused(try_resume(&mut other, session, position).await, "forbidden");
}

#[tokio::test]
async fn an_overlay_of_a_deleted_session_goes_dark() {
    let Stage {
        db,
        gateway,
        session,
        overlay,
        ..
    } = stage().await;
    let mut client = Client::connect(gateway.at, &overlay).await;
    client.subscribe(session).await;
    db.run(&format!(
        "delete from public.movie_sessions where id = '{session}'"
    ))
    .await;
    client.expect("unsubscribed").await;
    assert_eq!(client.closed_within(SOON).await, 4503);
}

#[tokio::test]
async fn the_streamer_alone_issues_and_no_more_than_a_session_needs() {
    let db = Database::create().await;
    let streamer = db.user("sam").await;
    let stranger = db.user("eve").await;
    let session = db.session(&streamer).await;

    assert_eq!(
        issue(&db, session, &stranger, 1).await.unwrap_err(),
        "US004"
    );
    let nowhere = Uuid::new_v4();
    assert_eq!(
        issue(&db, nowhere, &streamer, 1).await.unwrap_err(),
        "US004"
    );
    for days in [0, 401] {
        assert_eq!(
            issue(&db, session, &streamer, days).await.unwrap_err(),
            "US007"
        );
    }
    for _ in 0..20 {
        issue(&db, session, &streamer, 400).await.unwrap();
    }
    assert_eq!(
        issue(&db, session, &streamer, 1).await.unwrap_err(),
        "US009"
    );
    db.run(
        "update public.overlay_tokens set revoked_at = now()
         where id = (select id from public.overlay_tokens limit 1)",
    )
    .await;
    issue(&db, session, &streamer, 1).await.unwrap();
}

// ---- the stage ----

struct Stage {
    db: Database,
    gateway: Gateway,
    streamer: User,
    /// A private session.
    session: Uuid,
    overlay: User,
}

async fn stage() -> Stage {
    let db = Database::create().await;
    let gateway = Gateway::start(&db, |_| ()).await;
    let streamer = db.user("sam").await;
    let session = db.session(&streamer).await;
    db.set_session(session, "visibility = 'private'").await;
    let overlay = issue(&db, session, &streamer, 30).await.unwrap();
    Stage {
        db,
        gateway,
        streamer,
        session,
        overlay,
    }
}

/// Subscribes from a position, maybe another's; gives the answer, whatever it is.
async fn try_resume(client: &mut Client, session: Uuid, position: Value) -> Value {
    client
        .ask(json!({"type": "subscribe", "session": session, "resume": position}))
        .await
}

/// Issues and signs a token as the Edge Function does, or says the SQLSTATE.
async fn issue(db: &Database, session: Uuid, issuer: &User, days: i32) -> Result<User, String> {
    let client = database::connect(&db.url).await;
    client.batch_execute("set role service_role").await.unwrap();
    let sql = "select id from public.issue_overlay_token($1, $2, 'OBS', $3)";
    match client.query_one(sql, &[&session, &issuer.id, &days]).await {
        Ok(row) => {
            let id: Uuid = row.get(0);
            let claims = NewClaims::overlay(UserId(id), SessionId(session));
            Ok(User {
                id,
                name: "overlay".to_owned(),
                token: database::sign(JWT_SECRET, &claims, Duration::from_hours(1)),
            })
        }
        Err(error) => Err(error.code().map_or("?", SqlState::code).to_owned()),
    }
}
