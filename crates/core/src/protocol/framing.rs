//! Finds the frames in a client's byte stream (RFC 6455 §5.2): their headers and lengths, not their contents.
//!
//! Runs before the WebSocket library assembles messages, and accepts bytes in pieces of any size. Refuses input that
//! the library accepts: a length that is not in its shortest form or has its highest bit set, and a message with more
//! than [`FRAGMENTS_MAX`] fragments.

use crate::limits::FRAGMENTS_MAX;
use crate::protocol::refusal::CloseCode;
use crate::protocol::websocket::{CONTROL, FINAL, Header};

/// The position in a client's stream of frames.
#[derive(Debug, Default)]
pub struct Framing {
    header: Header,
    payload_left: u64,
    fragments: u32,
    breach: Option<CloseCode>,
}

/// The kind of the next bytes.
#[derive(Clone, Copy, Debug)]
pub enum FramePart {
    /// The number of bytes, which belong to an incomplete header.
    Begun(usize),
    /// The number of bytes, which complete this header.
    Header(usize, Header),
    /// The number of bytes of a payload.
    Payload(usize),
}

impl Framing {
    /// Checks the next bytes and returns how many of them may be read. If these are not all, [`Self::breach`]
    /// has the reason.
    pub fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while let Some(part) = self.next(&bytes[passed..]) {
            passed += match part {
                FramePart::Begun(count)
                | FramePart::Header(count, _)
                | FramePart::Payload(count) => count,
            };
        }
        passed
    }

    /// Returns the kind of the next bytes; `None` without bytes, or after a breach. If a header must be refused, its
    /// last byte belongs to no part.
    pub fn next(&mut self, bytes: &[u8]) -> Option<FramePart> {
        if bytes.is_empty() || self.breach.is_some() {
            return None;
        }
        if self.payload_left > 0 {
            let count =
                usize::try_from(self.payload_left).map_or(bytes.len(), |all| all.min(bytes.len()));
            self.payload_left -= count as u64;
            return Some(FramePart::Payload(count));
        }
        for (at, byte) in bytes.iter().enumerate() {
            if self.header.push(*byte) {
                return match self.on_header() {
                    Ok(header) => Some(FramePart::Header(at + 1, header)),
                    Err(breach) => {
                        self.breach = Some(breach);
                        (at > 0).then_some(FramePart::Begun(at))
                    }
                };
            }
        }
        Some(FramePart::Begun(bytes.len()))
    }

    /// Whether the bytes so far end with a whole frame.
    #[must_use]
    pub(crate) fn is_between_frames(&self) -> bool {
        self.payload_left == 0 && self.header.bytes().is_empty()
    }

    /// Returns the code to close the client with, once input was refused. No further bytes may be read then.
    #[must_use]
    pub fn breach(&self) -> Option<CloseCode> {
        self.breach
    }

    fn on_header(&mut self) -> Result<Header, CloseCode> {
        let header = std::mem::take(&mut self.header);
        if !header.is_length_valid() {
            return Err(CloseCode::ProtocolError);
        }
        let first = header.first();
        if first & CONTROL == 0 {
            self.fragments = if first & FINAL == 0 {
                self.fragments + 1
            } else {
                0
            };
        }
        if self.fragments > FRAGMENTS_MAX {
            return Err(CloseCode::TooBig);
        }
        self.payload_left = header.payload_bytes();
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_must_have_their_shortest_form() {
        for (header, good) in [
            (&[0x81, 0x80 | 125][..], true),
            (&[0x81, 0xfe, 0, 126], true),
            (&[0x81, 0xfe, 0, 125], false),
            (&[0x81, 0xfe, 0, 0], false),
            (&[0x81, 0xfe, 0xff, 0xff], true),
            (&[0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0], true),
            (&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], false),
            (
                &[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                true,
            ),
            (&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], false),
        ] {
            let bytes = [header, &[1, 2, 3, 4]].concat();
            let mut framing = Framing::default();
            let passed = framing.pass(&bytes);
            assert_eq!(passed == bytes.len(), good, "{header:x?}");
            let breach = (!good).then_some(CloseCode::ProtocolError);
            assert_eq!(framing.breach(), breach, "{header:x?}");
        }
    }

    #[test]
    fn the_fragments_of_a_message_are_bounded_and_control_frames_do_not_count() {
        let mut framing = Framing::default();
        let (piece, last, ping) = (
            [0x00, 0x80, 0, 0, 0, 0],
            [0x80, 0x80, 0, 0, 0, 0],
            [0x89, 0],
        );
        for _ in 0..3 {
            for _ in 0..FRAGMENTS_MAX {
                assert_eq!(framing.pass(&piece), 6);
                assert_eq!(framing.pass(&ping), 2);
            }
            assert_eq!(framing.pass(&last), 6);
        }
        for _ in 0..FRAGMENTS_MAX {
            framing.pass(&piece);
        }
        assert!(framing.pass(&piece) < 6);
        assert_eq!(framing.breach(), Some(CloseCode::TooBig));
        assert_eq!(framing.pass(&ping), 0, "after a breach nothing is read");
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_how_bytes_are_cut(bytes: Vec<u8>, cuts in prop::collection::vec(1usize..9, 1..9)) {
            let mut whole = Framing::default();
            let expected = (whole.pass(&bytes), whole.breach());
            let mut cut = Framing::default();
            let (mut rest, mut passed) = (&bytes[..], 0);
            for length in cuts.iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(*length));
                passed += cut.pass(now);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!((passed, cut.breach()), expected);
        }
    }
}
