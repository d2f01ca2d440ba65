//! The message that every server carries: 200 bytes of text that begin with a number and the due time.
//!
//! Both have a fixed width. A reader that knows the position of the first message in a frame finds the others with a
//! fixed step, and searches only if that fails. At millions of deliveries per second, the generator has no time for
//! more.

use memchr::memmem::Finder;

/// Beginning of a message. No server's own text contains it.
const MARK: &[u8] = b"~due ";
const DUE_DIGITS: usize = 11;
const NUMBER_DIGITS: usize = 8;
const STAMP_BYTES: usize = MARK.len() + DUE_DIGITS + 1 + NUMBER_DIGITS;

/// Number and due time of a message that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) number: u64,
    pub(crate) due_us: u64,
}

/// Builds the text of a message.
pub(crate) fn message(stamp: Stamp, bytes: usize) -> String {
    let mut text = format!("~due {:011} {:08} ", stamp.due_us, stamp.number);
    while text.len() < bytes {
        text.push_str("and so the reel turns, ");
    }
    text.truncate(bytes);
    // Postgres and HTTP may trim a trailing space.
    if text.ends_with(' ') {
        text.pop();
        text.push('.');
    }
    text
}

/// Finds the messages in a frame.
#[derive(Debug)]
pub(crate) struct Marks {
    finder: Finder<'static>,
    message_bytes: usize,
    /// Offset of the first message in the last frame.
    first: usize,
    /// Distance between the last two messages.
    step: usize,
}

impl Marks {
    pub(crate) fn new(message_bytes: usize) -> Self {
        Self {
            finder: Finder::new(MARK),
            message_bytes,
            first: 0,
            step: message_bytes,
        }
    }

    /// Calls `on_message` for each message of a frame, in order.
    pub(crate) fn read(&mut self, frame: &[u8], mut on_message: impl FnMut(Stamp)) {
        let Some(mut at) = self.find(frame, 0, self.first) else {
            return;
        };
        self.first = at;
        loop {
            on_message(stamp(&frame[at..]));
            match self.find(frame, at + self.message_bytes, at + self.step) {
                Some(next) => {
                    self.step = next - at;
                    at = next;
                }
                None => return,
            }
        }
    }

    /// Returns the offset of the next mark at or after `from`. Tries `guess` first.
    fn find(&self, frame: &[u8], from: usize, guess: usize) -> Option<usize> {
        let last = frame.len().checked_sub(self.message_bytes)?;
        if guess <= last && guess >= from && frame[guess..].starts_with(MARK) {
            return Some(guess);
        }
        let at = from + self.finder.find(frame.get(from..)?)?;
        (at <= last).then_some(at)
    }
}

fn stamp(message: &[u8]) -> Stamp {
    let due = &message[MARK.len()..][..DUE_DIGITS];
    let number = &message[STAMP_BYTES - NUMBER_DIGITS..][..NUMBER_DIGITS];
    Stamp {
        number: digits(number),
        due_us: digits(due),
    }
}

fn digits(text: &[u8]) -> u64 {
    text.iter()
        .fold(0, |number, digit| number * 10 + u64::from(digit & 0x0f))
}
