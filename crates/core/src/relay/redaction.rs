//! Compares an event in the ring with the log's copy, which may be redacted.
//!
//! The log removes the text of deleted messages, and the names and ids of deleted accounts. The ring may still hold the
//! event with them.

use serde_json::Value;

/// The id that the log writes in place of a deleted account: the nil uuid.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

/// Whether the log's event equals the stored one, apart from redacted fields: the text of a deleted message, and the
/// names and ids of deleted accounts.
pub(crate) fn is_same_or_redacted(held: &[u8], logged: &[u8]) -> bool {
    const PEOPLE: [&str; 4] = ["author", "deleted_by", "streamer_id", "user_id"];
    const OF_A_DELETION: [&str; 3] = ["body", "deleted_at", "deleted_by"];
    if held == logged {
        return true;
    }
    let parse = |json| serde_json::from_slice::<Value>(json).ok();
    let (Some(held), Some(logged)) = (parse(held), parse(logged)) else {
        return false;
    };
    let (Some(held_data), Some(logged_data)) =
        (held["data"].as_object(), logged["data"].as_object())
    else {
        return false;
    };
    let is_deleted = logged_data.get("body") == Some(&Value::Null);
    let is_kept = |(key, value): (&String, &Value)| {
        let Some(logged) = logged_data.get(key) else {
            return false;
        };
        let is_nobody = logged.is_null() || logged.as_str() == Some(NOBODY);
        value == logged
            || (PEOPLE.contains(&key.as_str()) && is_nobody)
            || (OF_A_DELETION.contains(&key.as_str()) && is_deleted)
    };
    ["seq", "type", "at"]
        .iter()
        .all(|key| held[key] == logged[key])
        && held_data.len() == logged_data.len()
        && held_data.iter().all(is_kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: &str = r#"{"seq":4,"type":"chat.created","at":"a","data":{"id":"m","user_id":"u","body":"hi","deleted_at":null,"deleted_by":null,"author":{"username":"ann"}}}"#;

    #[test]
    fn a_redaction_removes_text_and_people() {
        let deleted = HELD
            .replace(r#""hi""#, "null")
            .replace(r#""deleted_at":null"#, r#""deleted_at":"t""#);
        let erased = deleted
            .replace(r#""u""#, &format!(r#""{NOBODY}""#))
            .replace(r#"{"username":"ann"}"#, "null");
        for logged in [HELD, &deleted, &erased] {
            assert!(
                is_same_or_redacted(HELD.as_bytes(), logged.as_bytes()),
                "{logged}"
            );
        }
        let ban =
            r#"{"seq":4,"type":"member.banned","at":"a","data":{"user_id":"u","until":null}}"#;
        let forgotten = ban.replace(r#""u""#, &format!(r#""{NOBODY}""#));
        assert!(is_same_or_redacted(ban.as_bytes(), forgotten.as_bytes()));
    }

    #[test]
    fn anything_else_is_another_event() {
        let deleted = HELD.replace(r#""hi""#, "null");
        for (held, logged) in [
            (HELD, HELD.replace("hi", "ho")),
            (HELD, HELD.replace(r#""a","data""#, r#""b","data""#)),
            (HELD, HELD.replace("chat.created", "chat.updated")),
            (HELD, HELD.replace(r#""m""#, r#""n""#)),
            (HELD, HELD.replace(r#""u""#, r#""v""#)),
            (
                HELD,
                HELD.replace(r#""deleted_at":null"#, r#""deleted_at":"t""#),
            ),
            (HELD, deleted.replace(r#","body":null"#, "")),
            // The stored event is redacted but the log's is not.
            (deleted.as_str(), HELD.to_owned()),
            (HELD, "no JSON".to_owned()),
            (HELD, r#"{"data":7}"#.to_owned()),
        ] {
            assert!(
                !is_same_or_redacted(held.as_bytes(), logged.as_bytes()),
                "{logged}"
            );
        }
    }
}
