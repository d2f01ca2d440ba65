//! The outlines of the frames that a client sends (RFC 6455 §5.2): where each begins and ends, not what it holds.
//!
//! Looks at bytes as they come, however they are cut, before a message is put together from them. Refuses what the library
//! that does so lets pass: a length that is not written in the shortest form, or has its highest bit set, and a message
//! in more pieces than any client needs.

use crate::limits::FRAGMENTS_MAX;
use crate::protocol::refusal::CloseCode;

const FINAL: u8 = 0x80;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;
/// The two bytes that every header has, eight of a length and four of a mask.
const HEADER_BYTES_MAX: usize = 14;

/// Where in the stream of frames a client is.
#[derive(Debug, Default)]
pub struct Framing {
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    payload_left: u64,
    fragments: u32,
    breach: Option<CloseCode>,
}

impl Framing {
    /// Passes over the next bytes; says how many may be read. Fewer than there are: [`Self::breach`] says why.
    pub fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while passed < bytes.len() && self.breach.is_none() {
            let left = bytes.len() - passed;
            if self.payload_left > 0 {
                let skipped = usize::try_from(self.payload_left).map_or(left, |all| all.min(left));
                self.payload_left -= skipped as u64;
                passed += skipped;
                continue;
            }
            self.header[self.header_bytes] = bytes[passed];
            self.header_bytes += 1;
            if self.header_bytes == self.header_length() {
                self.breach = self.on_header().err();
            }
            if self.breach.is_none() {
                passed += 1;
            }
        }
        passed
    }

    /// With which code the client must be closed, once something was refused. Nothing more may be read then.
    #[must_use]
    pub fn breach(&self) -> Option<CloseCode> {
        self.breach
    }

    /// How long the header is, as far as its first bytes tell.
    fn header_length(&self) -> usize {
        let second = self.header[1];
        if self.header_bytes < 2 {
            return 2;
        }
        let mask = if second & MASKED == 0 { 0 } else { 4 };
        2 + mask + self.length_bytes()
    }

    fn length_bytes(&self) -> usize {
        match self.header[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn on_header(&mut self) -> Result<(), CloseCode> {
        let extended = &self.header[2..2 + self.length_bytes()];
        let length = match extended {
            [] => u64::from(self.header[1] & !MASKED),
            bytes => bytes
                .iter()
                .fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let shortest = match length {
            0..=125 => 0,
            126..=0xffff => 2,
            _ => 8,
        };
        if extended.len() != shortest || length > i64::MAX as u64 {
            return Err(CloseCode::ProtocolError);
        }
        let first = self.header[0];
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
        self.header_bytes = 0;
        self.payload_left = length;
        Ok(())
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
    fn a_message_has_so_many_pieces_and_control_frames_are_none() {
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
        fn it_does_not_matter_how_bytes_are_cut(bytes: Vec<u8>, cuts in prop::collection::vec(1usize..9, 1..9)) {
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
