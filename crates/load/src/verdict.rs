//! Judges a run, names the resource at its limit, and explains refusals.

use crate::limits::{GENERATOR_BUSY_HIGH, GENERATOR_BUSY_MAX, LATENESS_MS_MAX, MACHINE_BUSY_MAX};
use crate::outcome::{Class, Outcome, Resources, Verdict};

/// The name of the generator as the resource at its limit.
pub(crate) const GENERATOR: &str = "the generator's CPU";

/// Judges a run by its figures.
pub(crate) fn judge(outcome: &Outcome) -> Verdict {
    let mut verdict = Verdict::default();
    let audit = &outcome.audit;
    if !audit.is_clean() {
        verdict.class = Class::Broken;
        verdict.reasons.push(format!(
            "{} lost, {} doubled, {} gaps, {} out of order: the gateway did not keep its promise for these viewers",
            audit.lost, audit.duplicates, audit.gaps, audit.order_errors
        ));
    }
    if outcome.absent > 0 {
        verdict.class = Class::Broken;
        verdict.reasons.push(format!(
            "{} of {} viewers were not watching at the end",
            outcome.absent, outcome.run.viewers
        ));
    }
    // A search continues until a resource is exhausted. It is void if that was the generator.
    let saturated = match &outcome.search {
        None => saturation(&outcome.resources),
        Some(search) if search.limited_by.starts_with(GENERATOR) => vec![format!(
            "the search ended at {}: the gateway's limit is higher",
            search.limited_by
        )],
        Some(_) => Vec::new(),
    };
    if !saturated.is_empty() && verdict.class == Class::Sound {
        verdict.class = Class::Void;
    }
    verdict.reasons.extend(saturated);
    verdict.remarks = remarks(outcome);
    verdict
}

/// Returns the reasons why the figures are the generator's own.
fn saturation(resources: &Resources) -> Vec<String> {
    let mut reasons = Vec::new();
    if resources.generator_busy > GENERATOR_BUSY_MAX {
        reasons.push(format!(
            "the generator was saturated: its busiest thread worked {:.0} % of the time, {:.0} % is allowed; \
             use more --threads, or another machine",
            resources.generator_busy * 100.0,
            GENERATOR_BUSY_MAX * 100.0
        ));
    }
    if let Some(lateness) = resources.generator_lateness
        && lateness.p99_ms > LATENESS_MS_MAX
    {
        reasons.push(format!(
            "the generator was late: one message in a hundred was sent {:.0} ms late or later, \
             {LATENESS_MS_MAX:.0} ms are allowed; another process uses its cores",
            lateness.p99_ms
        ));
    }
    reasons
}

fn remarks(outcome: &Outcome) -> Vec<String> {
    let mut remarks = Vec::new();
    let resources = &outcome.resources;
    let busy = resources.generator_busy;
    if (GENERATOR_BUSY_HIGH..=GENERATOR_BUSY_MAX).contains(&busy) && outcome.search.is_none() {
        remarks.push(format!(
            "the generator's busiest thread worked {:.0} % of the time: its own delays may be part of the high percentiles",
            busy * 100.0
        ));
    }
    for (what, writes) in [("messages", &outcome.messages), ("votes", &outcome.votes)] {
        for (code, count) in &writes.refused {
            remarks.push(format!(
                "{count} {what} were refused as {code}: {}",
                on_refusal(code)
            ));
        }
        let unsent = writes.due.saturating_sub(writes.sent);
        if unsent > 0 {
            remarks.push(format!(
                "{unsent} {what} were due and never sent: their writers could not keep up"
            ));
        }
        if writes.unanswered() > 0 {
            remarks.push(format!(
                "{} {what} had no answer when the run ended",
                writes.unanswered()
            ));
        }
    }
    for (reason, count) in &outcome.failures {
        remarks.push(format!("{count} attempts to connect failed: {reason}"));
    }
    for (code, count) in &outcome.closes {
        remarks.push(format!(
            "{count} sockets ended early: {code}{}",
            on_close(code)
        ));
    }
    if outcome.audit.restarts > 0 {
        remarks.push(format!(
            "{} times the gateway told a viewer to start over, and {} events were skipped; the viewer knows about these, \
             so they do not count as lost",
            outcome.audit.restarts, outcome.audit.skipped
        ));
    }
    remarks
}

