//! Proves that the gateway, the database and the pages apply the same rule for texts to every character.

use std::ops::RangeInclusive;

use serde_json::json;
use usher_core::protocol::text::{has_ink, is_line};

use crate::api::Caller;
use crate::client::{Client, refused};
use crate::database::{Database, connect};
use crate::stage::Stage;

#[tokio::test]
async fn gateway_and_database_agree_on_every_character() {
    let db = Database::create().await;
    // Alone it shows or not; behind a letter it breaks the line or not. U+0000 is in no text of Postgres.
    let sql = "select n, usher.has_ink(chr(n)), usher.is_line('a' || chr(n))
        from generate_series(1, 1114111) n where n not between 55296 and 57343";
    let rows = db.client.query(sql, &[]).await.unwrap();
    assert_eq!(rows.len(), 0x0010_ffff - 2_048);
    let mut differences = Vec::new();
    for row in rows {
        let number = u32::try_from(row.get::<_, i32>(0)).unwrap();
        let c = char::from_u32(number).unwrap();
        let ours = (has_ink(&c.to_string()), is_line(&format!("a{c}")));
        if ours != (row.get(1), row.get(2)) {
            differences.push(c.escape_unicode().to_string());
        }
    }
    assert!(differences.is_empty(), "{differences:?}");

    for text in [
        "",
        " ",
        "\u{200b}x",
        "x\u{200b}",
        "\n\n",
        "a\u{202e}",
        "\u{3000}\u{fe0f}",
    ] {
        let sql = "select usher.has_ink($1), usher.is_line($1)";
        let row = db.client.query_one(sql, &[&text]).await.unwrap();
        assert_eq!(
            (has_ink(text), is_line(text)),
            (row.get(0), row.get(1)),
            "{text:?}"
        );
    }
}

#[test]
fn gateway_and_pages_agree_on_every_character() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/web/text.js");
    let source = std::fs::read_to_string(path).unwrap();
    let (_, rest) = source.split_once("/[^").unwrap();
    let (class, _) = rest.split_once("]/u;").unwrap();
    let invisible = ranges(class);
    assert!(invisible.len() > 20, "{invisible:?}");
    for c in '\0'..=char::MAX {
        let is_invisible = invisible.iter().any(|range| range.contains(&c));
        assert_eq!(
            has_ink(&c.to_string()),
            !is_invisible,
            "{}",
            c.escape_unicode()
        );
    }
}

/// The ranges of a class in a regular expression of JavaScript that is written in escapes alone.
fn ranges(class: &str) -> Vec<RangeInclusive<char>> {
    let number = |text: &str| {
        let digits = text.trim_start_matches('{').trim_end_matches('}');
        char::from_u32(u32::from_str_radix(digits, 16).unwrap()).unwrap()
    };
    let mut ranges: Vec<RangeInclusive<char>> = Vec::new();
    let mut is_end = false;
    for escape in class.split("\\u").skip(1) {
        let (digits, is_start) = match escape.strip_suffix('-') {
            Some(digits) => (digits, true),
            None => (escape, false),
        };
        let c = number(digits);
        if is_end {
            let start = *ranges.pop().unwrap().start();
            ranges.push(start..=c);
        } else {
            ranges.push(c..=c);
        }
        is_end = is_start;
    }
    ranges
}

#[tokio::test]
async fn a_message_that_does_not_show_is_refused_alike_everywhere() {
    let Stage {
        db,
        gateway,
        session,
        ann,
        ..
    } = Stage::new().await;
    let mut client = Client::connect(gateway.at, &ann).await;
    client.subscribe(session).await;
    let caller = Caller::new(&gateway, &ann);

    for body in [
        "",
        " \n\t",
        "\u{200b}\u{2060}",
        "\u{a0}\u{3000}",
        "\u{3164}\u{fe0f}",
    ] {
        let frame = json!({"type": "send", "session": session, "body": body});
        refused(client.ask(frame).await, "bad_request");
        let path = format!("/v1/sessions/{session}/messages");
        let answer = caller.send("POST", &path, json!({"body": body})).await;
        answer.is_refusal(400, "bad_request");
        let sql =
            "insert into public.chat_messages (session_id, user_id, body) values ($1, $2, $3)";
        let error = db
            .client
            .execute(sql, &[&session, &ann.id, &body])
            .await
            .unwrap_err();
        assert_eq!(
            error.code().map(|code| code.code().to_owned()).as_deref(),
            Some("US007"),
            "{body:?}"
        );
    }
    // Texts that show go through, whatever else they hold.
    client.send(session, "\u{200b}a\n\u{202e}b").await;
    assert_eq!(db.head(session).await, 1);
}

/// On a fresh connection: a plan that a superuser made earlier may have inlined the function that the trigger calls,
/// and then Postgres does not check whether the role may call it.
#[tokio::test]
async fn a_user_changes_a_display_name_on_a_fresh_connection() {
    let db = Database::create().await;
    let ann = db.user("ann").await;
    let client = connect(&db.url).await;
    client
        .batch_execute(&format!(
            "set role authenticated;
             set request.jwt.claims = '{{\"sub\": \"{ann}\", \"role\": \"authenticated\"}}';
             update public.profiles set display_name = 'Ann B' where id = '{ann}'",
            ann = ann.id
        ))
        .await
        .unwrap();
    let name = "select display_name from public.profiles where id = $1";
    let row = db.client.query_one(name, &[&ann.id]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "Ann B");
}
