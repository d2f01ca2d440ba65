//! Scripts of a peer: client frames and answers go in, frames and requests come out.
//!
//! A step with `>` is a short form of a client frame: `S` is the session, `T` a second one. Any other step is an answer
//! of the router or the database, or time that passes. The expected text shows each step and the effects that it has.
//! `grant` stands for a valid resume token.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use secrecy::SecretString;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::auth::claims::TokenError;
use crate::auth::identity::{Identity, Role};
use crate::auth::mint::{NewClaims, mint};
use crate::auth::verifier::{Verifier, VerifierKeys};
use crate::limits::{SUBSCRIPTIONS_PER_PEER_MAX, WRITES_IN_FLIGHT_PER_PEER_MAX};
use crate::protocol::client::{self, FrameId};
use crate::protocol::id::{MessageId, MovieId, Seq, SessionId, UserId, VotingId};
use crate::protocol::notify::Event;
use crate::protocol::refusal::{Refusal, RefusalCode};
use crate::protocol::server::{Can, Sent, StartReason, WriteOutcome};
use crate::relay::delivery::{Attached, CachedState, LogPage, TurnKind};
use crate::relay::message::{Effect, Query, QueryResult, RouterReply, RouterRequest};
use crate::relay::peer::Peer;
use crate::relay::peer_context::{Moment, Rules};
use crate::relay::resume::{GrantVerdict, ResumeKey};
use crate::relay::snapshot::{Access, Admission, Snapshot};

const S: SessionId = SessionId(Uuid::from_u128(7));
const T: SessionId = SessionId(Uuid::from_u128(8));
const START_MS: u64 = 1_790_000_000_000;

