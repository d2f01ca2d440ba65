//! Encodes and parses WebSocket frames (RFC 6455 §5.2), in both directions. Only this module knows their layout.
//!
//! The gateway's frames are unmasked, so all receivers share the same bytes. Client frames are masked; the load tester,
//! benches and tests write them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::HEADER_BYTES_MAX;
use crate::protocol::refusal::CloseCode;

/// The bit of a frame that ends its message.
pub(crate) const FINAL: u8 = 0x80;
/// The bits that an extension may use.
pub(crate) const RESERVED: u8 = 0x70;
/// The reserved bit of a compressed message (RFC 7692 §6).
pub(crate) const COMPRESSED: u8 = 0x40;
/// The bit of the opcodes of control frames.
pub(crate) const CONTROL: u8 = 0x08;
/// The bits of the opcode.
const OPCODE: u8 = 0x0f;
/// The bit of a length that announces a mask.
pub(crate) const MASKED: u8 = 0x80;

/// The opcode of a text message.
pub const TEXT: u8 = 0x1;
/// The opcode of a close frame.
pub(crate) const CLOSE: u8 = 0x8;
/// The opcode of a ping.
pub(crate) const PING: u8 = 0x9;
/// The opcode of a pong.
pub(crate) const PONG: u8 = 0xa;

/// The header of one frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Header {
    bytes: [u8; HEADER_BYTES_MAX + 4],
    count: usize,
}

impl Header {
    /// Parses the header at the front of `bytes`. `None` while bytes of the header are missing.
    #[must_use]
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut header = Self::default();
        let is_whole = bytes.iter().any(|byte| header.push(*byte));
        is_whole.then_some(header)
    }

    /// Adds the next byte. Returns whether the header is complete.
    pub(crate) fn push(&mut self, byte: u8) -> bool {
        self.bytes[self.count] = byte;
        self.count += 1;
        if self.count < 2 {
            return false;
        }
        let mask = if self.is_masked() { 4 } else { 0 };
        self.count == 2 + self.extended().len() + mask
    }

    /// Returns the header's bytes as received.
    #[must_use]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.count]
    }

    /// Returns the first byte: the final bit, the reserved bits and the opcode.
    #[must_use]
    pub fn first(&self) -> u8 {
        self.bytes[0]
    }

    /// Returns the opcode.
    #[must_use]
    pub fn opcode(&self) -> u8 {
        self.first() & OPCODE
    }

    /// Whether the payload is masked.
    #[must_use]
    pub fn is_masked(&self) -> bool {
        self.bytes[1] & MASKED != 0
    }

    /// Returns the key that the payload is masked with, if it is masked.
    #[must_use]
    pub(crate) fn mask(&self) -> Option<[u8; 4]> {
        let key = self.bytes().last_chunk::<4>()?;
        self.is_masked().then_some(*key)
    }

    /// Returns the payload's length in bytes.
    #[must_use]
    pub(crate) fn payload_bytes(&self) -> u64 {
        match self.extended() {
            [] => u64::from(self.bytes[1] & !MASKED),
            bytes => bytes
                .iter()
                .fold(0, |length, byte| length << 8 | u64::from(*byte)),
        }
    }

    /// Returns the length of header and payload in bytes.
    #[must_use]
    pub(crate) fn frame_bytes(&self) -> usize {
        let payload = usize::try_from(self.payload_bytes()).unwrap_or(usize::MAX);
        self.count.saturating_add(payload)
    }

    /// Whether the length has its shortest form and its highest bit clear, as RFC 6455 demands.
    #[must_use]
    pub(crate) fn is_length_valid(&self) -> bool {
        let length = self.payload_bytes();
        let shortest = match length {
            0..=125 => 0,
            126..=0xffff => 2,
            _ => 8,
        };
        self.extended().len() == shortest && length <= i64::MAX as u64
    }

    /// Returns the bytes of an extended length, which does not fit into the second byte.
    fn extended(&self) -> &[u8] {
        let count = match self.bytes[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        &self.bytes[2..2 + count]
    }
}

/// Splits off the first frame. Returns its header, its payload as received, and the bytes after it; `None` while bytes
/// of the frame are missing.
#[must_use]
pub fn split(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let header = Header::parse(bytes)?;
    let (frame, rest) = bytes.split_at_checked(header.frame_bytes())?;
    Some((header, &frame[header.count..], rest))
}

/// Returns the payload of one of the gateway's frames.
#[must_use]
pub fn payload(frame: &[u8]) -> &[u8] {
    split(frame).map_or(&[], |(_, payload, _)| payload)
}

/// Encodes one text frame.
#[must_use]
pub fn text(payload: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES_MAX + payload.len());
    put_text_header(&mut out, payload.len());
    out.put_slice(payload.as_bytes());
    out.freeze()
}

