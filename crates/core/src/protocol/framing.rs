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
    header: Header,
    payload_left: u64,
    fragments: u32,
    breach: Option<CloseCode>,
}

/// The header of one frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Header {
    bytes: [u8; HEADER_BYTES_MAX],
    count: usize,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// So many of a header that is not whole yet.
    Begun(usize),
    /// So many, which complete this header.
    Header(usize, Header),
    /// So many of a payload.
    Payload(usize),
}

impl Header {
    /// Its bytes as they came.
    #[must_use]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.count]
    }

    /// The final bit, the reserved bits and the opcode.
    #[must_use]
    pub fn first(&self) -> u8 {
        self.bytes[0]
    }

    /// With what the payload is masked, if it is.
    #[must_use]
    pub(crate) fn mask(&self) -> Option<[u8; 4]> {
        let is_masked = self.bytes[1] & MASKED != 0;
        let key = self.bytes().last_chunk::<4>()?;
        is_masked.then_some(*key)
    }

    /// Bytes of the payload.
    #[must_use]
    pub(crate) fn payload_bytes(&self) -> u64 {
        match self.extended() {
            [] => u64::from(self.bytes[1] & !MASKED),
            bytes => bytes
                .iter()
                .fold(0, |length, byte| length << 8 | u64::from(*byte)),
        }
    }

    /// The bytes of a length that its first byte has no room for.
    fn extended(&self) -> &[u8] {
        let count = match self.bytes[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        &self.bytes[2..2 + count]
    }

    /// How long it is, as far as its first bytes tell.
    fn length(&self) -> usize {
        if self.count < 2 {
            return 2;
        }
        let mask = if self.bytes[1] & MASKED == 0 { 0 } else { 4 };
        2 + mask + self.extended().len()
    }
}

impl Framing {
    /// Passes over the next bytes; says how many may be read. Fewer than there are: [`Self::breach`] says why.
    pub fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while let Some(part) = self.next(&bytes[passed..]) {
            passed += match part {
                Part::Begun(count) | Part::Header(count, _) | Part::Payload(count) => count,
            };
        }
        passed
    }

    /// What the next bytes are. `None` where there are none, or after a breach. The last byte of a header that must be
    /// refused belongs to no part.
    pub fn next(&mut self, bytes: &[u8]) -> Option<Part> {
        if bytes.is_empty() || self.breach.is_some() {
            return None;
        }
        if self.payload_left > 0 {
            let count =
                usize::try_from(self.payload_left).map_or(bytes.len(), |all| all.min(bytes.len()));
            self.payload_left -= count as u64;
            return Some(Part::Payload(count));
        }
        for (at, byte) in bytes.iter().enumerate() {
            self.header.bytes[self.header.count] = *byte;
            self.header.count += 1;
            if self.header.count == self.header.length() {
                return match self.on_header() {
                    Ok(header) => Some(Part::Header(at + 1, header)),
                    Err(breach) => {
                        self.breach = Some(breach);
                        (at > 0).then_some(Part::Begun(at))
                    }
                };
            }
        }
        Some(Part::Begun(bytes.len()))
    }

    /// Whether the bytes passed so far end with a frame.
    #[must_use]
    pub(crate) fn is_between_frames(&self) -> bool {
        self.payload_left == 0 && self.header.count == 0
    }

    /// With which code the client must be closed, once something was refused. Nothing more may be read then.
    #[must_use]
    pub fn breach(&self) -> Option<CloseCode> {
        self.breach
    }

    fn on_header(&mut self) -> Result<Header, CloseCode> {
        let header = std::mem::take(&mut self.header);
        let length = header.payload_bytes();
        let shortest = match length {
            0..=125 => 0,
            126..=0xffff => 2,
            _ => 8,
        };
        if header.extended().len() != shortest || length > i64::MAX as u64 {
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
        self.payload_left = length;
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
