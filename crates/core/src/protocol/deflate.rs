//! Compression of messages: `permessage-deflate` (RFC 7692) without context takeover.
//!
//! Each message is compressed separately. All receivers therefore share one compressed frame, and an idle connection
//! keeps no compressor in memory. [`accept`] negotiates the extension in the handshake. [`Compressor`] compresses
//! outgoing frames. [`Decompressor`] turns a client's compressed frames into plain ones for the code behind it.
//!
//! Does not use a WebSocket library: such libraries compress once per socket, and tungstenite does not compress at all.
//! flate2 does the compression itself.

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::limits::{FRAME_BYTES_MAX, PACKED_BYTES_MIN};
use crate::protocol::framing::{FramePart, Framing};
use crate::protocol::refusal::CloseCode;
use crate::protocol::websocket::{self, COMPRESSED, CONTROL, FINAL, Header, RESERVED};

/// The end of every flushed block. It is not sent (RFC 7692 §7.2.1).
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];

/// Returns the answer to a client's offers, or `None` if no offer is acceptable. `offers` are the header's values. The
/// first acceptable offer counts (RFC 7692 §5, §7.1).
pub fn accept<'a>(offers: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
    offers
        .into_iter()
        .flat_map(|value| value.split(','))
        .find_map(accept_one)
}

fn accept_one(offer: &str) -> Option<&'static str> {
    let mut parameters = offer.split(';').map(str::trim);
    if !parameters
        .next()?
        .eq_ignore_ascii_case("permessage-deflate")
    {
        return None;
    }
    let mut seen = Vec::new();
    let mut names_window = false;
    for parameter in parameters {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
            None => (parameter, None),
        };
        let name = name.to_ascii_lowercase();
        match (name.as_str(), value) {
            (
                "server_no_context_takeover"
                | "client_no_context_takeover"
                | "client_max_window_bits",
                None,
            ) => {}
            ("client_max_window_bits", Some(bits)) if is_window(bits) => {}
            // A shared frame has only one window size, the largest.
            ("server_max_window_bits", Some("15")) => names_window = true,
            _ => return None,
        }
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    Some(if names_window {
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15"
    } else {
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    })
}

/// Whether a text is a number of bits as RFC 7692 §7.1.2.2 writes it.
fn is_window(bits: &str) -> bool {
    matches!(bits, "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")
}

/// Compresses the gateway's frames.
#[derive(Debug)]
pub struct Compressor {
    compress: Compress,
}

impl Default for Compressor {
    fn default() -> Self {
        Self {
            compress: Compress::new(Compression::default(), false),
        }
    }
}

impl Compressor {
    /// Compresses each message that becomes shorter, and copies the others.
    pub fn compress(&mut self, frames: &Bytes) -> Bytes {
        let mut out = BytesMut::with_capacity(frames.len() / 2);
        let mut rest = &frames[..];
        while !rest.is_empty() {
            let (header, payload, later) =
                websocket::split(rest).expect("frames of ours are whole");
            if let Some(compressed) = self.deflate(payload) {
                websocket::put_compressed_header(&mut out, header.first(), compressed.len());
                out.put_slice(&compressed);
            } else {
                out.put_slice(header.bytes());
                out.put_slice(payload);
            }
            rest = later;
        }
        out.freeze()
    }

    fn deflate(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        if payload.len() < PACKED_BYTES_MIN {
            return None;
        }
        self.compress.reset();
        // A compressed payload that is not shorter is not worth sending.
        let mut out = Vec::with_capacity(payload.len());
        let status = self
            .compress
            .compress_vec(payload, &mut out, FlushCompress::Sync);
        let is_whole = matches!(status, Ok(Status::Ok))
            && self.compress.total_in() == payload.len() as u64
            && out.len() < out.capacity()
            && out.ends_with(&FLUSHED);
        is_whole.then(|| {
            out.truncate(out.len() - FLUSHED.len());
            out
        })
    }
}

