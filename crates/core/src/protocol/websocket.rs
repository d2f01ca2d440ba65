//! Encodes the WebSocket frames of the gateway (RFC 6455 §5.2). They are unmasked, so all receivers share
//! the same bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::refusal::CloseCode;

/// Bytes of the longest header of an unmasked frame.
pub const HEADER_BYTES_MAX: usize = 10;

const FINAL: u8 = 0x80;
const PACKED: u8 = 0x40;
const MASKED: u8 = 0x80;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;

/// Encodes one text frame.
#[must_use]
pub fn text(payload: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES_MAX + payload.len());
    put_text_header(&mut out, payload.len());
    out.put_slice(payload.as_bytes());
    out.freeze()
}

/// Returns the payload of one of the gateway's frames.
#[must_use]
pub fn payload(frame: &[u8]) -> &[u8] {
    let header = match frame.get(1) {
        Some(127) => 10,
        Some(126) => 4,
        _ => 2,
    };
    frame.get(header..).unwrap_or_default()
}

/// Splits several of the gateway's frames into the first one and the rest.
///
/// # Panics
/// If the bytes do not start with a whole frame. That would be our bug.
#[must_use]
pub(crate) fn split_first(frames: &[u8]) -> (&[u8], &[u8]) {
    let (header, payload) = match frames {
        [_, 127, a, b, c, d, e, f, g, h, ..] => {
            (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
        }
        [_, 126, a, b, ..] => (4, u64::from(u16::from_be_bytes([*a, *b]))),
        [_, length, ..] => (2, u64::from(*length)),
        _ => (0, u64::MAX),
    };
    usize::try_from(payload)
        .ok()
        .and_then(|payload| frames.split_at_checked(payload.saturating_add(header)))
        .expect("our own frames are complete")
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

/// Writes the header of a text frame with a payload of `payload_bytes`.
pub fn put_text_header(out: &mut BytesMut, payload_bytes: usize) {
    put_header(out, FINAL | TEXT, 0, payload_bytes);
}

/// Writes the header of a compressed message (RFC 7692 §6). `first` is the first byte of the uncompressed frame.
pub(crate) fn put_compressed_header(out: &mut BytesMut, first: u8, payload_bytes: usize) {
    put_header(out, first | PACKED, 0, payload_bytes);
}

/// Writes the header of a frame as a client sends it. The mask is all zeros, so it does not change the payload.
pub(crate) fn put_masked_header(out: &mut BytesMut, first: u8, payload_bytes: usize) {
    put_header(out, first, MASKED, payload_bytes);
    out.put_u32(0);
}

fn put_header(out: &mut BytesMut, first: u8, masked: u8, payload_bytes: usize) {
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
}
