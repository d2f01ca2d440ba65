//! Hands out messages at their due times, from a dedicated thread.
//!
//! The thread sleeps to within a tenth of a millisecond. The runtime's timers have a resolution of a millisecond, and
//! are late when the runtime is busy. A due message that its writer cannot take is counted as unsent.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::interval::Times;
use crate::limits::{SLEEP_MAX, SLEEP_MIN};
use crate::schedule::Pace;

/// A message with its number and due time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) number: u64,
    pub(crate) at_us: u64,
}

/// The counts of a pacer.
#[derive(Debug, Default)]
pub(crate) struct Paced {
    /// Messages that were due.
    pub(crate) due: u64,
    /// Messages that a writer took.
    pub(crate) dealt: u64,
    /// How late each message was handed out.
    pub(crate) lateness: Times,
}

/// Starts a thread that hands out messages to the outlets in turn, until all were due.
pub(crate) fn start(
    pace: Pace,
    outlets: Vec<mpsc::Sender<Due>>,
    clock: Clock,
    stop: CancellationToken,
) -> io::Result<JoinHandle<Paced>> {
    thread::Builder::new()
        .name("load-pacer".to_owned())
        .spawn(move || run(pace, &outlets, clock, &stop))
}

fn run(pace: Pace, outlets: &[mpsc::Sender<Due>], clock: Clock, stop: &CancellationToken) -> Paced {
    let mut paced = Paced::default();
    for index in 0..pace.count {
        let at_us = pace.due_us(index);
        let mut now_us = clock.now_us();
        while now_us < at_us {
            if stop.is_cancelled() {
                return paced;
            }
            let wait = Duration::from_micros(at_us - now_us);
            thread::sleep(wait.clamp(SLEEP_MIN, SLEEP_MAX));
            now_us = clock.now_us();
        }
        if stop.is_cancelled() {
            return paced;
        }
        let number = pace.first + index;
        let place = usize::try_from(number).unwrap_or_default() % outlets.len();
        paced.due += 1;
        paced.lateness.record(now_us - at_us);
        // A writer that is that far behind misses this message, which stays due and unsent.
        let is_taken = outlets[place].try_send(Due { number, at_us }).is_ok();
        paced.dealt += u64::from(is_taken);
    }
    paced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_handed_out_in_turn_with_their_due_times() {
        let (first, mut first_dues) = mpsc::channel(8);
        let (second, mut second_dues) = mpsc::channel(8);
        let pace = Pace::lasting(0, 1_000.0, 0.006, 10);
        let clock = Clock::start();
        let paced = run(pace, &[first, second], clock, &CancellationToken::new());
        assert_eq!((paced.due, paced.lateness.count()), (6, 6));
        let mut taken = Vec::new();
        for dues in [&mut first_dues, &mut second_dues] {
            while let Ok(due) = dues.try_recv() {
                taken.push((due.number, due.at_us));
            }
        }
        assert_eq!(
            taken,
            [
                (10, 0),
                (12, 2_000),
                (14, 4_000),
                (11, 1_000),
                (13, 3_000),
                (15, 5_000)
            ]
        );
    }

    #[test]
    fn a_full_writer_does_not_delay_the_others() {
        let (full, _dues) = mpsc::channel(1);
        let pace = Pace::lasting(0, 1e6, 0.000_1, 0);
        let paced = run(pace, &[full], Clock::start(), &CancellationToken::new());
        assert_eq!((paced.due, paced.dealt), (100, 1));
    }

    #[test]
    fn a_cancelled_pacer_stops() {
        let (outlet, _dues) = mpsc::channel(1);
        let stop = CancellationToken::new();
        stop.cancel();
        let pace = Pace::lasting(3_600_000_000, 1.0, 10.0, 0);
        assert_eq!(run(pace, &[outlet], Clock::start(), &stop).due, 0);
    }
}