/// Decompresses a client's compressed messages.
#[derive(Debug, Default)]
pub struct Decompressor {
    framing: Framing,
    message: Option<DeflatedMessage>,
    /// The mask of the current frame, if the frame belongs to a compressed message.
    mask: Option<Masked>,
    breach: Option<CloseCode>,
}

/// The part of a compressed message that has arrived.
#[derive(Debug)]
struct DeflatedMessage {
    opcode: u8,
    bytes: Vec<u8>,
    is_last: bool,
}

#[derive(Debug)]
struct Masked {
    key: [u8; 4],
    at: usize,
}

impl Decompressor {
    /// Translates the next bytes of the client into plain frames and appends these to `out`. Ignores all bytes after
    /// a breach ([`Self::breach`]).
    pub fn pass(&mut self, bytes: &[u8], out: &mut BytesMut) {
        let mut rest = bytes;
        while self.breach.is_none() {
            let Some(part) = self.framing.next(rest) else {
                break;
            };
            let (count, taken) = match part {
                // The header is written once it is complete.
                FramePart::Begun(count) => (count, Ok(())),
                FramePart::Header(count, header) => (count, self.on_header(&header, out)),
                FramePart::Payload(count) => (count, self.on_payload(&rest[..count], out)),
            };
            self.breach = taken.err();
            rest = &rest[count..];
        }
    }

    /// Returns the code to close the client with, once input was refused. No further bytes may be read then.
    #[must_use]
    pub fn breach(&self) -> Option<CloseCode> {
        self.breach.or(self.framing.breach())
    }

    fn on_header(&mut self, header: &Header, out: &mut BytesMut) -> Result<(), CloseCode> {
        let first = header.first();
        let (opcode, reserved) = (header.opcode(), first & RESERVED);
        let begins = opcode != 0 && reserved == COMPRESSED;
        self.mask = None;
        if first & CONTROL != 0 || !(begins || self.message.is_some()) {
            // Copied unchanged: the WebSocket library behind checks it.
            out.put_slice(header.bytes());
            return Ok(());
        }
        let message = match &mut self.message {
            Some(message) if opcode == 0 && reserved == 0 => message,
            Some(_) => return Err(CloseCode::ProtocolError),
            none => none.insert(DeflatedMessage {
                opcode,
                bytes: Vec::new(),
                is_last: false,
            }),
        };
        let Some(key) = header.mask() else {
            return Err(CloseCode::ProtocolError);
        };
        if header.payload_bytes() > (FRAME_BYTES_MAX - message.bytes.len()) as u64 {
            return Err(CloseCode::TooBig);
        }
        message.is_last = first & FINAL != 0;
        self.mask = Some(Masked { key, at: 0 });
        self.finish(out)
    }

    fn on_payload(&mut self, payload: &[u8], out: &mut BytesMut) -> Result<(), CloseCode> {
        let (Some(mask), Some(message)) = (&mut self.mask, &mut self.message) else {
            out.put_slice(payload);
            return Ok(());
        };
        let plain = websocket::masked(payload, mask.key, mask.at);
        message.bytes.extend(plain);
        mask.at += payload.len();
        self.finish(out)
    }

    /// Once the message is complete, writes it as one frame with a mask of zeros.
    fn finish(&mut self, out: &mut BytesMut) -> Result<(), CloseCode> {
        let is_whole =
            |message: &mut DeflatedMessage| message.is_last && self.framing.is_between_frames();
        let Some(message) = self.message.take_if(is_whole) else {
            return Ok(());
        };
        let plain = inflate(message.bytes)?;
        websocket::put_masked(out, FINAL | message.opcode, &plain, [0; 4]);
        Ok(())
    }
}

