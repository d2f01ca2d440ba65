//! Reads and writes WebSocket frames for the load tester. Reads complete frames in place.
//!
//! Copies bytes only of an incomplete frame, so an idle viewer has no buffer. Usher sends no fragments, and no
//! compressed frames to a client that does not offer `permessage-deflate`. Both are errors here.

use std::mem;

/// The largest accepted frame, in bytes. The gateway's largest frames have a few hundred KiB.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A larger buffer is freed once it is empty.
const KEPT_BYTES_MAX: usize = 4 * 1024;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// One of the gateway's frames.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A text frame: a JSON object.
    Text(&'a [u8]),
    /// A ping, to answer with the same bytes.
    Ping(&'a [u8]),
    /// A close frame, with its code; 1005 without a code.
    Close(u16),
    /// A frame that needs no action.
    Other,
}

/// The bytes are not the gateway's WebSocket frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A kind of frame that the gateway never sends.
    #[error("a frame that is masked, compressed, in fragments or of an unknown kind")]
    Unknown,
    /// A frame that is longer than any of the gateway's.
    #[error("a frame of more than {FRAME_BYTES_MAX} bytes")]
    TooLarge,
}

/// Splits a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct Frames {
    /// The bytes of an incomplete frame.
    partial: Vec<u8>,
}

impl Frames {
    /// Passes on each complete frame.
    ///
    /// # Errors
    /// The bytes are not frames of a gateway.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut on_frame: impl FnMut(Frame<'_>),
    ) -> Result<(), FrameError> {
        let mut rest = bytes;
        while !self.partial.is_empty() {
            let wanted = match FrameHeader::parse(&self.partial)? {
                Some(header) => header.frame_bytes(),
                None => self.partial.len() + 1,
            };
            let (taken, left) = rest.split_at(rest.len().min(wanted - self.partial.len()));
            self.partial.extend_from_slice(taken);
            rest = left;
            match FrameHeader::parse(&self.partial)? {
                Some(header) if self.partial.len() >= header.frame_bytes() => {
                    let mut frame = mem::take(&mut self.partial);
                    on_frame(header.read(&frame)?);
                    if frame.capacity() <= KEPT_BYTES_MAX {
                        frame.clear();
                        self.partial = frame;
                    }
                }
                Some(_) | None if rest.is_empty() => return Ok(()),
                Some(_) | None => {}
            }
        }
        while let Some(header) = FrameHeader::parse(rest)? {
            if rest.len() < header.frame_bytes() {
                break;
            }
            let (frame, left) = rest.split_at(header.frame_bytes());
            on_frame(header.read(frame)?);
            rest = left;
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }
}

/// A frame's header (RFC 6455 §5.2).
struct FrameHeader {
    kind: u8,
    header_bytes: usize,
    payload_bytes: usize,
}

impl FrameHeader {
    /// Parses a header; `None` if bytes are missing.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let &[first, second, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        // Without negotiated extensions the reserved bits are clear, and only clients mask.
        if first & 0xf0 != FINAL || second & MASKED != 0 {
            return Err(FrameError::Unknown);
        }
        let (header_bytes, payload_bytes) = match second {
            126 => match rest.first_chunk() {
                Some(length) => (4, usize::from(u16::from_be_bytes(*length))),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (
                    10,
                    usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX),
                ),
                None => return Ok(None),
            },
            length => (2, usize::from(length)),
        };
        if payload_bytes > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge);
        }
        Ok(Some(Self {
            kind: first & 0x0f,
            header_bytes,
            payload_bytes,
        }))
    }

    fn frame_bytes(&self) -> usize {
        self.header_bytes + self.payload_bytes
    }

    fn read<'a>(&self, frame: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let payload = &frame[self.header_bytes..self.frame_bytes()];
        match self.kind {
            TEXT => Ok(Frame::Text(payload)),
            PING => Ok(Frame::Ping(payload)),
            PONG => Ok(Frame::Other),
            CLOSE => Ok(Frame::Close(
                payload
                    .first_chunk()
                    .map_or(1005, |code| u16::from_be_bytes(*code)),
            )),
            _ => Err(FrameError::Unknown),
        }
    }
}