/// Returns the resource that was at its limit.
pub(crate) fn limit(resources: &Resources, gateway_cores_max: usize) -> String {
    if resources.generator_busy > GENERATOR_BUSY_MAX {
        return GENERATOR.to_owned();
    }
    if let Some(cores) = resources.gateway_cores
        && cores > gateway_cores_max as f64 * 0.9
    {
        return "the gateway's CPU".to_owned();
    }
    if let Some(busy) = resources.machine_busy
        && busy > MACHINE_BUSY_MAX
    {
        let gateway = resources.gateway_cores.map_or_else(
            || "the gateway and others the rest".to_owned(),
            |cores| format!("the gateway {cores:.2}, others (Postgres among them) the rest"),
        );
        return format!(
            "the machine's CPU: the generator used {:.2} cores, {gateway}",
            resources.generator_cores
        );
    }
    "nothing: there was spare capacity".to_owned()
}

/// Returns advice on a refusal.
pub(crate) fn on_refusal(code: &str) -> &'static str {
    match code {
        "rate_limited" => {
            "the gateway limits the messages and votes of a user and of a session; use more users (--chatters, \
             --voters), or raise USHER_LIMIT_MESSAGES, USHER_LIMIT_VOTES and USHER_LIMIT_SESSION_WRITES"
        }
        "slow_mode" => {
            "the session is in slow mode: set slow_mode_seconds to 0, or use more --chatters"
        }
        "banned" => "the user is banned in this session: use other users",
        "forbidden" => {
            "the user may watch but not write: check that chat is enabled and the user is a member"
        }
        "unauthorized" => {
            "the socket has no user: give tokens with --tokens, --jwt-secret or --dev"
        }
        "session_ended" => "the session has ended: use a session whose status is live",
        "voting_closed" => "the poll is not open",
        "not_found" => "there is no such session for this user",
        "conflict" => "the poll does not allow changed votes: each voter can vote only once",
        "too_large" | "bad_request" => "the message is not valid: check --size",
        "busy" => "an open transaction in the database locks the session or the poll: see pg_locks",
        "unavailable" => "the gateway's database is too slow or cannot be reached",
        "internal" => "the gateway failed: see its log",
        _ => "see the gateway's documentation",
    }
}

/// Returns advice on a handshake response other than 101.
pub(crate) fn on_status(status: u16) -> &'static str {
    match status {
        401 => "the token is not valid for this gateway: check its expiry and its secret",
        403 => {
            "the gateway does not allow this origin: check USHER_ALLOWED_ORIGINS, and proxies that add an origin"
        }
        404 => "the path does not exist: an Usher's path is /v1/socket",
        429 => {
            "the gateway limits the sockets and handshakes of an address: raise USHER_LIMIT_ADDRESS_CONNECTIONS and \
             USHER_LIMIT_REQUESTS, lower --ramp, or give every viewer its own address with --forwarded"
        }
        503 => {
            "the gateway is full or stopping: USHER_MAX_CONNECTIONS and its limit of open files bound its sockets"
        }
        502 | 504 => "the proxy cannot reach the gateway",
        200 | 426 => {
            "the server speaks HTTP but not WebSocket on this path: an Usher's path is /v1/socket"
        }
        _ => "unexpected response; is this an Usher server?",
    }
}

