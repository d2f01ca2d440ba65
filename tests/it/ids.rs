//! Proves that the gateway accepts every spelling of an id, and that a client can leave a session and rejoin
//! immediately.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::{Client, PATIENCE};
use crate::database::{self, Database, User};
use crate::gateway::Gateway;
use crate::http::call;

/// The forms of a uuid: Swift prints upper case.
fn forms(id: Uuid) -> [String; 4] {
    let upper = id.to_string().to_uppercase();
    [
        format!("{{{upper}}}"),
        format!("urn:uuid:{upper}"),
        upper.replace('-', ""),
        upper,
    ]
}

fn form_of(id: Uuid, count: usize) -> String {
    forms(id)[count].clone()
}

#[tokio::test]
async fn every_form_of_an_id_names_the_same_in_frames_and_the_answer_has_lower_case() {
    let (db, gateway, session, ann) = stage().await;
    let question = db.say(session, &ann, "who is there?").await;
    let lower = session.to_string();
    for (count, form) in forms(session).into_iter().enumerate() {
        let mut client = Client::connect(gateway.at, &ann).await;
        let subscribe = json!({"type": "subscribe", "session": form});
        let subscribed = client.ask(subscribe).await;
        client.check_kind(&subscribed, "subscribed");
        assert_eq!(subscribed["session"], lower, "{form}");
        let events = client.expect("events").await;
        assert_eq!(events["session"], lower, "{form}");

        // A nonce counts once in whatever form, and the event has it in lower case.
        let nonce = Uuid::new_v4();
        let mut answers = Vec::new();
        for nonce in [form_of(nonce, count), nonce.to_string()] {
            let send = json!({
                "type": "send", "session": form, "body": format!("message {count}"), "nonce": nonce,
                "reply_to": question.to_string().to_uppercase(),
            });
            answers.push(client.ask(send).await["message"].clone());
        }
        assert!(
            answers.iter().all(|message| *message == answers[0]),
            "{answers:?}"
        );
        let newest = db.log(session).await.pop().unwrap();
        assert_eq!(newest["data"]["nonce"], nonce.to_string());
        assert_eq!(newest["data"]["reply_to"], question.to_string());

        // A resume token is sealed for the session, not for a spelling of it.
        client.has_the_whole_log(&db, session).await;
        let resume = client.position(session);
        let mut client = client.reconnect(gateway.at).await;
        let resumed = json!({"type": "subscribe", "session": form, "resume": resume});
        let resumed = client.ask(resumed).await;
        assert_eq!(
            (&resumed["type"], &resumed["session"], &resumed["recovered"]),
            (&json!("subscribed"), &json!(lower), &json!(true))
        );
        let left = client
            .ask(json!({"type": "unsubscribe", "session": form}))
            .await;
        assert_eq!(
            (&left["type"], &left["session"]),
            (&json!("unsubscribed"), &json!(lower))
        );
    }
}

#[tokio::test]
async fn every_form_of_an_id_names_the_same_in_paths_and_headers() {
    let (db, gateway, session, ann) = stage().await;
    let movies = db.movies(2).await;
    let voting = db.voting(session, &movies, "allow_change = true").await;
    let lower = session.to_string();
    let bearer = format!("Bearer {}", ann.token);
    let ask = async |method: &str, path: &str, key: &str, body: Value| {
        let mut headers = vec![("Authorization", bearer.as_str())];
        if !key.is_empty() {
            headers.push(("Idempotency-Key", key));
        }
        let body = if body.is_null() {
            String::new()
        } else {
            headers.push(("Content-Type", "application/json"));
            body.to_string()
        };
        call(gateway.at, method, path, &headers, &body).await
    };
    let nonce = Uuid::new_v4();
    let mut posted = Vec::new();
    for (form, key) in forms(session).into_iter().zip(forms(nonce)) {
        // Braces are written so in a path.
        let form = form.replace('{', "%7B").replace('}', "%7D");
        let path = format!("/v1/sessions/{form}/messages");
        let answer = ask("POST", &path, &key, json!({"body": "hello"})).await;
        posted.push(answer.json()["data"]["message"].clone());
        let log = ask(
            "GET",
            &format!("/v1/sessions/{form}/events"),
            "",
            Value::Null,
        )
        .await;
        assert_eq!(log.status, 200, "{log:?}");
        let newest = &log.json()["data"]["events"][0]["data"];
        assert_eq!(newest["session_id"], lower);
    }
    assert!(
        posted
            .iter()
            .all(|message| message.is_string() && *message == posted[0]),
        "{posted:?}"
    );
    for form in forms(voting) {
        let form = form.replace('{', "%7B").replace('}', "%7D");
        let movie = movies[0].to_string().to_uppercase();
        let voted = ask(
            "PUT",
            &format!("/v1/votings/{form}/vote"),
            "",
            json!({"movie": movie}),
        )
        .await;
        assert_eq!(
            voted.json()["data"]["movie"],
            movies[0].to_string(),
            "{voted:?}"
        );
        let tally = ask("GET", &format!("/v1/votings/{form}/tally"), "", Value::Null).await;
        assert_eq!(
            tally.json()["data"]["voting"],
            voting.to_string(),
            "{tally:?}"
        );
    }
}

/// What a client relies on that leaves a session and enters it again: `events` frames are shared bytes and do not say of
/// which subscription they are, but after `unsubscribed` none of the first one follows.
#[tokio::test]
async fn no_event_arrives_between_unsubscribed_and_the_next_subscribed() {
    let (db, gateway, session, ann) = stage().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    let other = database::connect(&db.url).await;
    let talking = tokio::spawn(async move {
        for count in 0.. {
            database::say(&other, session, &ann, &format!("and on it goes: {count}")).await;
            // The pace of the load.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    client.event(session, 1).await;
    let of_session = |frame: &Value| frame["session"] == session.to_string();
    for round in 0..60_u64 {
        let (leaving, entering) = (1_000 + 2 * round, 1_001 + 2 * round);
        let history = round % 3 * 20;
        client
            .say(&json!({"type": "unsubscribe", "session": session, "id": leaving}))
            .await;
        client
            .say(&json!({"type": "subscribe", "session": session, "id": entering, "history": history}))
            .await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let frame = client
                .read_until(deadline)
                .await
                .expect("the socket stays open");
            if frame["id"] == leaving {
                client.check_kind(&frame, "unsubscribed");
                break;
            }
        }
        loop {
            let frame = client
                .read_until(deadline)
                .await
                .expect("the socket stays open");
            if frame["id"] == entering {
                client.check_kind(&frame, "subscribed");
                break;
            }
            assert!(
                !of_session(&frame),
                "after unsubscribed, before subscribed: {frame}"
            );
        }
        // The next round begins while events are on their way.
        while client
            .read_until(deadline)
            .await
            .expect("the socket stays open")["type"]
            != "events"
        {}
    }
    talking.abort();
    // Later events continue without a gap: the client checks every number.
    client.event(session, db.head(session).await).await;
}

async fn stage() -> (Database, Gateway, Uuid, User) {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let session = db.session(&ann).await;
    let gateway = Gateway::start(&db, |_| {}).await;
    (db, gateway, session, ann)
}
