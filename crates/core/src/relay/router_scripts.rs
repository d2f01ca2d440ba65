//! Scripts of the router: notifications, pages and requests go in, deliveries and reads of the log come out.
//!
//! They use one session; `ring` sets how many events it keeps. The expected text shows each step and its effects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use uuid::Uuid;

use crate::limits::{
    LINGERING_SESSIONS_MAX, RING_BYTES_MAX, RUN_BYTES_MAX, TALLIES_PER_SESSION_MAX,
};
use crate::protocol::id::{Seq, SessionId, UserId, VotingId};
use crate::protocol::notify::{AccessChange, Event, Notice};
use crate::protocol::server::Frames;
use crate::relay::PeerId;
use crate::relay::delivery::{Attached, LogPage, Position, Refill, Sink, TurnKind};
use crate::relay::personal::OwnVote;
use crate::relay::router::Router;
use crate::relay::snapshot::Snapshot;
use crate::relay::tally::Tally;
use crate::relay::topic::Receiver;

const SESSION: SessionId = SessionId(Uuid::from_u128(7));

#[test]
fn hints_follow_the_rules() {
    check(
        "join 1 | attach 1 after 5 | hint 6 | hint 6 | hint 5 | hint 7 8 | hint 10 | hint 9 | page 9 10 head 10 | hint 11",
        expect![[r#"
            join 1
            attach 1 after 5
            hint 6: 1 < 6
            hint 6
            hint 5
            hint 7 8: 1 < 7 8
            hint 10: ask after 8 (Gap)
            hint 9
            page 9 10 head 10: 1 < 9 10
            hint 11: 1 < 11"#]],
    );
}

#[test]
fn an_event_that_the_log_does_not_have_makes_every_receiver_start_over() {
    // The forged event 6 arrives first. The true one shows the conflict.
    check(
        "join 1 | attach 1 after 4 | hint 5 | other 6 | hint 7 | hint 6 | hint 8 | page 6 7 8 head 8 | forgeries | \
         attach 1 after 5 | page 6 7 8 head 8 | hint 9",
        expect![[r#"
            join 1
            attach 1 after 4
            hint 5: 1 < 5
            other 6: 1 < 6
            hint 7: 1 < 7
            hint 6: ask after 5 (Conflict)
            hint 8
            page 6 7 8 head 8: 1 lost Ahead
            forgeries: 1
            attach 1 after 5: ask after 5 (Gap)
            page 6 7 8 head 8: 1 < 6 7 8
            hint 9: 1 < 9"#]],
    );
}

#[test]
fn a_forged_hint_for_an_old_number_costs_one_read() {
    check(
        "join 1 | attach 1 after 4 | hint 5 6 7 | other 6 | other 5 | page 6 7 head 7 | page 5 6 7 head 7 | forgeries | hint 8",
        expect![[r#"
            join 1
            attach 1 after 4
            hint 5 6 7: 1 < 5 6 7
            other 6: ask after 5 (Conflict)
            other 5
            page 6 7 head 7: ask after 4 (More)
            page 5 6 7 head 7
            forgeries: 0
            hint 8: 1 < 8"#]],
    );
}

#[test]
fn a_number_in_doubt_that_the_log_no_longer_has_stays_as_it_is() {
    check(
        "join 1 | attach 1 after 4 | hint 5 6 | other 5 | page floor 5 head 6 | other 5 | page 6 7 floor 5 head 9 | hint 7",
        expect![[r#"
            join 1
            attach 1 after 4
            hint 5 6: 1 < 5 6
            other 5: ask after 4 (Conflict)
            page floor 5 head 6
            other 5: ask after 4 (Conflict)
            page 6 7 floor 5 head 9: 1 < 7, ask after 7 (More)
            hint 7"#]],
    );
}

#[test]
fn a_full_page_about_a_number_in_doubt_keeps_the_ring() {
    check(
        "join 1 | attach 1 after 4 | hint 5 6 7 | other 5 | bare 9 | page 5 6 head 9 | page 8 9 head 9",
        expect![[r#"
            join 1
            attach 1 after 4
            hint 5 6 7: 1 < 5 6 7
            other 5: ask after 4 (Conflict)
            bare 9
            page 5 6 head 9: ask after 7 (More)
            page 8 9 head 9: 1 < 8 9"#]],
    );
}

#[test]
fn a_hint_without_its_event_reads_the_log() {
    check(
        "join 1 | attach 1 after 5 | bare 6 | hint 7 | page 6 head 6 | page 7 head 7 | bare 9",
        expect![[r#"
            join 1
            attach 1 after 5
            bare 6: ask after 5 (Oversized)
            hint 7
            page 6 head 6: 1 < 6, ask after 6 (More)
            page 7 head 7: 1 < 7
            bare 9: ask after 7 (Gap)"#]],
    );
}

#[test]
fn a_refill_is_repeated_while_there_is_more() {
    check(
        "join 1 | attach 1 after 0 | hint 9 | page 1 2 head 9 | page 3 4 5 6 7 8 9 head 9 | hint 10",
        expect![[r#"
            join 1
            attach 1 after 0
            hint 9: ask after 0 (Gap)
            page 1 2 head 9: 1 < 1 2, ask after 2 (More)
            page 3 4 5 6 7 8 9 head 9: 1 < 3 4 5 6 7 8 9
            hint 10: 1 < 10"#]],
    );
}

#[test]
fn a_higher_hint_during_a_refill_reads_the_log_again() {
    check(
        "join 1 | attach 1 after 0 | hint 2 | hint 3 | page 1 2 head 2 | page 3 head 3",
        expect![[r#"
            join 1
            attach 1 after 0
            hint 2: ask after 0 (Gap)
            hint 3
            page 1 2 head 2: 1 < 1 2, ask after 2 (More)
            page 3 head 3: 1 < 3"#]],
    );
}

#[test]
fn a_resync_during_a_refill_reads_the_log_again() {
    check(
        "join 1 | attach 1 after 0 | hint 2 | resync e | page 1 2 head 2 | page head 2",
        expect![[r#"
            join 1
            attach 1 after 0
            hint 2: ask after 0 (Gap)
            resync e
            page 1 2 head 2: 1 < 1 2, ask after 2 (More)
            page head 2"#]],
    );
}

#[test]
fn a_resync_before_the_newest_number_is_known_is_remembered() {
    check(
        "join 1 | resync e | attach 1 after 5 | page 6 head 6",
        expect![[r#"
            join 1
            resync e
            attach 1 after 5: ask after 5 (Gap)
            page 6 head 6: 1 < 6"#]],
    );
}

#[test]
fn a_bare_hint_before_the_newest_number_is_known_is_remembered() {
    check(
        "join 1 | bare 7 | attach 1 after 5 | page 6 7 head 7",
        expect![[r#"
            join 1
            bare 7
            attach 1 after 5: ask after 5 (Gap)
            page 6 7 head 7: 1 < 6 7"#]],
    );
}

#[test]
fn a_false_hint_costs_one_read() {
    check(
        "join 1 | attach 1 after 5 | bare 900 | page head 5 | hint 6",
        expect![[r#"
            join 1
            attach 1 after 5
            bare 900: ask after 5 (Gap)
            page head 5
            hint 6: 1 < 6"#]],
    );
}

#[test]
fn a_resync_that_missed_nothing_costs_one_read() {
    check(
        "join 1 | attach 1 after 5 | resync e | page head 5 | hint 6",
        expect![[r#"
            join 1
            attach 1 after 5
            resync e: ask after 5 (Resync)
            page head 5
            hint 6: 1 < 6"#]],
    );
}

#[test]
fn another_epoch_starts_over() {
    check(
        "join 1 | join 2 | attach 1 after 5 | resync f | attach 2 after 5 | join 1 | attach 1 after 3 in f | page head 3",
        expect![[r#"
            join 1
            join 2
            attach 1 after 5
            resync f: 1 lost Ahead
            attach 2 after 5: Stale
            join 1
            attach 1 after 3 in f: ask after 3 (Gap)
            page head 3"#]],
    );
}

#[test]
fn a_page_of_another_epoch_is_not_shown() {
    check(
        "join 1 | attach 1 after 5 | hint 8 | page 6 7 8 head 8 in f | hint 6 | resync f",
        expect![[r#"
            join 1
            attach 1 after 5
            hint 8: ask after 5 (Gap)
            page 6 7 8 head 8 in f
            hint 6: 1 < 6
            resync f: 1 lost Ahead"#]],
    );
}

#[test]
fn a_late_page_for_a_session_that_started_over_is_ignored() {
    check(
        "join 1 | attach 1 after 5 | hint 8 | keep | resync f | join 1 | attach 1 after 2 in f | page 3 head 3 in f | late 6 7 8 head 8 in f",
        expect![[r#"
            join 1
            attach 1 after 5
            hint 8: ask after 5 (Gap)
            keep
            resync f: 1 lost Ahead
            join 1
            attach 1 after 2 in f: ask after 2 (Gap)
            page 3 head 3 in f: 1 < 3
            late 6 7 8 head 8 in f"#]],
    );
}

#[test]
fn a_log_behind_the_ring_went_back_in_time() {
    check(
        "join 1 | attach 1 after 5 | resync e | page head 4",
        expect![[r#"
            join 1
            attach 1 after 5
            resync e: ask after 5 (Resync)
            page head 4: 1 lost Ahead"#]],
    );
}

#[test]
fn a_trimmed_log_loses_only_receivers_before_its_floor() {
    check(
        "join 1 | join 2 | join 3 | attach 1 after 5 | attach 2 after 9 | hint 12 | page floor 8 head 12 | attach 3 after 7 | page floor 8 head 12",
        expect![[r#"
            join 1
            join 2
            join 3
            attach 1 after 5
            attach 2 after 9
            hint 12: ask after 5 (Gap)
            page floor 8 head 12: 1 lost TooOld, 2 behind 9
            attach 3 after 7: ask after 7 (Gap)
            page floor 8 head 12: 3 lost TooOld"#]],
    );
}

#[test]
fn a_log_without_the_events_up_to_its_head_was_trimmed() {
    check(
        "join 1 | attach 1 after 5 | hint 9 | page floor 5 head 9",
        expect![[r#"
            join 1
            attach 1 after 5
            hint 9: ask after 5 (Gap)
            page floor 5 head 9: 1 behind 5"#]],
    );
}

#[test]
fn a_page_that_does_not_follow_is_not_shown() {
    check(
        "join 1 | attach 1 after 5 | hint 9 | page 7 8 9 head 9",
        expect![[r#"
            join 1
            attach 1 after 5
            hint 9: ask after 5 (Gap)
            page 7 8 9 head 9: 1 behind 5"#]],
    );
}

#[test]
fn a_late_page_for_a_forgotten_session_is_ignored() {
    check(
        "join 1 | attach 1 after 5 | hint 8 | keep | leave 1 | wait 61 | join 1 | attach 1 after 9 | late 6 7 8 head 8",
        expect![[r#"
            join 1
            attach 1 after 5
            hint 8: ask after 5 (Gap)
            keep
            leave 1
            wait 61: 0 sessions
            join 1
            attach 1 after 9
            late 6 7 8 head 8"#]],
    );
}

#[test]
fn a_restart_forgets_no_hint() {
    check(
        "join 1 | join 2 | attach 1 after 3 | hint 6 | page floor 5 head 9 | attach 2 after 5 | page 6 7 8 9 floor 5 head 9",
        expect![[r#"
            join 1
            join 2
            attach 1 after 3
            hint 6: ask after 3 (Gap)
            page floor 5 head 9: 1 lost TooOld
            attach 2 after 5: ask after 5 (Gap)
            page 6 7 8 9 floor 5 head 9: 2 < 6 7 8 9"#]],
    );
}

#[test]
fn a_stalled_receiver_is_caught_up_from_the_ring() {
    check(
        "join 1 | join 2 | attach 1 after 5 | attach 2 after 5 | stall 1 | hint 6 | hint 7 | flow 1 | hint 8",
        expect![[r#"
            join 1
            join 2
            attach 1 after 5
            attach 2 after 5
            stall 1
            hint 6: 2 < 6
            hint 7: 2 < 7
            flow 1: 1 < 6 7
            hint 8: 1 < 8, 2 < 8"#]],
    );
}

#[test]
fn a_stalled_receiver_before_the_ring_reads_the_log() {
    check(
        "ring 2 | join 1 | attach 1 after 5 | stall 1 | hint 6 7 8 | flow 1 | hint 9 | attach 1 after 8",
        expect![[r#"
            ring 2
            join 1
            attach 1 after 5
            stall 1
            hint 6 7 8
            flow 1: 1 behind 5
            hint 9
            attach 1 after 8: 1 < 9"#]],
    );
}

#[test]
fn a_receiver_that_is_behind_is_told_once() {
    check(
        "ring 2 | join 1 | attach 1 after 5 | stall 1 | hint 6 7 8 | flow 1 | flow 1 | hint 9 | flow 1",
        expect![[r#"
            ring 2
            join 1
            attach 1 after 5
            stall 1
            hint 6 7 8
            flow 1: 1 behind 5
            flow 1
            hint 9
            flow 1"#]],
    );
}

#[test]
fn each_receiver_gets_the_events_after_its_own_position() {
    check(
        "join 1 | attach 1 after 5 | hint 6 7 8 | join 2 | join 3 | attach 2 after 5 | attach 3 after 7 | join 4 | attach 4 after 7",
        expect![[r#"
            join 1
            attach 1 after 5
            hint 6 7 8: 1 < 6 7 8
            join 2
            join 3
            attach 2 after 5: 2 < 6 7 8
            attach 3 after 7: 3 < 8
            join 4
            attach 4 after 7: 4 < 8"#]],
    );
}

#[test]
fn a_position_before_the_ring_reads_the_log() {
    check(
        "ring 2 | join 1 | attach 1 after 5 | hint 6 7 8 | join 2 | attach 2 after 5 | attach 2 after 6",
        expect![[r#"
            ring 2
            join 1
            attach 1 after 5
            hint 6 7 8: 1 < 6 7 8
            join 2
            attach 2 after 5: Behind
            attach 2 after 6: 2 < 7 8"#]],
    );
}

#[test]
fn nothing_is_delivered_before_an_attach_or_after_a_leave() {
    check(
        "join 1 | hint 6 | join 2 | attach 2 after 6 | hint 7 | leave 2 | hint 8 | attach 2 after 6 | attach 1 after 6",
        expect![[r#"
            join 1
            hint 6
            join 2
            attach 2 after 6
            hint 7: 2 < 7
            leave 2
            hint 8
            attach 2 after 6: Stale
            attach 1 after 6: 1 < 7 8"#]],
    );
}

#[test]
fn a_position_ahead_of_the_ring_waits_for_it() {
    check(
        "join 1 | join 2 | attach 1 after 5 | attach 2 after 7 | hint 6 | hint 7 | hint 8",
        expect![[r#"
            join 1
            join 2
            attach 1 after 5
            attach 2 after 7
            hint 6: 1 < 6
            hint 7: 1 < 7
            hint 8: 1 < 8, 2 < 8"#]],
    );
    check(
        "join 1 | join 2 | attach 1 after 5 | attach 2 after 7 | hint 6 7 8",
        expect![[r#"
            join 1
            join 2
            attach 1 after 5
            attach 2 after 7
            hint 6 7 8: 1 < 6 7 8, 2 < 8"#]],
    );
}

#[test]
fn events_of_one_round_are_one_chunk() {
    check(
        "join 1 | join 2 | attach 1 after 5 | attach 2 after 5 | hint 6 7 8",
        expect![[r#"
            join 1
            join 2
            attach 1 after 5
            attach 2 after 5
            hint 6 7 8: 1 < 6 7 8, 2 < 6 7 8"#]],
    );
}

#[test]
fn joining_again_starts_over() {
    check(
        "join 1 | attach 1 after 5 | hint 6 | join 1 | hint 7 | attach 1 after 5",
        expect![[r#"
            join 1
            attach 1 after 5
            hint 6: 1 < 6
            join 1
            hint 7
            attach 1 after 5: 1 < 6 7"#]],
    );
}

#[test]
fn tallies_reach_every_receiver_and_never_go_back() {
    check(
        "join 1 | join 2 sees | attach 1 after 5 | attach 2 after 5 sees | tally 3 | tally 2 | tally 3 | access all | tally 2 | tally 4",
        expect![[r#"
            join 1
            join 2 sees
            attach 1 after 5
            attach 2 after 5 sees
            tally 3: 1 < tally 3 hidden, 2 < tally 3
            tally 2
            tally 3: 1 < tally 3 hidden, 2 < tally 3
            access all: 1 recheck later, 2 recheck later
            tally 2
            tally 4: 1 < tally 4 hidden, 2 < tally 4"#]],
    );
}

#[test]
fn a_tally_missed_while_stalled_or_joining_is_sent_later() {
    check(
        "join 1 | join 2 | attach 1 after 5 | stall 1 | tally 3 | tally 4 | flow 1 | attach 2 after 5",
        expect![[r#"
            join 1
            join 2
            attach 1 after 5
            stall 1
            tally 3
            tally 4
            flow 1: 1 < tally 4 hidden
            attach 2 after 5: 2 < tally 4 hidden"#]],
    );
}

#[test]
fn no_tally_is_older_than_the_receivers_snapshot() {
    check(
        "join 1 | tally 3 | attach 1 after 5 snapshot 5 version 4 | tally 3 | tally 4 | tally 5",
        expect![[r#"
            join 1
            tally 3
            attach 1 after 5 snapshot 5 version 4
            tally 3
            tally 4: 1 < tally 4 hidden
            tally 5: 1 < tally 5 hidden"#]],
    );
    check(
        "join 1 | attach 1 after 5 snapshot 5 version 2 | join 2 | attach 2 after 5 snapshot 5 version 4 | tally 3 | tally 4",
        expect![[r#"
            join 1
            attach 1 after 5 snapshot 5 version 2
            join 2: recalls 5..5 version 2
            attach 2 after 5 snapshot 5 version 4
            tally 3
            tally 4: 1 < tally 4 hidden, 2 < tally 4 hidden"#]],
    );
}

#[test]
fn counts_are_hidden_after_a_change_of_permissions() {
    check(
        "join 1 | attach 1 after 5 sees | tally 3 | hide 1 | tally 4",
        expect![[r#"
            join 1
            attach 1 after 5 sees
            tally 3: 1 < tally 3
            hide 1
            tally 4: 1 < tally 4 hidden"#]],
    );
}

#[test]
fn counts_are_read_again_for_receivers_that_joined_before_a_resync() {
    check(
        "join 1 | resync e | attach 1 after 5 snapshot 5 version 2 | page head 5 | votings | resync e | votings",
        expect![[r#"
            join 1
            resync e
            attach 1 after 5 snapshot 5 version 2: ask after 5 (Gap), recount
            page head 5
            votings: 1 known
            resync e: ask after 5 (Resync)
            votings: 1 known"#]],
    );
}

#[test]
fn counts_are_read_again_after_poll_events_from_the_log() {
    check(
        "join 1 | attach 1 after 5 | bare 6 | page 6 head 6 about a voting | bare 7 | page 7 head 7",
        expect![[r#"
            join 1
            attach 1 after 5
            bare 6: ask after 5 (Oversized)
            page 6 head 6 about a voting: 1 < 6, recount
            bare 7: ask after 6 (Oversized)
            page 7 head 7: 1 < 7"#]],
    );
}

#[test]
fn a_restart_keeps_the_counts_of_the_same_epoch() {
    check(
        "join 1 | join 2 | attach 1 after 3 | tally 7 | hint 6 | page floor 5 head 9 | attach 2 after 5",
        expect![[r#"
            join 1
            join 2
            attach 1 after 3
            tally 7: 1 < tally 7 hidden
            hint 6: ask after 3 (Gap)
            page floor 5 head 9: 1 lost TooOld
            attach 2 after 5: 2 < tally 7 hidden, ask after 5 (Gap)"#]],
    );
    check(
        "join 1 | attach 1 after 3 | tally 7 | resync f | join 1 | attach 1 after 3 in f | tally 5",
        expect![[r#"
            join 1
            attach 1 after 3
            tally 7: 1 < tally 7 hidden
            resync f: 1 lost Ahead
            join 1
            attach 1 after 3 in f: ask after 3 (Gap)
            tally 5"#]],
    );
}

#[test]
fn state_is_sent_to_live_receivers() {
    check(
        "join 1 | join 2 | attach 2 after 5 | viewers | stall 2 | viewers",
        expect![[r#"
            join 1
            join 2
            attach 2 after 5
            viewers: 2 < viewers
            stall 2
            viewers"#]],
    );
}

#[test]
fn an_access_change_rechecks_the_receivers_concerned() {
    check(
        "join 1 user 1 | join 2 user 2 | join 3 | access 1 | access all | access 9",
        expect![[r#"
            join 1 user 1
            join 2 user 2
            join 3
            access 1: 1 recheck
            access all: 1 recheck later, 2 recheck later, 3 recheck later
            access 9"#]],
    );
}

#[test]
fn a_vote_is_sent_to_the_voters_sockets_that_follow_the_session() {
    check(
        "join 1 user 4 | join 2 user 4 | join 3 user 5 | join 6 | vote 4 | leave 2 | vote 4 | user 3 is 4 | vote 4 | \
         vote 5 | leave 1 | leave 3 | vote 4 | vote 9",
        expect![[r#"
            join 1 user 4
            join 2 user 4
            join 3 user 5
            join 6
            vote 4: 1 voted, 2 voted
            leave 2
            vote 4: 1 voted
            user 3 is 4: 3 recheck
            vote 4: 1 voted, 3 voted
            vote 5
            leave 1
            leave 3
            vote 4
            vote 9"#]],
    );
}

#[test]
fn a_receiver_that_signs_in_is_rechecked() {
    check(
        "join 1 | user 1 is 4 | user 1 is 4 | access 4",
        expect![[r#"
            join 1
            user 1 is 4: 1 recheck
            user 1 is 4
            access 4: 1 recheck"#]],
    );
}

#[test]
fn a_snapshot_is_cached_until_the_session_changes() {
    check(
        "join 1 | attach 1 after 5 snapshot 5 version 1 | join 2 | hint 6 | join 3 | change 7 | join 4",
        expect![[r#"
            join 1
            attach 1 after 5 snapshot 5 version 1
            join 2: recalls 5..5 version 1
            hint 6: 1 < 6
            join 3: recalls 5..6 version 1
            change 7: 1 < 7
            join 4"#]],
    );
    check(
        "join 1 | attach 1 after 5 snapshot 5 version 1 | tally 3 | join 2 | access all | join 3 | attach 3 after 5 snapshot 5 version 3 | join 4 | resync e | join 5",
        expect![[r#"
            join 1
            attach 1 after 5 snapshot 5 version 1
            tally 3: 1 < tally 3 hidden
            join 2: recalls 5..5 version 3
            access all: 1 recheck later, 2 recheck later
            join 3
            attach 3 after 5 snapshot 5 version 3
            join 4: recalls 5..5 version 3
            resync e: ask after 5 (Resync)
            join 5"#]],
    );
}

#[test]
fn a_snapshot_from_before_the_ring_is_not_cached() {
    check(
        "join 1 | attach 1 after 8 snapshot 5 version 1 | join 2 | attach 2 after 8 snapshot 8 version 1 | join 3",
        expect![[r#"
            join 1
            attach 1 after 8 snapshot 5 version 1
            join 2
            attach 2 after 8 snapshot 8 version 1
            join 3: recalls 8..8 version 1"#]],
    );
}

#[test]
fn a_cached_snapshot_has_the_counts_sent_before_it() {
    check(
        "join 1 | tally 3 | attach 1 after 5 snapshot 5 version 2 | join 2",
        expect![[r#"
            join 1
            tally 3
            attach 1 after 5 snapshot 5 version 2: 1 < tally 3 hidden
            join 2: recalls 5..5 version 3"#]],
    );
}

#[test]
fn a_session_lingers_and_stays_up_to_date_for_reconnecting_clients() {
    check(
        "join 1 | attach 1 after 5 snapshot 5 version 1 | leave 1 | hint 6 | wait 59 | join 2 | leave 2 | wait 59 | hint 7 | wait 2 | join 3",
        expect![[r#"
            join 1
            attach 1 after 5 snapshot 5 version 1
            leave 1
            hint 6
            wait 59: 1 sessions
            join 2: recalls 5..6 version 1
            leave 2
            wait 59: 1 sessions
            hint 7
            wait 2: 0 sessions
            join 3"#]],
    );
}

#[test]
fn a_receiver_that_leaves_does_not_affect_others() {
    check(
        "join 1 | join 2 | join 3 | attach 1 after 5 | attach 2 after 5 | attach 3 after 5 | leave 1 | stall 3 | hint 6 | flow 3 | leave 3 | hint 7",
        expect![[r#"
            join 1
            join 2
            join 3
            attach 1 after 5
            attach 2 after 5
            attach 3 after 5
            leave 1
            stall 3
            hint 6: 2 < 6
            flow 3: 3 < 6
            leave 3
            hint 7: 2 < 7"#]],
    );
}

#[test]
fn leaving_everything_frees_everything() {
    check(
        "join 1 | attach 1 after 5 | leave all 1 | flow 1 | wait 61 | hint 6",
        expect![[r#"
            join 1
            attach 1 after 5
            leave all 1: left 1
            flow 1
            wait 61: 0 sessions
            hint 6"#]],
    );
}

#[test]
fn the_ring_stays_within_its_bytes() {
    let mut stage = RouterStage::new();
    stage.run("join 1 | attach 1 after 0");
    stage.router.publish(long_events(500), &mut stage.sink);
    assert!(stage.router.window_bytes() <= RING_BYTES_MAX);
    assert!(
        stage.sink.said.len() > 1,
        "a burst is written out before it outgrows the bound"
    );
}

#[test]
fn a_receiver_that_is_behind_gets_bounded_backlogs() {
    let mut stage = RouterStage::new();
    stage.run("join 1 | attach 1 after 0 | stall 1");
    stage.router.publish(long_events(30), &mut stage.sink);
    stage.sink.stalled.clear();
    stage.router.catch_up(PeerId(1), &mut stage.sink);
    let runs = 30_usize.div_ceil(RUN_BYTES_MAX / LONG_EVENT_BYTES_MIN);
    assert_eq!(stage.sink.said.len(), runs);
}

#[test]
fn lingering_sessions_are_bounded_and_the_longest_idle_is_forgotten_first() {
    let mut stage = RouterStage::new();
    stage.run("join 1 | attach 1 after 5 | leave 1 | wait 1");
    stage.run(&format!("guests {LINGERING_SESSIONS_MAX} | wait 1"));
    assert_eq!(stage.router.sessions().count(), LINGERING_SESSIONS_MAX);
    assert!(stage.router.sessions().all(|session| session != SESSION));
}

#[test]
fn the_remembered_tallies_are_bounded() {
    let mut stage = RouterStage::new();
    stage.run("join 1 | attach 1 after 0 | stall 1");
    for voting in 0..2 * TALLIES_PER_SESSION_MAX as u128 {
        stage.router.on_tally(&tally(voting, 1), &mut stage.sink);
    }
    stage.sink.stalled.clear();
    stage.router.catch_up(PeerId(1), &mut stage.sink);
    assert_eq!(stage.sink.said.len(), TALLIES_PER_SESSION_MAX);
    // The other tallies are read again for this receiver, and only for it.
    let recounts = std::iter::from_fn(|| stage.router.poll_recount());
    assert_eq!(recounts.count(), TALLIES_PER_SESSION_MAX);
    for voting in 0..2 * TALLIES_PER_SESSION_MAX as u128 {
        stage.router.on_tally(&tally(voting, 2), &mut stage.sink);
    }
    stage.router.catch_up(PeerId(1), &mut stage.sink);
    assert_eq!(stage.router.poll_recount(), None);
}

#[test]
fn sessions_that_do_not_exist_do_not_push_out_others() {
    check(
        "join 1 | attach 1 after 5 | leave 1 | strangers 1000 | wait 1 | wait 60",
        expect![[r#"
            join 1
            attach 1 after 5
            leave 1
            strangers 1000
            wait 1: 1 sessions
            wait 60: 0 sessions"#]],
    );
}

struct RouterStage {
    router: Router,
    sink: Mouths,
    asked: Option<Refill>,
    kept: Option<Refill>,
    attempts: u32,
    latest: BTreeMap<PeerId, u32>,
    now: Instant,
    told: Vec<String>,
}

#[derive(Default)]
struct Mouths {
    stalled: BTreeSet<PeerId>,
    said: Vec<String>,
}

impl Sink for Mouths {
    fn offer(&mut self, peer: PeerId, frames: &Frames) -> bool {
        let takes = !self.stalled.contains(&peer);
        if takes {
            self.said
                .push(format!("{} < {}", peer.0, shown(&frames.bytes)));
        }
        takes
    }
}

impl RouterStage {
    fn new() -> Self {
        let mut router = Router::new(64);
        router.resync("e");
        let now = start();
        Self {
            router,
            sink: Mouths::default(),
            asked: None,
            kept: None,
            attempts: 0,
            latest: BTreeMap::new(),
            now,
            told: Vec::new(),
        }
    }

    fn run(&mut self, script: &str) {
        for line in script.split('|').map(str::trim) {
            let before = self.told.len();
            self.step(line);
            self.told.append(&mut self.sink.said);
            while let Some(refill) = self.router.poll_refill() {
                self.told
                    .push(format!("ask after {} ({:?})", refill.after, refill.cause));
                self.asked = Some(refill);
            }
            while let Some(turn) = self.router.poll_turn() {
                assert_eq!(Some(&turn.attempt), self.latest.get(&turn.peer));
                self.told.push(match turn.kind {
                    TurnKind::Behind(position) => format!("{} behind {position}", turn.peer.0),
                    TurnKind::Lost(reason) => format!("{} lost {reason:?}", turn.peer.0),
                    TurnKind::Recheck => format!("{} recheck", turn.peer.0),
                    TurnKind::RecheckLater(_) => format!("{} recheck later", turn.peer.0),
                    TurnKind::OwnVote(..) => format!("{} voted", turn.peer.0),
                });
            }
            while self.router.poll_recount().is_some() {
                self.told.push("recount".to_owned());
            }
            let told = self.told.split_off(before).join(", ");
            self.told.push(if told.is_empty() {
                line.to_owned()
            } else {
                format!("{line}: {told}")
            });
        }
    }

    #[expect(clippy::too_many_lines, reason = "a table: one word after the other")]
    fn step(&mut self, line: &str) {
        let words = Words::parse(line);
        let peer = PeerId(words.number(1).unwrap_or(0));
        let epoch = words.after("in").unwrap_or("e");
        match words.0[0] {
            "ring" => {
                self.router = Router::new(usize::try_from(peer.0).unwrap());
                self.router.resync("e");
            }
            "hint" => self.publish(&words.numbers(), true, "chat.created"),
            "bare" => self.publish(&words.numbers(), false, ""),
            "other" => self.publish(&words.numbers(), true, "chat.deleted"),
            "change" => self.publish(&words.numbers(), true, "session.updated"),
            "page" => {
                let refill = self.asked.take().expect("the log was asked");
                self.router
                    .on_page(&refill, &words.page(epoch), &mut self.sink);
            }
            "keep" => self.kept = self.asked.take(),
            "late" => {
                let refill = self.kept.take().expect("a question was kept");
                self.router
                    .on_page(&refill, &words.page(epoch), &mut self.sink);
            }
            "resync" => self.router.resync(words.0[1]),
            "join" => {
                self.attempts += 1;
                self.latest.insert(peer, self.attempts);
                let user = words.after("user").map(user);
                let cached = self
                    .router
                    .join(SESSION, Receiver::new(peer, self.attempts, user));
                self.told.extend(cached.map(|cached| {
                    let version = cached.snapshot.votings[0].version;
                    format!(
                        "recalls {}..{} version {version}",
                        cached.reach, cached.head
                    )
                }));
            }
            "attach" => self.attach(peer, &words, epoch),
            "stall" => drop(self.sink.stalled.insert(peer)),
            "flow" => {
                self.sink.stalled.remove(&peer);
                self.router.catch_up(peer, &mut self.sink);
            }
            "leave" if words.0[1] == "all" => {
                let left = self
                    .router
                    .leave_all(PeerId(words.number(2).unwrap()), self.now);
                self.told.push(format!("left {}", left.len()));
            }
            "leave" => self.router.leave(SESSION, peer, self.now),
            "strangers" | "guests" => {
                let is_admitted = words.0[0] == "guests";
                self.pass_by(peer.0, is_admitted.then(|| position(5, "e")));
            }
            "wait" => {
                self.now += Duration::from_secs(peer.0);
                self.router.sweep(self.now);
                self.told
                    .push(format!("{} sessions", self.router.sessions().count()));
            }
            "tally" => self.router.on_tally(&tally(0, peer.0), &mut self.sink),
            "hide" => self.router.set_sees_hidden(SESSION, peer, false),
            "viewers" => self
                .router
                .broadcast(SESSION, &Frames::state("viewers"), &mut self.sink),
            "forgeries" => {
                let forgeries = self.router.take_forgeries();
                self.told.push(forgeries.to_string());
            }
            "votings" => self
                .told
                .push(format!("{} known", self.router.votings().count())),
            "vote" => self.router.on_own_vote(&OwnVote {
                user: user(words.0[1]),
                session: SESSION,
                voting: VotingId(Uuid::from_u128(1)),
                movie: None,
            }),
            "access" => {
                let user = (words.0[1] != "all").then(|| user(words.0[1]));
                self.router.on_access_change(AccessChange {
                    session: Some(SESSION),
                    user,
                });
            }
            "user" => self.router.set_user(peer, Some(user(words.0[3]))),
            other => panic!("{other}?"),
        }
    }

    /// Joins and leaves other sessions, one after the other.
    fn pass_by(&mut self, sessions: u64, from: Option<Position>) {
        for number in 0..sessions {
            let session = SessionId(Uuid::from_u128(u128::from(number) + 1_000));
            let peer = PeerId(99);
            self.router.join(session, Receiver::new(peer, 1, None));
            if let Some(from) = &from {
                self.router.attach(session, peer, from, &mut self.sink);
            }
            self.router.leave(session, peer, self.now);
        }
    }

    fn attach(&mut self, peer: PeerId, words: &Words<'_>, epoch: &str) {
        let seq = words.after("after").unwrap().parse().unwrap();
        let from = Position {
            snapshot: words.after("snapshot").map(|head| {
                snapshot(
                    epoch,
                    head.parse().unwrap(),
                    words.after("version").unwrap().parse().unwrap(),
                )
            }),
            sees_hidden: words.0.contains(&"sees"),
            ..position(seq, epoch)
        };
        let attached = self.router.attach(SESSION, peer, &from, &mut self.sink);
        if attached != Attached::Live {
            self.told.push(format!("{attached:?}"));
        }
    }

    fn publish(&mut self, seqs: &[u64], has_event: bool, kind: &str) {
        let notices: Vec<Notice> = seqs
            .iter()
            .map(|seq| Notice {
                session: SESSION,
                seq: Seq(*seq),
                event: has_event.then(|| event(*seq, kind)),
            })
            .collect();
        self.router.publish(notices, &mut self.sink);
    }
}

struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    fn parse(line: &'a str) -> Self {
        Self(line.split_whitespace().collect())
    }

    fn number(&self, place: usize) -> Option<u64> {
        self.0.get(place)?.parse().ok()
    }

    fn numbers(&self) -> Vec<u64> {
        self.0[1..]
            .iter()
            .map_while(|word| word.parse().ok())
            .collect()
    }

    fn after(&self, name: &str) -> Option<&'a str> {
        let place = self.0.iter().position(|word| *word == name)?;
        self.0.get(place + 1).copied()
    }

    fn page(&self, epoch: &str) -> LogPage {
        let kind = if self.0.contains(&"voting") {
            "voting.updated"
        } else {
            "chat.created"
        };
        LogPage {
            epoch: epoch.to_owned(),
            head: Seq(self.after("head").unwrap().parse().unwrap()),
            floor: Seq(self.after("floor").unwrap_or("0").parse().unwrap()),
            events: self
                .numbers()
                .into_iter()
                .map(|seq| event(seq, kind))
                .collect(),
        }
    }
}

fn event(seq: u64, kind: &str) -> Event {
    let id = Uuid::from_u128(0);
    let json = format!(r#"{{"seq":{seq},"type":"{kind}","data":{{"id":"{id}"}}}}"#);
    Event::new(Seq(seq), &json)
}

const LONG_EVENT_BYTES_MIN: usize = 7_000;

fn long_events(count: u64) -> impl Iterator<Item = Notice> {
    let pad = "x".repeat(LONG_EVENT_BYTES_MIN);
    (1..=count).map(move |seq| {
        let json = format!(r#"{{"seq":{seq},"type":"chat.created","pad":"{pad}"}}"#);
        Notice {
            session: SESSION,
            seq: Seq(seq),
            event: Some(Event::new(Seq(seq), &json)),
        }
    })
}

fn position(seq: u64, epoch: &str) -> Position {
    Position {
        seq: Seq(seq),
        epoch: epoch.into(),
        snapshot: None,
        sees_hidden: false,
    }
}

fn snapshot(epoch: &str, head: u64, version: u64) -> Arc<Snapshot> {
    let json = format!(
        r#"{{"epoch":"{epoch}","head":{head},"floor":0,"info":{{}},"votings":[{{"voting":"{}","status":"open","version":{version},
        "total":0,"counts":[],"closes_at":null,"question":"?","results_visibility":"live","allow_change":true,"options":[]}}]}}"#,
        Uuid::from_u128(0)
    );
    Arc::new(serde_json::from_str(&json).unwrap())
}

fn tally(voting: u128, version: u64) -> Tally {
    let frame = |counts| {
        format!(
            r#"{{"type":"tally","session":"{SESSION}","voting":"{}","status":"open","version":{version},"total":0,"counts":{counts}}}"#,
            Uuid::from_u128(voting)
        )
    };
    Tally::parse("e", &frame("[]"), Some(&frame("null"))).unwrap()
}

fn user(number: &str) -> UserId {
    UserId(Uuid::from_u128(number.parse().unwrap()))
}

/// Shows the numbers of the events in frames, or the version of a tally.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let fields: BTreeMap<&str, Vec<&str>> = ["\"seq\":", "\"version\":"]
        .into_iter()
        .map(|name| {
            (
                name,
                text.split(name)
                    .skip(1)
                    .map(|rest| rest.split([',', '}']).next().unwrap())
                    .collect(),
            )
        })
        .collect();
    match (&fields["\"seq\":"][..], &fields["\"version\":"][..]) {
        ([], []) => "viewers".to_owned(),
        ([], versions) => {
            let hidden = if text.contains("\"counts\":null") {
                " hidden"
            } else {
                ""
            };
            format!("tally {}{hidden}", versions.join(" "))
        }
        (seqs, _) => seqs.join(" "),
    }
}

fn check(script: &str, expected: Expect) {
    let mut stage = RouterStage::new();
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