/// Returns the uncompressed bytes, at most [`FRAME_BYTES_MAX`].
fn inflate(mut compressed: Vec<u8>) -> Result<Vec<u8>, CloseCode> {
    compressed.extend_from_slice(&FLUSHED);
    let mut inflater = Decompress::new(false);
    let mut plain = Vec::new();
    loop {
        let read = usize::try_from(inflater.total_in()).unwrap_or(usize::MAX);
        let rest = compressed.get(read..).unwrap_or_default();
        let before = plain.len();
        if before > FRAME_BYTES_MAX {
            return Err(CloseCode::TooBig);
        }
        plain.reserve(1_024.max(before).min(FRAME_BYTES_MAX + 1));
        let status = inflater
            .decompress_vec(rest, &mut plain, FlushDecompress::Sync)
            .map_err(|_| CloseCode::InvalidText)?;
        let is_stuck = plain.len() == before && inflater.total_in() == read as u64;
        match status {
            Status::StreamEnd => break,
            _ if plain.len() < plain.capacity() || is_stuck => break,
            Status::Ok | Status::BufError => {}
        }
    }
    if plain.len() > FRAME_BYTES_MAX {
        return Err(CloseCode::TooBig);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn offers_are_accepted_as_the_rfc_says() {
        for (offers, good) in [
            (&["permessage-deflate"][..], true),
            (&["permessage-deflate; client_max_window_bits"], true),
            (&["permessage-deflate;client_max_window_bits=10"], true),
            (&["permessage-deflate; client_max_window_bits=\"10\""], true),
            (
                &["PerMessage-Deflate; Server_No_Context_Takeover; client_no_context_takeover"],
                true,
            ),
            (&["x-webkit-deflate-frame, permessage-deflate"], true),
            (&["permessage-bzip2", "permessage-deflate"], true),
            (
                &["permessage-deflate; server_max_window_bits=10, permessage-deflate"],
                true,
            ),
            (&["permessage-deflate; server_max_window_bits=10"], false),
            (&["permessage-deflate; server_max_window_bits"], false),
            (&["permessage-deflate; client_max_window_bits=16"], false),
            (&["permessage-deflate; client_max_window_bits=08"], false),
            (&["permessage-deflate; client_no_context_takeover=1"], false),
            (
                &["permessage-deflate; client_no_context_takeover; client_no_context_takeover"],
                false,
            ),
            (&["permessage-deflate; dictionary"], false),
            (&["deflate"], false),
            (&[""], false),
            (&[], false),
        ] {
            let answer = accept(offers.iter().copied());
            assert_eq!(answer, good.then_some(PLAIN), "{offers:?}");
        }
        let asked = accept(["permessage-deflate; server_max_window_bits=15"]);
        assert_eq!(asked, Some(&*format!("{PLAIN}; server_max_window_bits=15")));
    }

    #[test]
    fn compression_shortens_frames_and_keeps_their_contents() {
        let mut compressor = Compressor::default();
        let frames = [
            "short".to_owned(),
            "long ".repeat(6_000),
            "middle ".repeat(99),
        ];
        let frames: BytesMut = frames
            .iter()
            .flat_map(|text| websocket::text(text))
            .collect();
        let frames = frames.freeze();
        let compressed = compressor.compress(&frames);
        assert!(compressed.len() < frames.len() / 50);
        assert_eq!(
            read(&as_client(&compressed), usize::MAX).unwrap(),
            as_client(&frames)
        );
        // A frame that does not become shorter stays unchanged.
        let noise = (0u64..400).map(|n| n.wrapping_mul(n ^ 0x9e37_79b9_7f4a_7c15).to_le_bytes()[4]);
        let mut frame = BytesMut::new();
        websocket::put_text_header(&mut frame, 400);
        frame.extend(noise);
        let frame = frame.freeze();
        assert_eq!(compressor.compress(&frame), frame);
    }

    #[test]
    fn a_broken_rule_is_a_breach() {
        let hello = compressed("hello");
        let far = compressed(&"x".repeat(FRAME_BYTES_MAX));
        let too_far = compressed(&"x".repeat(FRAME_BYTES_MAX + 1));
        let mut unfinished = as_client(&websocket::text("x"));
        unfinished[0] = 0x41;
        for (what, bytes, expected) in [
            ("good", client_frame(0xc1, &hello), None),
            ("as large as can be", client_frame(0xc1, &far), None),
            ("empty", client_frame(0xc1, &[]), None),
            // RFC 7692 §7.2.3.4: a block that is marked as the last one.
            (
                "final block",
                client_frame(0xc1, &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]),
                None,
            ),
            (
                "a bomb",
                client_frame(0xc1, &too_far),
                Some(CloseCode::TooBig),
            ),
            (
                "large before it is inflated",
                client_frame(0xc1, &vec![0; FRAME_BYTES_MAX + 1]),
                Some(CloseCode::TooBig),
            ),
            (
                "not deflate",
                client_frame(0xc1, b"\xff\xff\xff"),
                Some(CloseCode::InvalidText),
            ),
            (
                "not masked",
                vec![0xc1, 1, 0],
                Some(CloseCode::ProtocolError),
            ),
            (
                "another message between the pieces",
                [unfinished.clone(), client_frame(0x81, b"x")].concat(),
                Some(CloseCode::ProtocolError),
            ),
            (
                "compressed pieces after the first",
                [unfinished.clone(), client_frame(0xc0, b"x")].concat(),
                Some(CloseCode::ProtocolError),
            ),
        ] {
            assert_eq!(read(&bytes, usize::MAX).err(), expected, "{what}");
        }
    }

    #[test]
    fn control_frames_may_come_between_the_fragments_of_a_message() {
        let body = compressed(&"hello ".repeat(50));
        let (head, tail) = body.split_at(5);
        let ping = client_frame(0x89, b"hi");
        let bytes = [
            client_frame(0x41, head),
            ping.clone(),
            client_frame(0x80, tail),
        ]
        .concat();
        let whole = as_client(&websocket::text(&"hello ".repeat(50)));
        assert_eq!(read(&bytes, usize::MAX).unwrap(), [ping, whole].concat());
    }

    proptest! {
        #[test]
        fn compressed_frames_decompress_however_they_are_cut(
            texts in prop::collection::vec("[a-c]{0,700}", 1..6),
            cut in 1usize..90,
        ) {
            let frames: BytesMut = texts.iter().flat_map(|text| websocket::text(text)).collect();
            let frames = frames.freeze();
            let sent = as_client(&Compressor::default().compress(&frames));
            prop_assert_eq!(read(&sent, cut).unwrap(), as_client(&frames));
        }
    }

    /// Returns the plain frames behind a [`Decompressor`].
    fn read(bytes: &[u8], cut: usize) -> Result<Vec<u8>, CloseCode> {
        let mut decompressor = Decompressor::default();
        let mut out = BytesMut::new();
        for piece in bytes.chunks(cut.min(bytes.len()).max(1)) {
            decompressor.pass(piece, &mut out);
        }
        match decompressor.breach() {
            Some(breach) => Err(breach),
            None => Ok(out.to_vec()),
        }
    }

    /// Returns the gateway's frames as a client would send them, with a mask of zeros.
    fn as_client(frames: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = frames;
        while !rest.is_empty() {
            let (header, payload, later) = websocket::split(rest).unwrap();
            out.extend(client_frame(header.first(), payload));
            rest = later;
        }
        out
    }

    fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        websocket::put_masked(&mut out, first, payload, [0; 4]);
        out
    }

    fn compressed(text: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 64);
        let mut compress = Compress::new(Compression::default(), false);
        compress
            .compress_vec(text.as_bytes(), &mut out, FlushCompress::Sync)
            .unwrap();
        out.truncate(out.len() - FLUSHED.len());
        out
    }
}