/// Appends a text frame as a client sends it.
pub fn put_text(out: &mut Vec<u8>, text: &str, mask: [u8; 4]) {
    put(out, TEXT, text.as_bytes(), mask);
}

/// Appends the answer to a ping.
pub fn put_pong(out: &mut Vec<u8>, payload: &[u8], mask: [u8; 4]) {
    put(out, PONG, payload, mask);
}

fn put(out: &mut Vec<u8>, kind: u8, payload: &[u8], mask: [u8; 4]) {
    out.push(FINAL | kind);
    if let Ok(length) = u8::try_from(payload.len())
        && length <= 125
    {
        out.push(MASKED | length);
    } else if let Ok(length) = u16::try_from(payload.len()) {
        out.push(MASKED | 126);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(MASKED | 127);
        out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    }
    out.extend_from_slice(&mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use usher_core::protocol::websocket;

    #[test]
    fn frames_are_read_however_the_bytes_are_cut() {
        let texts = [
            String::new(),
            "x".repeat(125),
            "y".repeat(126),
            "z".repeat(70_000),
        ];
        let mut stream = Vec::new();
        for text in &texts {
            stream.extend_from_slice(&websocket::text(text));
        }
        stream.extend_from_slice(&websocket::ping());
        let whole = read(&[&stream]).unwrap();
        assert_eq!(whole.len(), 5);
        assert_eq!(whole[3], format!("text {}", texts[3]));
        for size in [1, 2, 3, 7, 1_000, 65_536] {
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            assert_eq!(read(&pieces).unwrap(), whole, "in pieces of {size}");
        }
    }

    #[test]
    fn the_buffer_of_a_large_frame_is_freed() {
        let frame = websocket::text(&"x".repeat(70_000));
        let mut frames = Frames::default();
        frames.feed(&frame[..60_000], |_| {}).unwrap();
        frames.feed(&frame[60_000..], |_| {}).unwrap();
        assert_eq!(frames.partial.capacity(), 0);
    }

    #[test]
    fn a_frame_that_the_gateway_never_sends_is_an_error() {
        for (bytes, error) in [
            (&b"HT"[..], FrameError::Unknown),
            (&[0x01, 0], FrameError::Unknown),
            (&[0xc1, 0], FrameError::Unknown),
            (&[0x81, 0x80], FrameError::Unknown),
            (&[0x83, 0], FrameError::Unknown),
            (&[0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0], FrameError::TooLarge),
        ] {
            assert_eq!(read(&[bytes]), Err(error), "{bytes:?}");
        }
        assert_eq!(read(&[&[0x88, 2, 0x0f, 0xa8]]).unwrap(), ["close 4008"]);
        assert_eq!(read(&[&[0x88, 0]]).unwrap(), ["close 1005"]);
    }

    proptest! {
        #[test]
        fn a_client_frame_has_the_masked_text(text in ".{0,300}", mask: [u8; 4]) {
            let mut out = Vec::new();
            put_text(&mut out, &text, mask);
            prop_assert_eq!(out[0], 0x81);
            let payload = &out[out.len() - text.len()..];
            let plain: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect();
            prop_assert_eq!(plain, text.as_bytes());
            let header_bytes = out.len() - text.len();
            prop_assert_eq!(header_bytes, if text.len() <= 125 { 6 } else { 8 });
            prop_assert_eq!(&out[header_bytes - 4..header_bytes], &mask);
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let _ = read(&pieces);
        }
    }

    fn read(pieces: &[&[u8]]) -> Result<Vec<String>, FrameError> {
        let mut frames = Frames::default();
        let mut seen = Vec::new();
        for piece in pieces {
            frames.feed(piece, |frame| {
                seen.push(match frame {
                    Frame::Text(text) => format!("text {}", String::from_utf8_lossy(text)),
                    Frame::Ping(_) => "ping".to_owned(),
                    Frame::Close(code) => format!("close {code}"),
                    Frame::Other => "other".to_owned(),
                });
            })?;
        }
        Ok(seen)
    }
}