/// Encodes a ping without a payload.
#[must_use]
pub fn ping() -> Bytes {
    Bytes::from_static(&[FINAL | PING, 0])
}

/// Encodes a close frame with its code and reason (RFC 6455 §5.5.1).
#[must_use]
pub fn close(code: CloseCode) -> Bytes {
    let reason = code.reason();
    let length = u8::try_from(2 + reason.len()).expect("a test keeps reasons below 124 bytes");
    let mut out = BytesMut::with_capacity(4 + reason.len());
    out.put_u8(FINAL | CLOSE);
    out.put_u8(length);
    out.put_u16(code.as_u16());
    out.put_slice(reason.as_bytes());
    out.freeze()
}

/// Writes the header of a text frame whose payload has `payload_bytes` bytes.
pub fn put_text_header(out: &mut impl BufMut, payload_bytes: usize) {
    put_header(out, FINAL | TEXT, 0, payload_bytes);
}

/// Writes the header of a compressed message (RFC 7692 §6). `first` is the first byte of the same message uncompressed.
pub(crate) fn put_compressed_header(out: &mut impl BufMut, first: u8, payload_bytes: usize) {
    put_header(out, first | COMPRESSED, 0, payload_bytes);
}

/// Writes a frame as a client sends it: `first` is its final bit, reserved bits and opcode.
pub(crate) fn put_masked(
    out: &mut (impl BufMut + Extend<u8>),
    first: u8,
    payload: &[u8],
    mask: [u8; 4],
) {
    put_header(out, first, MASKED, payload.len());
    out.put_slice(&mask);
    if mask == [0; 4] {
        out.put_slice(payload);
    } else {
        out.extend(masked(payload, mask, 0));
    }
}

/// Writes a whole text message as a client sends it.
pub fn put_client_text(out: &mut (impl BufMut + Extend<u8>), text: &str, mask: [u8; 4]) {
    put_masked(out, FINAL | TEXT, text.as_bytes(), mask);
}

/// Writes a client's answer to a ping.
pub fn put_client_pong(out: &mut (impl BufMut + Extend<u8>), payload: &[u8], mask: [u8; 4]) {
    put_masked(out, FINAL | PONG, payload, mask);
}

/// Masks or unmasks a payload (RFC 6455 §5.3). `bytes` starts `at` bytes into the payload.
pub(crate) fn masked(bytes: &[u8], mask: [u8; 4], at: usize) -> impl Iterator<Item = u8> {
    let keys = mask.into_iter().cycle().skip(at % mask.len());
    bytes.iter().zip(keys).map(|(byte, key)| byte ^ key)
}

fn put_header(out: &mut impl BufMut, first: u8, masked: u8, payload_bytes: usize) {
    out.put_u8(first);
    if let Ok(length) = u8::try_from(payload_bytes)
        && length <= 125
    {
        out.put_u8(masked | length);
    } else if let Ok(length) = u16::try_from(payload_bytes) {
        out.put_u8(masked | 126);
        out.put_u16(length);
    } else {
        out.put_u8(masked | 127);
        out.put_u64(payload_bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_length_has_three_forms() {
        for (bytes, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            assert_eq!(
                text(&"x".repeat(bytes)).len(),
                header + bytes,
                "{bytes} bytes"
            );
        }
        for bytes in [0, 125, 126, 65_536] {
            assert_eq!(payload(&text(&"x".repeat(bytes))).len(), bytes);
        }
        assert_eq!(text("hi").as_ref(), b"\x81\x02hi");
        assert_eq!(
            text(&"x".repeat(300)).get(..4),
            Some(&[0x81, 126, 1, 44][..])
        );
    }

    #[test]
    fn a_close_frame_has_a_code_and_a_reason() {
        assert_eq!(
            close(CloseCode::Restart).as_ref(),
            b"\x88\x16\x03\xf4the gateway restarts"
        );
    }

    proptest! {
        #[test]
        fn what_a_client_writes_is_its_text_under_the_mask(text in ".{0,300}", mask: [u8; 4]) {
            let mut out = Vec::new();
            put_client_text(&mut out, &text, mask);
            prop_assert_eq!(out[0], 0x81);
            let payload = &out[out.len() - text.len()..];
            let plain: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect();
            prop_assert_eq!(plain, text.as_bytes());
            let header_bytes = out.len() - text.len();
            prop_assert_eq!(header_bytes, if text.len() <= 125 { 6 } else { 8 });
            prop_assert_eq!(&out[header_bytes - 4..header_bytes], &mask);
            let (header, payload, rest) = split(&out).unwrap();
            prop_assert_eq!(header.mask(), Some(mask));
            prop_assert_eq!((payload.len(), rest.len()), (text.len(), 0));
        }
    }
}