#[test]
fn a_fresh_subscription_is_joined_admitted_caught_up_and_live() {
    check(
        "> subscribe S history 2 | joined | admitted head 5 | page 4 5 head 5 | live",
        expect![[r#"
            > subscribe S history 2
                join
            joined
                ask for admission
            admitted head 5
                count Unrecovered(Fresh)
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=5 id=1 reason="fresh" recovered=false resume_token="…" seq=3 viewers=3
                read the log after 3
            page 4 5 head 5
                < events 4 5
                attach after 5 in e
            live"#]],
    );
}

#[test]
fn an_own_vote_is_sent_and_an_older_one_never_follows_it() {
    check(
        "> subscribe S | joined | voted for 5 | voted for 6 | admitted head 0 | voted for 7 | live | voted",
        expect![[r#"
            > subscribe S
                join
            joined
                ask for admission
            voted for 5
            voted for 6
            admitted head 0
                count Unrecovered(Fresh)
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=0 id=1 reason="fresh" recovered=false resume_token="…" seq=0 viewers=3 mine=00000000-0000-0000-0000-000000000006
                attach after 0 in e
            voted for 7
                < mine movie="00000000-0000-0000-0000-000000000007" voting="00000000-0000-0000-0000-000000000001"
            live
            voted
                < mine movie=null voting="00000000-0000-0000-0000-000000000001""#]],
    );
}

#[test]
fn an_admission_is_checked_at_its_maximum_age() {
    // The interval is an hour. Each peer is checked in its last quarter.
    check(
        "> subscribe S | joined | admitted head 0 | live || wait 2000 | wait 1600 | unavailable | wait 7 | admitted head 0 muted | \
         wait 3600 | refused not_found",
        expect![[r#"
            wait 2000
                < ping
                < resume_token token="…"
            wait 1600
                < ping
                < resume_token token="…"
                check access
            unavailable
            wait 7
                check access
            admitted head 0 muted
                sees hidden counts: false
                < access can={"moderate":false,"send":false,"vote":false}
                < resume_token token="…"
            wait 3600
                < ping
                < resume_token token="…"
                check access
            refused not_found
                leave
                < unsubscribed reason="forbidden"
                close 4503"#]],
    );
    check(
        "> subscribe S | joined | admitted head 0 voted 5 | live || wait 3600 | voted for 6 | admitted head 0 voted 5 | \
         wait 2 | admitted head 0 voted 7 | recheck | admitted head 0",
        expect![[r#"
            wait 3600
                < ping
                < resume_token token="…"
                check access
            voted for 6
                < mine movie="00000000-0000-0000-0000-000000000006" voting="00000000-0000-0000-0000-000000000001"
            admitted head 0 voted 5
                < resume_token token="…"
            wait 2
                check access
            admitted head 0 voted 7
                < mine movie="00000000-0000-0000-0000-000000000007" voting="00000000-0000-0000-0000-000000000001"
                < resume_token token="…"
            recheck
                check access soon
            admitted head 0
                < mine movie=null voting="00000000-0000-0000-0000-000000000001"
                < resume_token token="…""#]],
    );
}

#[test]
fn a_resumed_admission_is_checked_at_its_maximum_age() {
    check(
        "grant | wait 599 | > subscribe S resume 5 | joined reach 3 head 9 | live | wait 5 | wait 2990 | wait 6 | admitted head 9",
        expect![[r#"
            grant
            wait 599
                < ping
            > subscribe S resume 5
                join with a grant
            joined reach 3 head 9
                count RecoveredFromMemory
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=9 id=1 reason=null recovered=true resume_token="…" seq=5 viewers=3
                attach after 5 in e
            live
            wait 5
                check access
            wait 2990
                < ping
                < resume_token token="…"
            wait 6
            admitted head 9
                < mine movie=null voting="00000000-0000-0000-0000-000000000001"
                < resume_token token="…""#]],
    );
}

#[test]
fn pages_are_read_until_the_head_is_reached() {
    check(
        "> subscribe S history 5 | joined | admitted head 5 | page 1 2 head 5 | page 3 4 5 head 6 | page 6 head 6 | live",
        expect![[r#"
            > subscribe S history 5
                join
            joined
                ask for admission
            admitted head 5
                count Unrecovered(Fresh)
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=5 id=1 reason="fresh" recovered=false resume_token="…" seq=0 viewers=3
                read the log after 0
            page 1 2 head 5
                < events 1 2
                read the log after 2
            page 3 4 5 head 6
                < events 3 4 5
                read the log after 5
            page 6 head 6
                < events 6
                attach after 6 in e
            live"#]],
    );
}

#[test]
fn a_subscription_continues_from_its_position() {
    check(
        "> subscribe S resume 3 | joined | admitted head 5 | page 4 5 head 5 | live",
        expect![[r#"
            > subscribe S resume 3
                join
            joined
                ask for admission
            admitted head 5
                count RecoveredFromLog
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=5 id=1 reason=null recovered=true resume_token="…" seq=3 viewers=3
                read the log after 3
            page 4 5 head 5
                < events 4 5
                attach after 5 in e
            live"#]],
    );
    check(
        "> subscribe S resume 5 | joined | admitted head 5 | live",
        expect![[r#"
            > subscribe S resume 5
                join
            joined
                ask for admission
            admitted head 5
                count RecoveredFromLog
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=5 id=1 reason=null recovered=true resume_token="…" seq=5 viewers=3
                attach after 5 in e
            live"#]],
    );
}

#[test]
fn an_invalid_position_starts_over_with_the_reason() {
    check(
        "> subscribe S resume 2 | joined | admitted head 9 floor 3",
        expect![[r#"
            > subscribe S resume 2
                join
            joined
                ask for admission
            admitted head 9 floor 3
                count Unrecovered(TooOld)
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=9 id=1 reason="too_old" recovered=false resume_token="…" seq=3 viewers=3
                read the log after 3"#]],
    );
    check(
        "> subscribe S resume 12 | joined | admitted head 9 floor 3",
        expect![[r#"
            > subscribe S resume 12
                join
            joined
                ask for admission
            admitted head 9 floor 3
                count Unrecovered(Ahead)
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=9 id=1 reason="ahead" recovered=false resume_token="…" seq=3 viewers=3
                read the log after 3"#]],
    );
    check(
        "> subscribe S resume 4 in f | joined | admitted head 9 floor 3",
        expect![[r#"
            > subscribe S resume 4 in f
                join
            joined
                ask for admission
            admitted head 9 floor 3
                count Unrecovered(Ahead)
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=9 id=1 reason="ahead" recovered=false resume_token="…" seq=3 viewers=3
                read the log after 3"#]],
    );
}

#[test]
fn a_grant_and_a_ring_make_the_admission_query_unnecessary() {
    check(
        "grant | > subscribe S resume 4 | joined reach 3 head 6 | live",
        expect![[r#"
            grant
            > subscribe S resume 4
                join with a grant
            joined reach 3 head 6
                count RecoveredFromMemory
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=6 id=1 reason=null recovered=true resume_token="…" seq=4 viewers=3
                attach after 4 in e
            live"#]],
    );
    check(
        "grant | > subscribe S resume 3 | joined reach 3 head 6 | behind | page 4 head 4 | live",
        expect![[r#"
            grant
            > subscribe S resume 3
                join with a grant
            joined reach 3 head 6
                count RecoveredFromMemory
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=6 id=1 reason=null recovered=true resume_token="…" seq=3 viewers=3
                attach after 3 in e
            behind
                read the log after 3
            page 4 head 4
                < events 4
                attach after 4 in e
            live"#]],
    );
}

#[test]
fn without_a_grant_or_a_ring_the_database_is_asked() {
    check(
        "> subscribe S resume 4 | joined reach 3 head 6",
        expect![[r#"
            > subscribe S resume 4
                join
            joined reach 3 head 6
                ask for admission"#]],
    );
    check(
        "grant | > subscribe S resume 2 | joined reach 3 head 6",
        expect![[r#"
            grant
            > subscribe S resume 2
                join with a grant
            joined reach 3 head 6
                ask for admission"#]],
    );
    check(
        "grant | > subscribe S resume 7 | joined reach 3 head 6",
        expect![[r#"
            grant
            > subscribe S resume 7
                join with a grant
            joined reach 3 head 6
                ask for admission"#]],
    );
    check(
        "grant | > subscribe S resume 4 in f | joined reach 3 head 6",
        expect![[r#"
            grant
            > subscribe S resume 4 in f
                join with a grant
            joined reach 3 head 6
                ask for admission"#]],
    );
    check(
        "grant | > subscribe S resume 4 | joined",
        expect![[r#"
        grant
        > subscribe S resume 4
            join with a grant
        joined
            ask for admission"#]],
    );
    check(
        "grant | > subscribe S | joined reach 3 head 6",
        expect![[r#"
            grant
            > subscribe S
                join
            joined reach 3 head 6
                ask for admission"#]],
    );
}

#[test]
fn a_grant_ends_with_its_expiry_and_with_the_identity() {
    check(
        "grant | wait 600 | > subscribe S resume 4 | joined reach 3 head 6",
        expect![[r#"
            grant
            wait 600
                < ping
            > subscribe S resume 4
                join
            joined reach 3 head 6
                ask for admission"#]],
    );
    check(
        "anonymous | grant | > subscribe S resume 4 | > auth 1 | joined reach 3 head 6",
        expect![[r#"
            anonymous
            grant
            > subscribe S resume 4
                join with a grant
            > auth 1
                < authenticated expires_at=1790086400 id=6 role="authenticated" sub="00000000-0000-0000-0000-000000000001"
                is 1
            joined reach 3 head 6
                ask for admission"#]],
    );
}

#[test]
fn a_token_carries_the_time_of_the_question() {
    check(
        "> subscribe S | joined | wait 5 | admitted head 0 | token age | live | wait 300 | token age | recheck | admitted head 0 | wait 0 | token age",
        expect![[r#"
            > subscribe S
                join
            joined
                ask for admission
            wait 5
            admitted head 0
                count Unrecovered(Fresh)
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=0 id=1 reason="fresh" recovered=false resume_token="…" seq=0 viewers=3
                attach after 0 in e
            token age
                5 s
            live
            wait 300
                < ping
                < resume_token token="…"
            token age
                305 s
            recheck
                check access soon
            admitted head 0
                < resume_token token="…"
            wait 0
            token age
                0 s"#]],
    );
    check(
        "grant | wait 7 | > subscribe S resume 4 | joined reach 3 head 6 | token age",
        expect![[r#"
            grant
            wait 7
            > subscribe S resume 4
                join with a grant
            joined reach 3 head 6
                count RecoveredFromMemory
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=6 id=1 reason=null recovered=true resume_token="…" seq=4 viewers=3
                attach after 4 in e
            token age
                7 s"#]],
    );
}

#[test]
fn a_token_made_while_access_is_in_doubt_is_void() {
    check(
        "anonymous | > subscribe S | joined | > auth 1 | admitted head 0 muted | token age | admitted head 0 | live | token age | recheck | wait 300 | token age | admitted head 0 | token age",
        expect![[r#"
            anonymous
            > subscribe S
                join
            joined
                ask for admission
            > auth 1
                < authenticated expires_at=1790086400 id=6 role="authenticated" sub="00000000-0000-0000-0000-000000000001"
                is 1
            admitted head 0 muted
                count Unrecovered(Fresh)
                < subscribed can={"moderate":false,"send":false,"vote":false} epoch="e" head=0 id=1 reason="fresh" recovered=false resume_token="…" seq=0 viewers=3
                attach after 0 in e
                check access soon
            token age
                void
            admitted head 0
                sees hidden counts: false
                < access can={"moderate":false,"send":true,"vote":true}
            live
            token age
                void
            recheck
                check access soon
            wait 300
                < ping
                < resume_token token="…"
            token age
                void
            admitted head 0
                < resume_token token="…"
            token age
                300 s"#]],
    );
}

#[test]
fn a_refusal_of_the_anonymous_client_does_not_end_the_users_subscription() {
    check(
        "anonymous | > subscribe S | joined | > auth 1 | refused not_found | admitted head 0 | live",
        expect![[r#"
            anonymous
            > subscribe S
                join
            joined
                ask for admission
            > auth 1
                < authenticated expires_at=1790086400 id=6 role="authenticated" sub="00000000-0000-0000-0000-000000000001"
                is 1
            refused not_found
                ask for admission
            admitted head 0
                count Unrecovered(Fresh)
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=0 id=1 reason="fresh" recovered=false resume_token="…" seq=0 viewers=3
                attach after 0 in e
            live"#]],
    );
    check(
        "anonymous | > subscribe S | joined | admitted head 0 muted | live || recheck | > auth 1 | refused forbidden | admitted head 0",
        expect![[r#"
            recheck
                check access soon
            > auth 1
                < authenticated expires_at=1790086400 id=6 role="authenticated" sub="00000000-0000-0000-0000-000000000001"
                is 1
            refused forbidden
                check access soon
            admitted head 0
                sees hidden counts: false
                < access can={"moderate":false,"send":true,"vote":true}
                < resume_token token="…""#]],
    );
    // A client that sends one token after the other is refused all the same.
    check(
        "> subscribe S | joined | admitted head 0 | live || recheck | > auth 1 | refused forbidden",
        expect![[r#"
            recheck
                check access soon
            > auth 1
                < authenticated expires_at=1790086400 id=6 role="authenticated" sub="00000000-0000-0000-0000-000000000001"
                is 1
            refused forbidden
                leave
                < unsubscribed reason="forbidden"
                close 4503"#]],
    );
}

#[test]
fn a_refusal_ends_the_subscription() {
    check(
        "> subscribe S | joined | refused banned | admitted head 5",
        expect![[r#"
            > subscribe S
                join
            joined
                ask for admission
            refused banned
                leave
                refuse 1 banned: no
            admitted head 5"#]],
    );
    check(
        "> subscribe S | joined | unavailable | > subscribe S",
        expect![[r#"
            > subscribe S
                join
            joined
                ask for admission
            unavailable
                leave
                refuse 1 unavailable: the database cannot be reached at the moment, try again
            > subscribe S
                join"#]],
    );
}

#[test]
fn a_later_failure_is_tried_again() {
    check(
        "> subscribe S history 1 | joined | admitted head 5 || no page | wait 1 | page 5 head 5 | live",
        expect![[r#"
            no page
            wait 1
                read the log after 4
            page 5 head 5
                < events 5
                attach after 5 in e
            live"#]],
    );
    check(
        "> subscribe S history 0 | joined | admitted head 5 | live || lost Ahead | joined | unavailable | wait 1 | joined | admitted head 2 in f | page 1 2 head 2 in f | live",
        expect![[r#"
            lost Ahead
                join
            joined
                ask for admission
            unavailable
            wait 1
                join
            joined
                ask for admission
            admitted head 2 in f
                count Reset(Ahead)
                < reset can={"moderate":false,"send":true,"vote":true} epoch="f" head=2 reason="ahead" seq=0
                read the log after 0
            page 1 2 head 2 in f
                < events 1 2
                attach after 2 in f
            live"#]],
    );
}

#[test]
fn a_page_can_show_that_the_position_is_invalid() {
    check(
        "> subscribe S history 2 | joined | admitted head 5 || page 4 5 head 5 in f",
        expect![[r#"
            page 4 5 head 5 in f
                join"#]],
    );
    check(
        "> subscribe S history 2 | joined | admitted head 5 || page floor 4 head 9",
        expect![[r#"
            page floor 4 head 9
                join"#]],
    );
    check(
        "> subscribe S history 2 | joined | admitted head 5 || page head 9",
        expect![[r#"
            page head 9
                join"#]],
    );
    check(
        "> subscribe S history 2 | joined | admitted head 5 || page 5 head 5",
        expect![[r#"
            page 5 head 5
                join"#]],
    );
    check(
        "> subscribe S history 2 | joined | admitted head 5 || page head 2",
        expect![[r#"
            page head 2
                join"#]],
    );
}

#[test]
fn a_subscriber_behind_is_caught_up_from_the_log() {
    check(
        "> subscribe S history 0 | joined | admitted head 5 | live || turn behind 7 | page 8 9 head 9 | behind | page 10 head 10 | live",
        expect![[r#"
            turn behind 7
                read the log after 7
            page 8 9 head 9
                < events 8 9
                attach after 9 in e
            behind
                read the log after 9
            page 10 head 10
                < events 10
                attach after 10 in e
            live"#]],
    );
}

#[test]
fn a_subscriber_that_lost_continuity_is_reset() {
    check(
        "> subscribe S history 0 | joined | admitted head 5 | live || lost TooOld | joined reach 0 head 9 | admitted head 60 | page 11 head 11",
        expect![[r#"
            lost TooOld
                join
            joined reach 0 head 9
                ask for admission
            admitted head 60
                count Reset(TooOld)
                < reset can={"moderate":false,"send":true,"vote":true} epoch="e" head=60 reason="too_old" seq=10
                read the log after 10
            page 11 head 11
                < events 11
                attach after 11 in e"#]],
    );
    check(
        "> subscribe S history 0 | joined | admitted head 5 | live || lost TooOld | joined | refused banned",
        expect![[r#"
            lost TooOld
                join
            joined
                ask for admission
            refused banned
                leave
                < unsubscribed reason="banned"
                close 4503"#]],
    );
}

#[test]
fn a_subscription_waits_until_the_epochs_agree() {
    check(
        "> subscribe S history 0 | joined | admitted head 5 || stale | wait 1 | page head 5 in f | joined | admitted head 5 in f | page 1 2 3 4 5 head 5 in f | live",
        expect![[r#"
            stale
            wait 1
                read the log after 5
            page head 5 in f
                join
            joined
                ask for admission
            admitted head 5 in f
                count Reset(Ahead)
                < reset can={"moderate":false,"send":true,"vote":true} epoch="f" head=5 reason="ahead" seq=0
                read the log after 0
            page 1 2 3 4 5 head 5 in f
                < events 1 2 3 4 5
                attach after 5 in f
            live"#]],
    );
    check(
        "> subscribe S history 0 | joined | admitted head 5 || stale | recheck | wait 1 | page head 5 | live",
        expect![[r#"
            stale
            recheck
                check access soon
            wait 1
                read the log after 5
            page head 5
                attach after 5 in e
            live"#]],
    );
}

#[test]
fn a_time_out_is_sent_and_the_subscription_continues() {
    check(
        "> subscribe S history 0 | joined | admitted head 5 | live || recheck | admitted head 5 muted | recheck | admitted head 5 muted | recheck | unavailable | wait 6 | admitted head 5",
        expect![[r#"
            recheck
                check access soon
            admitted head 5 muted
                sees hidden counts: false
                < access can={"moderate":false,"send":false,"vote":false}
                < resume_token token="…"
            recheck
                check access soon
            admitted head 5 muted
                < resume_token token="…"
            recheck
                check access soon
            unavailable
            wait 6
                check access
            admitted head 5
                sees hidden counts: false
                < access can={"moderate":false,"send":true,"vote":true}
                < resume_token token="…""#]],
    );
}

#[test]
fn access_is_checked_at_the_end_of_a_time_out() {
    check(
        "> subscribe S history 0 | joined | admitted head 5 muted for 10 | live || wait 9 | wait 1 | admitted head 5 muted for 3 | wait 3 | admitted head 5 | wait 10",
        expect![[r#"
            wait 9
            wait 1
                check access
            admitted head 5 muted for 3
                < resume_token token="…"
            wait 3
                check access
            admitted head 5
                sees hidden counts: false
                < access can={"moderate":false,"send":true,"vote":true}
                < resume_token token="…"
            wait 10"#]],
    );
}

#[test]
fn moderators_see_hidden_counts() {
    check(
        "> subscribe S history 0 | joined | admitted head 5 moderates | live | recheck | admitted head 5",
        expect![[r#"
            > subscribe S history 0
                join
            joined
                ask for admission
            admitted head 5 moderates
                count Unrecovered(Fresh)
                < subscribed can={"moderate":true,"send":true,"vote":true} epoch="e" head=5 id=1 reason="fresh" recovered=false resume_token="…" seq=5 viewers=3
                attach after 5 in e sees hidden
            live
            recheck
                check access soon
            admitted head 5
                sees hidden counts: false
                < access can={"moderate":false,"send":true,"vote":true}
                < resume_token token="…""#]],
    );
}

#[test]
fn withdrawn_access_ends_the_subscription_and_after_the_last_one_the_socket() {
    check(
        "> subscribe S history 0 | joined | admitted head 5 | live || > subscribe T history 0 | joined T | admitted T head 1 | live T | recheck | refused banned | recheck T | refused T not_found",
        expect![[r#"
            > subscribe T history 0
                join T
            joined T
                ask for admission T
            admitted T head 1
                count Unrecovered(Fresh)
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=1 id=1 reason="fresh" recovered=false resume_token="…" seq=1 viewers=3
                attach T after 1 in e
            live T
            recheck
                check access soon
            refused banned
                leave
                < unsubscribed reason="banned"
            recheck T
                check access T soon
            refused T not_found
                leave T
                < unsubscribed reason="forbidden"
                close 4503"#]],
    );
}

#[test]
fn a_former_subscriber_is_refused_with_the_code_that_ended_the_subscription() {
    check(
        "> subscribe S | joined | refused not_found",
        expect![[r#"
            > subscribe S
                join
            joined
                ask for admission
            refused not_found
                leave
                refuse 1 not_found: no"#]],
    );
    check(
        "grant | > subscribe S resume 4 in e | joined | refused not_found",
        expect![[r#"
            grant
            > subscribe S resume 4 in e
                join with a grant
            joined
                ask for admission
            refused not_found
                leave
                refuse 1 forbidden: you no longer have access to this session"#]],
    );
    check(
        "> subscribe S history 0 | joined | admitted head 5 | live || > subscribe T history 0 | joined T | admitted T head 1 | live T || recheck | refused not_found | > subscribe S | joined | refused not_found | > subscribe S | joined | refused banned",
        expect![[r#"
            recheck
                check access soon
            refused not_found
                leave
                < unsubscribed reason="forbidden"
            > subscribe S
                join
            joined
                ask for admission
            refused not_found
                leave
                refuse 1 forbidden: you no longer have access to this session
            > subscribe S
                join
            joined
                ask for admission
            refused banned
                leave
                refuse 1 banned: no"#]],
    );
}

#[test]
fn of_two_questions_the_later_one_counts() {
    check(
        "> subscribe S history 0 | joined | recheck | admitted head 5 | live | recheck | recheck | admitted head 5 muted | refused banned",
        expect![[r#"
            > subscribe S history 0
                join
            joined
                ask for admission
            recheck
            admitted head 5
                count Unrecovered(Fresh)
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=5 id=1 reason="fresh" recovered=false resume_token="…" seq=5 viewers=3
                attach after 5 in e
                check access soon
            live
            recheck
            recheck
            admitted head 5 muted
                sees hidden counts: false
                < access can={"moderate":false,"send":false,"vote":false}
                check access soon
                < resume_token token="…"
            refused banned
                leave
                < unsubscribed reason="banned"
                close 4503"#]],
    );
}

#[test]
fn late_answers_are_ignored() {
    check(
        "> subscribe S | joined | > unsubscribe S | admitted head 5 | page 5 head 5 | live | recheck",
        expect![[r#"
            > subscribe S
                join
            joined
                ask for admission
            > unsubscribe S
                refuse 1 conflict: a later frame about the same session came before the answer
                leave
                < unsubscribed id=2
            admitted head 5
            page 5 head 5
            live
            recheck"#]],
    );
    check(
        "> subscribe S history 0 | joined | > subscribe S history 1 | old admitted head 5 | old joined | joined | page 1 head 1 | live | admitted head 5",
        expect![[r#"
            > subscribe S history 0
                join
            joined
                ask for admission
            > subscribe S history 1
                refuse 1 conflict: a later frame about the same session came before the answer
                join
            old admitted head 5
            old joined
            joined
                ask for admission
            page 1 head 1
            live
            admitted head 5
                count Unrecovered(Fresh)
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=5 id=1 reason="fresh" recovered=false resume_token="…" seq=4 viewers=3
                read the log after 4"#]],
    );
}

#[test]
fn an_overtaken_subscribe_gets_an_answer() {
    check(
        "> subscribe S | > subscribe S | joined | > unsubscribe S",
        expect![[r#"
            > subscribe S
                join
            > subscribe S
                refuse 1 conflict: a later frame about the same session came before the answer
                join
            joined
                ask for admission
            > unsubscribe S
                refuse 1 conflict: a later frame about the same session came before the answer
                leave
                < unsubscribed id=2"#]],
    );
    check(
        "> subscribe S history 0 | joined | admitted head 5 || > subscribe S | > unsubscribe S",
        expect![[r#"
            > subscribe S
                join
            > unsubscribe S
                refuse 1 conflict: a later frame about the same session came before the answer
                leave
                < unsubscribed id=2"#]],
    );
}

#[test]
fn a_new_resume_token_is_sent_at_half_the_lifetime_of_the_old() {
    check(
        "> subscribe S history 0 | joined | admitted head 5 | live || wait 299 | wait 1 | wait 200 | turn behind 5 | page head 5 | live | wait 100",
        expect![[r#"
            wait 299
                < ping
            wait 1
                < resume_token token="…"
            wait 200
                < ping
            turn behind 5
                read the log after 5
            page head 5
                attach after 5 in e
            live
            wait 100
                < ping
                < resume_token token="…""#]],
    );
}

#[test]
fn writes_are_passed_on_and_acknowledged() {
    check(
        "> send S | written 7 | > vote | refused write slow_mode | written 7",
        expect![[r#"
            > send S
                write
            written 7
                < ack id=3 message="00000000-0000-0000-0000-000000000000" seq=7
            > vote
                write
            refused write slow_mode
                refuse 4 slow_mode: wait
            written 7"#]],
    );
    check(
        "anonymous | > send S",
        expect![[r#"
        anonymous
        > send S
            refuse 3 forbidden: sign in to write: this caller is anonymous"#]],
    );
}

#[test]
fn the_writes_in_flight_are_bounded() {
    let mut stage = PeerStage::new();
    for _ in 0..WRITES_IN_FLIGHT_PER_PEER_MAX {
        stage.run("> send S");
    }
    stage.told.clear();
    stage.run("> send S | written 1 | > send S");
    expect![[r#"
        > send S
            refuse 3 rate_limited: too many writes without an answer yet
        written 1
            < ack id=3 message="00000000-0000-0000-0000-000000000000" seq=1
        > send S
            write"#]]
    .assert_eq(&stage.told.join("\n"));
}

#[test]
fn the_subscriptions_are_bounded() {
    let mut stage = PeerStage::new();
    for number in 0..SUBSCRIPTIONS_PER_PEER_MAX as u128 {
        let session = Uuid::from_u128(1_000 + number);
        let frame = json!({"type": "subscribe", "session": session}).to_string();
        stage.peer.on_frame(client::decode(&frame), stage.now());
    }
    stage.peer.take_effects();
    stage.run("> subscribe S");
    expect![[r#"
        > subscribe S
            refuse 1 bad_request: a socket has at most 100 subscriptions: unsubscribe from a session first"#]]
    .assert_eq(&stage.told.join("\n"));
}

#[test]
fn a_socket_authenticates() {
    check(
        "anonymous | > auth 1 | > auth 1 | > auth 2",
        expect![[r#"
        anonymous
        > auth 1
            < authenticated expires_at=1790086400 id=6 role="authenticated" sub="00000000-0000-0000-0000-000000000001"
            is 1
        > auth 1
            < authenticated expires_at=1790086400 id=6 role="authenticated" sub="00000000-0000-0000-0000-000000000001"
            is 1
        > auth 2
            close 4509"#]],
    );
    check(
        "> auth broken | > auth none",
        expect![[r#"
        > auth broken
            refuse 6 unauthorized: not a token: a JWT is three base64url parts with a dot between them
        > auth none
            close 4509"#]],
    );
    check(
        "anonymous | > subscribe S history 0 | joined | admitted head 5 | live | > auth 1 | admitted head 5 muted",
        expect![[r#"
            anonymous
            > subscribe S history 0
                join
            joined
                ask for admission
            admitted head 5
                count Unrecovered(Fresh)
                < subscribed can={"moderate":false,"send":true,"vote":true} epoch="e" head=5 id=1 reason="fresh" recovered=false resume_token="…" seq=5 viewers=3
                attach after 5 in e
            live
            > auth 1
                < authenticated expires_at=1790086400 id=6 role="authenticated" sub="00000000-0000-0000-0000-000000000001"
                is 1
                check access soon
            admitted head 5 muted
                sees hidden counts: false
                < access can={"moderate":false,"send":false,"vote":false}
                < resume_token token="…""#]],
    );
}

#[test]
fn a_socket_without_a_required_token_is_closed() {
    check(
        "nobody | > subscribe S | > ping | wait 9 | wait 1",
        expect![[r#"
            nobody
            > subscribe S
                refuse 1 unauthorized: send an auth frame with a token first
            > ping
                < pong id=5
            wait 9
            wait 1
                close 4501"#]],
    );
    check(
        "nobody | > auth none | > auth 1 | wait 10 | > subscribe S",
        expect![[r#"
            nobody
            > auth none
                refuse 6 unauthorized: token must be a user's access token
            > auth 1
                < authenticated expires_at=1790086400 id=6 role="authenticated" sub="00000000-0000-0000-0000-000000000001"
                is 1
            wait 10
            > subscribe S
                join"#]],
    );
}

#[test]
fn a_client_is_not_closed_while_its_token_is_checked() {
    check(
        "nobody | wait 9 | > auth later | wait 70 | proven | > subscribe S",
        expect![[r#"
            nobody
            wait 9
            > auth later
                prove
            wait 70
                < ping
            proven
                < authenticated expires_at=null id=6 role="authenticated" sub="00000000-0000-0000-0000-000000000001"
                is 1
            > subscribe S
                join"#]],
    );
    check(
        "nobody | > auth later | wait 9 | unproven | wait 1",
        expect![[r#"
            nobody
            > auth later
                prove
            wait 9
            unproven
                refuse 6 unavailable: the database cannot be reached at the moment, try again
            wait 1
                close 1013"#]],
    );
    check(
        "nobody | > auth later | wait 9 | unproven | > auth broken | wait 1",
        expect![[r#"
            nobody
            > auth later
                prove
            wait 9
            unproven
                refuse 6 unavailable: the database cannot be reached at the moment, try again
            > auth broken
                refuse 6 unauthorized: not a token: a JWT is three base64url parts with a dot between them
            wait 1
                close 4501"#]],
    );
}

#[test]
fn a_client_is_warned_before_its_token_expires() {
    check(
        "anonymous | > auth 1 for 100 | wait 39 | wait 1 | wait 10 | > auth 1 for 100 | wait 40 | wait 60",
        expect![[r#"
            anonymous
            > auth 1 for 100
                < authenticated expires_at=1790000100 id=6 role="authenticated" sub="00000000-0000-0000-0000-000000000001"
                is 1
            wait 39
                < ping
            wait 1
                < token_expiring expires_at=1790000100
            wait 10
            > auth 1 for 100
                < authenticated expires_at=1790000150 id=6 role="authenticated" sub="00000000-0000-0000-0000-000000000001"
                is 1
            wait 40
                < token_expiring expires_at=1790000150
                < ping
            wait 60
                close 4001"#]],
    );
}

#[test]
fn a_silent_socket_is_closed() {
    check(
        "silent 25 | silent 25",
        expect![[r#"
            silent 25
                < ping
            silent 25
                close 4009"#]],
    );
    check(
        "silent 10 | > ping | silent 15 | silent 25 | silent 9 | silent 1",
        expect![[r#"
            silent 10
            > ping
                < pong id=5
            silent 15
                < ping
            silent 25
                < ping
            silent 9
            silent 1
                close 4009"#]],
    );
}

#[test]
fn another_protocol_is_refused_and_then_closed() {
    check(
        "> garbage | > garbage | > garbage | > garbage | > garbage | > garbage",
        expect![[r#"
            > garbage
                refuse - bad_request: a frame must be one JSON object in a text frame
            > garbage
                refuse - bad_request: a frame must be one JSON object in a text frame
            > garbage
                refuse - bad_request: a frame must be one JSON object in a text frame
            > garbage
                refuse - bad_request: a frame must be one JSON object in a text frame
            > garbage
                refuse - bad_request: a frame must be one JSON object in a text frame
            > garbage
                close 4500"#]],
    );
    check(
        "> dance",
        expect![[r#"
        > dance
            refuse 7 bad_request: type must be one of auth, subscribe, unsubscribe, send, vote, ping"#]],
    );
}

#[test]
fn a_drain_is_announced() {
    check(
        "drain 1840",
        expect![[r#"
        drain 1840
            < reconnect after_ms=1840 reason="draining"
            close 1012"#]],
    );
}

struct PeerStage {
    peer: Peer,
    rules: Arc<Rules>,
    identity: Option<Identity>,
    base: Instant,
    elapsed_ms: u64,
    attempts: HashMap<SessionId, (u32, u32)>,
    checks: Vec<(SessionId, u32)>,
    tickets: Vec<u32>,
    proof: Option<FrameId>,
    grant: Option<String>,
    token: Option<String>,
    told: Vec<String>,
    is_closed: bool,
}

impl PeerStage {
    fn new() -> Self {
        let base = start();
        let identity = Some(user(1));
        let rules = Arc::new(rules(true));
        let moment = Moment {
            at: base,
            unix_ms: START_MS,
        };
        let mut peer = Peer::new(
            Arc::clone(&rules),
            identity.clone().map(Arc::new),
            Uuid::nil(),
            moment,
        );
        peer.take_effects();
        Self {
            peer,
            rules,
            identity,
            base,
            elapsed_ms: 0,
            attempts: HashMap::new(),
            checks: Vec::new(),
            tickets: Vec::new(),
            proof: None,
            grant: None,
            token: None,
            told: Vec::new(),
            is_closed: false,
        }
    }

    /// Runs a script. The steps before `||` are shown in another script, so their effects are not recorded.
    fn run(&mut self, script: &str) {
        if let Some((prelude, script)) = script.split_once("||") {
            self.run(prelude);
            self.told.clear();
            return self.run(script);
        }
        for line in script.split('|').map(str::trim) {
            let before = self.told.len();
            let words: Vec<&str> = line.split_whitespace().collect();
            if words[0] == ">" {
                let now = self.now();
                self.peer.on_heard(now);
                let frame = client::decode(&self.frame(&words[1..]));
                self.peer.on_frame(frame, now);
            } else {
                self.step(&words);
            }
            self.drain();
            // Handles due deadlines immediately, as the shell does.
            if self.peer.deadline(self.now()) <= self.now().at && !self.is_closed {
                self.peer.on_deadline(self.now());
                self.drain();
            }
            let is_due = self.peer.deadline(self.now()) <= self.now().at;
            assert!(
                !is_due || self.is_closed,
                "a deadline stays due after {line}"
            );
            let told = self.told.split_off(before).join("\n    ");
            self.told.push(if told.is_empty() {
                line.to_owned()
            } else {
                format!("{line}\n    {told}")
            });
        }
    }

    fn drain(&mut self) {
        for effect in self.peer.take_effects() {
            if let Effect::Prove { id, token } = effect {
                self.prove(id, &token);
                continue;
            }
            let shown = self.show(effect);
            self.told.push(shown);
        }
    }

    /// Checks a token immediately, unless it is [`LATER`].
    fn prove(&mut self, id: Option<FrameId>, token: &str) {
        if token == LATER {
            self.proof = id;
            return self.told.push("prove".to_owned());
        }
        let verifier = Verifier::new(VerifierKeys::from_secret(&secret()));
        let outcome = verifier.verify(token, self.now().unix_ms / 1_000);
        let refuse = |error: TokenError| Refusal::new(RefusalCode::Unauthorized, error.to_string());
        let outcome = outcome.map_err(refuse);
        self.peer
            .on_query_result(QueryResult::Proven { id, outcome }, self.now());
        self.drain();
    }

    #[expect(clippy::too_many_lines, reason = "a table: one word after the other")]
    fn step(&mut self, words: &[&str]) {
        let now = self.now();
        let session = if words.contains(&"T") { T } else { S };
        let (old, latest) = self.attempts.get(&session).copied().unwrap_or_default();
        let attempt = if words[0] == "old" { old } else { latest };
        let words = if words[0] == "old" {
            &words[1..]
        } else {
            words
        };
        match words[0] {
            "anonymous" => self.restart(None, true),
            "nobody" => self.restart(None, false),
            "proven" => {
                let id = self.proof.take();
                let outcome = Ok(user(1));
                self.peer
                    .on_query_result(QueryResult::Proven { id, outcome }, now);
            }
            "unproven" => {
                let (id, refusal) = (self.proof.take(), Refusal::unavailable());
                let outcome = Err(refusal);
                self.peer
                    .on_query_result(QueryResult::Proven { id, outcome }, now);
            }
            "grant" => {
                let identity = self.peer.identity();
                let expires = now.unix_ms + 600_000;
                self.grant =
                    Some(
                        self.rules
                            .resume_key
                            .seal(identity, S, CAN, now.unix_ms, expires),
                    );
            }
            "joined" => {
                let cached = after(words, "reach").map(|reach| CachedState {
                    snapshot: snapshot("e", reach + 1, 0),
                    reach: Seq(reach),
                    head: Seq(after(words, "head").unwrap()),
                });
                let reply = RouterReply::Joined {
                    session,
                    attempt,
                    grant: cached.as_ref().map(|_| GrantVerdict::Holds),
                    cached: cached.map(Box::new),
                    viewers: 3,
                };
                self.peer.on_router_reply(reply, now);
            }
            "admitted" => {
                let can = Can {
                    send: !words.contains(&"muted"),
                    vote: !words.contains(&"muted"),
                    moderate: words.contains(&"moderates"),
                };
                let head = after(words, "head").unwrap();
                let snapshot = snapshot(epoch(words), head, after(words, "floor").unwrap_or(0));
                let mine = after(words, "voted").map(|movie| {
                    let movie = MovieId(Uuid::from_u128(movie.into()));
                    (VotingId(Uuid::from_u128(1)), movie)
                });
                let access = Access {
                    can,
                    mine: mine.into_iter().collect(),
                    ask_again: after(words, "for").map(Duration::from_secs),
                };
                self.answer(session, attempt, Some(Ok((access, snapshot))));
            }
            "refused" if words[1] == "write" => {
                let ticket = self.tickets.remove(0);
                let refusal = Refusal::new(RefusalCode::parse(words[2]).unwrap(), "wait");
                let outcome = Err(refusal);
                self.peer
                    .on_query_result(QueryResult::Written { ticket, outcome }, now);
            }
            "refused" => {
                let code = RefusalCode::parse(words.last().unwrap()).unwrap();
                self.answer(session, attempt, Some(Err(Refusal::new(code, "no"))));
            }
            "unavailable" => self.answer(session, attempt, None),
            "page" | "no" => {
                let page = (words[0] == "page").then(|| page(words));
                let result = QueryResult::Page {
                    session,
                    attempt,
                    page,
                };
                self.peer.on_query_result(result, now);
            }
            "live" | "behind" | "stale" => {
                let attached = match words[0] {
                    "live" => Attached::Live,
                    "behind" => Attached::Behind,
                    _ => Attached::Stale,
                };
                let reply = RouterReply::Attached {
                    session,
                    attempt,
                    attached,
                };
                self.peer.on_router_reply(reply, now);
            }
            "turn" => self.turn(
                session,
                attempt,
                TurnKind::Behind(Seq(after(words, "behind").unwrap())),
            ),
            "lost" => {
                let reason = if words[1] == "Ahead" {
                    StartReason::Ahead
                } else {
                    StartReason::TooOld
                };
                self.turn(session, attempt, TurnKind::Lost(reason));
            }
            "voted" => {
                let movie = after(words, "for").map(|movie| MovieId(Uuid::from_u128(movie.into())));
                let kind = TurnKind::OwnVote(VotingId(Uuid::from_u128(1)), movie);
                self.turn(session, attempt, kind);
            }
            "recheck" => self.turn(session, attempt, TurnKind::Recheck),
            "written" => {
                let ticket = if self.tickets.is_empty() {
                    0
                } else {
                    self.tickets.remove(0)
                };
                let seq = Some(Seq(words[1].parse().unwrap()));
                let outcome = Ok(WriteOutcome::Sent(Sent {
                    seq,
                    message: MessageId(Uuid::nil()),
                    is_new: true,
                }));
                self.peer
                    .on_query_result(QueryResult::Written { ticket, outcome }, now);
            }
            "token" => {
                let token = self.token.as_ref().expect("a token was given");
                let grant = self
                    .rules
                    .resume_key
                    .open(token, self.peer.identity(), S, now.unix_ms);
                let issued_at_ms = grant.expect("a token of this session").issued_at_ms;
                self.told.push(match issued_at_ms {
                    0 => "void".to_owned(),
                    _ => format!("{} s", (now.unix_ms - issued_at_ms) / 1_000),
                });
            }
            "wait" | "silent" => {
                self.elapsed_ms += words[1].parse::<u64>().unwrap() * 1_000;
                if words[0] == "wait" {
                    self.peer.on_heard(self.now());
                }
                self.peer.on_deadline(self.now());
            }
            "drain" => self.peer.on_drain(words[1].parse().unwrap()),
            other => panic!("{other}?"),
        }
    }

    /// Answers the last question to the database about a session: an admission or an access check.
    fn answer(
        &mut self,
        session: SessionId,
        attempt: u32,
        answer: Option<Result<(Access, Arc<Snapshot>), Refusal>>,
    ) {
        let now = self.now();
        if self.checks.contains(&(session, attempt)) {
            let answer = answer.map(|answer| answer.map(|(access, _)| access));
            let result = QueryResult::Checked {
                session,
                attempt,
                answer,
            };
            return self.peer.on_query_result(result, now);
        }
        let admission = |(access, snapshot)| Admission {
            session,
            access,
            snapshot,
        };
        let answer = answer.map(|answer| answer.map(admission));
        let result = QueryResult::Admitted {
            session,
            attempt,
            answer,
        };
        self.peer.on_query_result(result, now);
    }

    fn turn(&mut self, session: SessionId, attempt: u32, turn: TurnKind) {
        let reply = RouterReply::Turned {
            session,
            attempt,
            turn,
        };
        self.peer.on_router_reply(reply, self.now());
    }

    fn restart(&mut self, identity: Option<Identity>, allow_anonymous: bool) {
        self.identity = identity;
        self.rules = Arc::new(rules(allow_anonymous));
        self.peer = Peer::new(
            Arc::clone(&self.rules),
            self.identity.clone().map(Arc::new),
            Uuid::nil(),
            self.now(),
        );
        self.peer.take_effects();
    }

    fn now(&self) -> Moment {
        Moment {
            at: self.base + Duration::from_millis(self.elapsed_ms),
            unix_ms: START_MS + self.elapsed_ms,
        }
    }

    fn frame(&self, words: &[&str]) -> String {
        let session = if words.contains(&"T") { T } else { S };
        let frame = match words[0] {
            "subscribe" => {
                let mut frame = json!({"type": "subscribe", "id": 1, "session": session});
                if let Some(history) = after(words, "history") {
                    frame["history"] = json!(history);
                }
                if let Some(seq) = after(words, "resume") {
                    frame["resume"] =
                        json!({"seq": seq, "epoch": epoch(words), "token": self.grant});
                }
                frame
            }
            "unsubscribe" => json!({"type": "unsubscribe", "id": 2, "session": session}),
            "send" => json!({"type": "send", "id": 3, "session": session, "body": "hi"}),
            "vote" => json!({"type": "vote", "id": 4, "voting": session, "movie": null}),
            "ping" => json!({"type": "ping", "id": 5}),
            "auth" => {
                let ttl = Duration::from_secs(after(words, "for").unwrap_or(86_400));
                let token = match words[1] {
                    "none" => "sb_publishable_x".to_owned(),
                    "later" => LATER.to_owned(),
                    number => match number.parse() {
                        Ok(number) => {
                            let claims = NewClaims::user(UserId(Uuid::from_u128(number)));
                            mint(&secret(), &claims, self.now().unix_ms / 1_000, ttl)
                        }
                        Err(_) => "a.b.c".to_owned(),
                    },
                };
                json!({"type": "auth", "id": 6, "token": token})
            }
            "dance" => json!({"type": "dance", "id": 7}),
            _ => return "garbage".to_owned(),
        };
        frame.to_string()
    }

    fn show(&mut self, effect: Effect) -> String {
        let name = |session| if session == T { " T" } else { "" };
        match effect {
            Effect::Query(Query::Admit { session, attempt }) => {
                self.checks.retain(|asked| *asked != (session, attempt));
                format!("ask for admission{}", name(session))
            }
            Effect::Query(Query::CheckAccess {
                session,
                attempt,
                is_urgent,
            }) => {
                self.checks.push((session, attempt));
                let how = if is_urgent { " soon" } else { "" };
                format!("check access{}{how}", name(session))
            }
            Effect::Router(RouterRequest::Attach { session, from, .. }) => {
                format!(
                    "attach{} after {} in {}{}",
                    name(session),
                    from.seq,
                    from.epoch,
                    if from.sees_hidden { " sees hidden" } else { "" }
                )
            }
            Effect::Close(code) => {
                self.is_closed = true;
                format!("close {}", code.as_u16())
            }
            Effect::Router(RouterRequest::Identify { user }) => format!(
                "is {}",
                user.map_or("nobody".to_owned(), |user| user.0.as_u128().to_string())
            ),
            Effect::Router(RouterRequest::Join {
                session,
                attempt,
                grant,
                ..
            }) => {
                let kept = self.attempts.entry(session).or_default();
                *kept = (kept.1, attempt);
                format!(
                    "join{}{}",
                    name(session),
                    if grant.is_some() { " with a grant" } else { "" }
                )
            }
            Effect::Router(RouterRequest::Leave { session }) => format!("leave{}", name(session)),
            Effect::Prove { .. } => "prove".to_owned(),
            Effect::Query(Query::ReadPage { session, after, .. }) => {
                format!("read the log{} after {after}", name(session))
            }
            Effect::Refuse { id, refusal } => {
                format!(
                    "refuse {} {}: {}",
                    id.map_or("-".to_owned(), |id| id.as_json().to_owned()),
                    refusal.code.as_str(),
                    refusal.message
                )
            }
            Effect::Router(RouterRequest::SeesHidden { sees_hidden, .. }) => {
                format!("sees hidden counts: {sees_hidden}")
            }
            Effect::Answer(frames) | Effect::Send(frames) => self.show_frame(&frames.bytes),
            Effect::Began(outcome) => format!("count {outcome:?}"),
            Effect::Write { ticket, .. } => {
                self.tickets.push(ticket);
                "write".to_owned()
            }
        }
    }

    fn show_frame(&mut self, bytes: &[u8]) -> String {
        if bytes[0] == 0x89 {
            return "< ping".to_owned();
        }
        let body = bytes.windows(2).position(|pair| pair == b"{\"");
        let body = body.expect("an object");
        let mut frame: Value = serde_json::from_slice(&bytes[body..]).expect("one frame");
        for name in ["resume_token", "token"] {
            if let Some(token) = frame.get(name).and_then(Value::as_str) {
                self.token = Some(token.to_owned());
                frame[name] = json!("…");
            }
        }
        let events = frame["events"].as_array().map(|events| {
            events
                .iter()
                .map(|event| event["seq"].to_string())
                .collect::<Vec<_>>()
                .join(" ")
        });
        if let Some(events) = events {
            return format!("< events {events}");
        }
        let fields = frame.as_object().expect("an object").iter();
        let fields = fields
            .filter(|(name, _)| !["type", "session", "info", "votings"].contains(&name.as_str()));
        let fields: Vec<String> = fields
            .map(|(name, value)| format!(" {name}={value}"))
            .collect();
        let mine = frame["votings"][0]["mine"].as_str();
        let mine = mine.map_or(String::new(), |mine| format!(" mine={mine}"));
        format!(
            "< {}{}{mine}",
            frame["type"].as_str().expect("a type"),
            fields.concat()
        )
    }
}

const CAN: Can = Can {
    send: true,
    vote: true,
    moderate: false,
};

/// A token whose check the script finishes later.
const LATER: &str = "to be judged later";

fn rules(allow_anonymous: bool) -> Rules {
    Rules {
        resume_key: ResumeKey::new(&[7; 32]),
        resume_ttl: Duration::from_secs(600),
        heartbeat: Duration::from_secs(25),
        allow_anonymous,
        access_check: Duration::from_secs(3_600),
    }
}

fn secret() -> SecretString {
    "a secret of at least thirty-two bytes".to_owned().into()
}

fn user(number: u128) -> Identity {
    Identity {
        subject: Some(UserId(Uuid::from_u128(number))),
        role: Role::Authenticated,
        ..Identity::anonymous()
    }
}

fn snapshot(epoch: &str, head: u64, floor: u64) -> Arc<Snapshot> {
    let voting = json!({
        "voting": Uuid::from_u128(1), "status": "open", "version": 1, "total": 0, "counts": [], "question": "?",
        "results_visibility": "live", "allow_change": true, "options": [],
    });
    let json =
        json!({"epoch": epoch, "head": head, "floor": floor, "info": {}, "votings": [voting]});
    Arc::new(serde_json::from_str(&json.to_string()).unwrap())
}

fn page(words: &[&str]) -> LogPage {
    let seqs = words[1..].iter().map_while(|word| word.parse().ok());
    let event = |seq: u64| {
        Event::new(
            Seq(seq),
            &format!(r#"{{"seq":{seq},"type":"chat.created"}}"#),
        )
    };
    LogPage {
        epoch: epoch(words).to_owned(),
        head: Seq(after(words, "head").unwrap()),
        floor: Seq(after(words, "floor").unwrap_or(0)),
        events: seqs.map(event).collect(),
    }
}

fn epoch<'a>(words: &[&'a str]) -> &'a str {
    let place = words.iter().position(|word| *word == "in");
    place
        .and_then(|place| words.get(place + 1))
        .copied()
        .unwrap_or("e")
}

fn after(words: &[&str], name: &str) -> Option<u64> {
    let place = words.iter().position(|word| *word == name)?;
    words.get(place + 1)?.parse().ok()
}

fn check(script: &str, expected: Expect) {
    let mut stage = PeerStage::new();
    stage.run(script);
    expected.assert_eq(&stage.told.join("\n"));
}

#[expect(
    clippy::disallowed_methods,
    reason = "an instant has no other constructor"
)]
fn start() -> Instant {
    Instant::now()
}
