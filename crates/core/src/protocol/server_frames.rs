//! Decodes the gateway's frames on the client's side, for the load tester, benches and tests.
//!
//! Reads complete frames in place. Copies bytes only of an incomplete frame, so an idle client has no buffer. The
//! gateway sends no fragments, and no compressed frames to a client that does not negotiate `permessage-deflate`. Both
//! are errors here.

use crate::limits::{KEPT_BYTES_MAX, SERVER_FRAME_BYTES_MAX};
use crate::protocol::websocket::{self, CLOSE, FINAL, Header, MASKED, PING, PONG, RESERVED, TEXT};

/// The contents of one of the gateway's frames.
#[derive(Debug, PartialEq, Eq)]
pub enum DecodedFrame<'a> {
    /// A text frame: a JSON object.
    Text(&'a [u8]),
    /// A ping. The client answers with the same bytes.
    Ping(&'a [u8]),
    /// A close frame, with its code; 1005 without a code. No frame follows it.
    Close(u16),
    /// Any other frame, which needs no action.
    Other,
}

/// The bytes are not the gateway's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerFrameError {
    /// A frame that the gateway never sends.
    #[error("a frame that is masked, compressed, in fragments or of an unknown kind")]
    Unknown,
    /// A frame that is longer than any of the gateway's.
    #[error("a frame of more than {SERVER_FRAME_BYTES_MAX} bytes")]
    TooLarge,
}

/// Splits a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct ServerFrames {
    /// The bytes of an incomplete frame.
    partial: Vec<u8>,
}

impl ServerFrames {
    /// Calls `on_frame` with each complete frame.
    ///
    /// # Errors
    /// The bytes are not the gateway's frames.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut on_frame: impl FnMut(DecodedFrame<'_>),
    ) -> Result<(), ServerFrameError> {
        let mut rest = bytes;
        while !self.partial.is_empty() {
            let wanted = header(&self.partial)?
                .map_or(self.partial.len() + 1, |header| header.frame_bytes());
            let (taken, left) = rest.split_at(rest.len().min(wanted - self.partial.len()));
            self.partial.extend_from_slice(taken);
            rest = left;
            match websocket::split(&self.partial) {
                Some((header, payload, _)) => {
                    on_frame(read(&header, payload)?);
                    self.partial.clear();
                    if self.partial.capacity() > KEPT_BYTES_MAX {
                        self.partial = Vec::new();
                    }
                }
                None if rest.is_empty() => {
                    header(&self.partial)?;
                    return Ok(());
                }
                None => {}
            }
        }
        while let Some(header) = header(rest)?
            && let Some((_, payload, left)) = websocket::split(rest)
        {
            on_frame(read(&header, payload)?);
            rest = left;
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }
}

/// Reads the header at the front. `None` while bytes of it are missing; wrong first bytes are an error even then.
fn header(bytes: &[u8]) -> Result<Option<Header>, ServerFrameError> {
    if let [first, second, ..] = bytes
        && (first & (FINAL | RESERVED) != FINAL || second & MASKED != 0)
    {
        return Err(ServerFrameError::Unknown);
    }
    let header = Header::parse(bytes);
    if header.is_some_and(|header| header.payload_bytes() > SERVER_FRAME_BYTES_MAX as u64) {
        return Err(ServerFrameError::TooLarge);
    }
    Ok(header)
}

fn read<'a>(header: &Header, payload: &'a [u8]) -> Result<DecodedFrame<'a>, ServerFrameError> {
    match header.opcode() {
        TEXT => Ok(DecodedFrame::Text(payload)),
        PING => Ok(DecodedFrame::Ping(payload)),
        PONG => Ok(DecodedFrame::Other),
        CLOSE => Ok(DecodedFrame::Close(
            payload
                .first_chunk()
                .map_or(1005, |code| u16::from_be_bytes(*code)),
        )),
        _ => Err(ServerFrameError::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        let whole = read_all(&[&stream]).unwrap();
        assert_eq!(whole.len(), 5);
        assert_eq!(whole[3], format!("text {}", texts[3]));
        for size in [1, 2, 3, 7, 1_000, 65_536] {
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            assert_eq!(read_all(&pieces).unwrap(), whole, "in pieces of {size}");
        }
    }

    #[test]
    fn the_buffer_of_a_large_frame_is_freed() {
        let frame = websocket::text(&"x".repeat(70_000));
        let mut frames = ServerFrames::default();
        frames.feed(&frame[..60_000], |_| {}).unwrap();
        frames.feed(&frame[60_000..], |_| {}).unwrap();
        assert_eq!(frames.partial.capacity(), 0);
    }

    #[test]
    fn a_frame_that_the_gateway_never_sends_is_an_error() {
        for (bytes, error) in [
            (&b"HT"[..], ServerFrameError::Unknown),
            (&[0x01, 0], ServerFrameError::Unknown),
            (&[0xc1, 0], ServerFrameError::Unknown),
            (&[0x81, 0x80], ServerFrameError::Unknown),
            (&[0x83, 0], ServerFrameError::Unknown),
            (
                &[0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0],
                ServerFrameError::TooLarge,
            ),
        ] {
            assert_eq!(read_all(&[bytes]), Err(error), "{bytes:?}");
        }
        assert_eq!(read_all(&[&[0x88, 2, 0x0f, 0xa8]]).unwrap(), ["close 4008"]);
        assert_eq!(read_all(&[&[0x88, 0]]).unwrap(), ["close 1005"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let _ = read_all(&pieces);
        }
    }

    fn read_all(pieces: &[&[u8]]) -> Result<Vec<String>, ServerFrameError> {
        let mut frames = ServerFrames::default();
        let mut seen = Vec::new();
        for piece in pieces {
            frames.feed(piece, |frame| {
                seen.push(match frame {
                    DecodedFrame::Text(text) => format!("text {}", String::from_utf8_lossy(text)),
                    DecodedFrame::Ping(_) => "ping".to_owned(),
                    DecodedFrame::Close(code) => format!("close {code}"),
                    DecodedFrame::Other => "other".to_owned(),
                });
            })?;
        }
        Ok(seen)
    }
}