fn on_close(code: &str) -> &'static str {
    match code {
        "1006" => " (the connection broke without a close frame)",
        "1012" => " (the gateway restarted)",
        "4001" => " (the token expired: use tokens with a longer lifetime)",
        "4008" => " (too slow to keep up)",
        "4009" => " (missed heartbeat: the generator was too busy to answer)",
        "4029" => " (kept exceeding limits)",
        "4501" => {
            " (the gateway requires a token, because its USHER_ALLOW_ANONYMOUS is false: use --signed-in)"
        }
        "4503" => " (banned, or access withdrawn)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::outcome;
    use crate::interval::Counts;
    use usher_core::protocol::refusal::RefusalCode;

    #[test]
    fn a_good_run_is_sound() {
        let verdict = judge(&outcome());
        assert_eq!((verdict.class, verdict.reasons), (Class::Sound, vec![]));
        assert_eq!(verdict.class.exit_status(), 0);
    }

    #[test]
    fn a_saturated_or_late_generator_voids_the_run() {
        let mut saturated = outcome();
        saturated.resources.generator_busy = 0.86;
        let mut late = outcome();
        late.resources.generator_lateness.as_mut().unwrap().p99_ms = 26.0;
        for (run, word) in [(saturated, "saturated"), (late, "late")] {
            let verdict = judge(&run);
            assert_eq!(
                (verdict.class, verdict.class.exit_status()),
                (Class::Void, 3)
            );
            assert!(verdict.reasons[0].contains(word), "{:?}", verdict.reasons);
        }
    }

    #[test]
    fn a_search_that_the_generator_ended_is_void() {
        let mut run = crate::fixtures::outcome_with_everything();
        run.resources.generator_busy = 1.0;
        assert_eq!(judge(&run).class, Class::Sound);
        run.search.as_mut().unwrap().limited_by = format!("{GENERATOR}; p99 was 900 ms");
        assert_eq!(judge(&run).class, Class::Void);
    }

    #[test]
    fn a_lost_event_or_a_missing_viewer_is_broken_even_if_void() {
        for breakage in [
            |run: &mut Outcome| run.audit.lost = 1,
            |run: &mut Outcome| run.audit.duplicates = 1,
            |run: &mut Outcome| run.audit.gaps = 1,
            |run: &mut Outcome| run.audit.order_errors = 1,
            |run: &mut Outcome| run.absent = 1,
        ] {
            let mut run = outcome();
            run.resources.generator_busy = 1.0;
            breakage(&mut run);
            let verdict = judge(&run);
            assert_eq!(
                (verdict.class, verdict.class.exit_status()),
                (Class::Broken, 4)
            );
            assert_eq!(verdict.reasons.len(), 2);
        }
    }

    #[test]
    fn skipped_events_are_a_remark_and_the_run_is_sound() {
        let mut run = outcome();
        (run.audit.restarts, run.audit.skipped) = (3, 700);
        let verdict = judge(&run);
        assert_eq!(verdict.class, Class::Sound);
        assert!(
            verdict
                .remarks
                .iter()
                .any(|remark| remark.contains("700 events were skipped"))
        );
    }

    #[test]
    fn every_refusal_is_explained() {
        let fallback = on_refusal("a code of the future");
        for code in RefusalCode::ALL {
            assert_ne!(on_refusal(code.as_str()), fallback, "{}", code.as_str());
        }
        let mut run = outcome();
        run.messages.refused = Counts::from([("rate_limited".into(), 12)]);
        let remarks = judge(&run).remarks;
        assert!(
            remarks[0].contains("12 messages were refused as rate_limited"),
            "{remarks:?}"
        );
        assert!(remarks[0].contains("USHER_LIMIT_MESSAGES"), "{remarks:?}");
    }

    #[test]
    fn the_resource_at_its_limit_is_named() {
        let idle = outcome().resources;
        assert!(limit(&idle, 2).starts_with("nothing"));
        let busy = Resources {
            machine_busy: Some(0.97),
            ..idle.clone()
        };
        assert!(limit(&busy, 2).starts_with("the machine's CPU"));
        let gateway = Resources {
            gateway_cores: Some(1.9),
            ..busy.clone()
        };
        assert_eq!(limit(&gateway, 2), "the gateway's CPU");
        let generator = Resources {
            generator_busy: 0.9,
            ..gateway
        };
        assert_eq!(limit(&generator, 2), "the generator's CPU");
    }
}
