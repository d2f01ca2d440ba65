//! What a run is worth, what was at its limit, and what a refusal means.

use serde::Serialize;

use crate::outcome::{Outcome, Resources};

/// The generator's busiest thread may work this share of its time; above it, its own delays are in the figures.
pub(crate) const GENERATOR_BUSY_MAX: f64 = 0.85;

/// From here on it is worth a word.
const GENERATOR_BUSY_HIGH: f64 = 0.7;

/// How late one message in a hundred may leave against its schedule.
pub(crate) const LATENESS_MS_MAX: f64 = 25.0;

/// Cores count as used up from this share on; a scheduler leaves some idle.
const MACHINE_BUSY_MAX: f64 = 0.93;

/// How the generator is called where it is what was at its limit.
pub(crate) const GENERATOR: &str = "the generator's CPU";

/// What a run is worth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Its class.
    pub class: Class,
    /// Why it is void or broken.
    pub(crate) reasons: Vec<String>,
    /// What else a reader must know.
    pub(crate) remarks: Vec<String>,
}

/// Classes of runs, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The figures are the gateway's, and the promise was kept.
    #[default]
    Sound,
    /// The figures are the generator's: it was at its own limit.
    Void,
    /// Something was lost, doubled or out of order.
    Broken,
}

impl Class {
    /// The status that the process ends with.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Sound => 0,
            Self::Void => 3,
            Self::Broken => 4,
        }
    }

    /// Its name.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Void => "void",
            Self::Broken => "broken",
        }
    }
}

/// Judges a run by everything else that is in it.
pub(crate) fn judge(outcome: &Outcome) -> Verdict {
    let mut verdict = Verdict::default();
    let audit = &outcome.audit;
    if !audit.is_clean() {
        verdict.class = Class::Broken;
        verdict.reasons.push(format!(
            "{} lost, {} doubled, {} gaps, {} out of order: the promise of the log was not kept for these viewers",
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
    // A search goes on until something gives; it is void where that was the generator.
    let saturated = match &outcome.search {
        None => saturation(&outcome.resources),
        Some(search) if search.limited_by.starts_with(GENERATOR) => vec![format!(
            "what ended the search was {}: the gateway's limit lies higher",
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

/// Why the figures are the generator's own.
fn saturation(resources: &Resources) -> Vec<String> {
    let mut reasons = Vec::new();
    if resources.generator_busy > GENERATOR_BUSY_MAX {
        reasons.push(format!(
            "the generator was saturated: its busiest thread worked {:.0} % of the time, {:.0} % is allowed; \
             give it more --threads, or a machine of its own",
            resources.generator_busy * 100.0,
            GENERATOR_BUSY_MAX * 100.0
        ));
    }
    if let Some(lateness) = resources.generator_lateness
        && lateness.p99_ms > LATENESS_MS_MAX
    {
        reasons.push(format!(
            "the generator was late: one message in a hundred left {:.0} ms after its time or later, \
             {LATENESS_MS_MAX:.0} ms are allowed; something else uses its cores",
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
            "the generator's busiest thread worked {:.0} % of the time: the high percentiles may be partly its own",
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
                "{unsent} {what} were due and never left: their writers could not keep up"
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
            "{} times a viewer was told that it could not be caught up, and {} events were skipped so; that is not \
             silent, and not counted as lost",
            outcome.audit.restarts, outcome.audit.skipped
        ));
    }
    remarks
}

/// What was at its limit.
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
            "the machine's CPU: of its cores the generator used {:.2}, {gateway}",
            resources.generator_cores
        );
    }
    "nothing: there was room to spare".to_owned()
}

/// What to do about a refusal.
pub(crate) fn on_refusal(code: &str) -> &'static str {
    match code {
        "rate_limited" => {
            "the gateway limits the messages and votes of a user and of a session; use more users (--chatters, \
             --voters), or raise USHER_LIMIT_MESSAGES, USHER_LIMIT_VOTES and USHER_LIMIT_SESSION_WRITES"
        }
        "slow_mode" => {
            "the session asks its writers to wait: set slow_mode_seconds to 0, or use more --chatters"
        }
        "banned" => "the user is banned there: use others",
        "forbidden" => "the user may watch, but not write: is chat enabled, and is it a member?",
        "unauthorized" => {
            "the socket has no user: give tokens with --tokens, --jwt-secret or --dev"
        }
        "session_ended" => "the session is over: use one whose status is live",
        "voting_closed" => "the voting is not open",
        "not_found" => "there is no such session for this user",
        "conflict" => {
            "the voting does not allow a vote to be changed: one vote for each voter is all there is"
        }
        "too_large" | "bad_request" => "the message is not one: look at --size",
        "busy" => {
            "an open transaction in the database locks the session or the poll: look at pg_locks"
        }
        "unavailable" => "the gateway cannot keep up with its database, or has lost it",
        "internal" => "the gateway has failed: its log says more",
        _ => "the gateway's documentation says what it means",
    }
}

/// What to do about an answer other than 101 to the handshake.
pub(crate) fn on_status(status: u16) -> &'static str {
    match status {
        401 => "the token is not valid there: is it expired, or made with another secret?",
        403 => {
            "the gateway does not allow this origin: a proxy adds one, or USHER_ALLOWED_ORIGINS is strict"
        }
        404 => "nothing is there: the path of an Usher is /v1/socket",
        429 => {
            "the gateway limits the sockets and handshakes of an address: raise USHER_LIMIT_ADDRESS_CONNECTIONS and \
             USHER_LIMIT_REQUESTS, lower --ramp, or let every viewer have an address of its own with --forwarded"
        }
        503 => {
            "the gateway is full or stopping: USHER_MAX_CONNECTIONS and its file limit bound its sockets"
        }
        502 | 504 => "the proxy does not reach the gateway",
        200 | 426 => {
            "what answers speaks HTTP, but not WebSocket here: the path of an Usher is /v1/socket"
        }
        _ => "an Usher does not answer so: is it one?",
    }
}

fn on_close(code: &str) -> &'static str {
    match code {
        "1006" => " (the connection broke without a close frame)",
        "1012" => " (the gateway restarted)",
        "4001" => " (the token expired: use longer ones)",
        "4008" => " (too slow to keep up)",
        "4009" => " (a heartbeat was missed: the generator was too busy to answer)",
        "4029" => " (kept exceeding limits)",
        "4501" => {
            " (a token is required: USHER_ALLOW_ANONYMOUS is false there, so use --signed-in)"
        }
        "4503" => " (banned, or access withdrawn)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::outcome;
    use crate::interval::Tally;
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
    fn anything_lost_or_anybody_absent_is_broken_even_when_void() {
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
    fn what_was_skipped_is_told_and_no_breach() {
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
        run.messages.refused = Tally::from([("rate_limited".into(), 12)]);
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
