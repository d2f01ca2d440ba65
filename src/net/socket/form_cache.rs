//! Creates each form of shared frames once: compressed, or as events of a stream.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::limits::PACKED_FORMS_MAX;
use usher_core::limits::PACKED_BYTES_MIN;
use usher_core::protocol::deflate::Compressor;
use usher_core::protocol::server::Frames;
use usher_core::protocol::sse::Encoder;

/// The latest forms. A loop sends one chunk to all its receivers in a row, so a few are enough.
#[derive(Debug, Default)]
pub(crate) struct FormCache {
    compressor: Option<Compressor>,
    forms: VecDeque<Form>,
}

#[derive(Debug)]
struct Form {
    plain: Bytes,
    /// `None` for the compressed form.
    encoder: Option<Encoder>,
    bytes: Bytes,
}

impl FormCache {
    /// Returns the compressed form of frames. Equal addresses give the same form.
    pub(crate) fn compressed(&mut self, plain: &Bytes) -> Bytes {
        if plain.len() < PACKED_BYTES_MIN {
            return plain.clone();
        }
        self.find(plain, None).unwrap_or_else(|| {
            // Created on demand: a loop whose clients all want plain frames needs no compressor.
            let bytes = self.compressor.get_or_insert_default().compress(plain);
            self.keep(plain, None, bytes)
        })
    }

    /// Returns the stream events of frames.
    pub(crate) fn events(&mut self, frames: &Frames, encoder: &Encoder) -> Bytes {
        self.find(&frames.bytes, Some(encoder)).unwrap_or_else(|| {
            let bytes = encoder.form(frames);
            self.keep(&frames.bytes, Some(encoder.clone()), bytes)
        })
    }

    fn find(&self, plain: &Bytes, encoder: Option<&Encoder>) -> Option<Bytes> {
        // A form keeps its plain bytes alive, so no other bytes can take their address.
        let is_it = |form: &&Form| {
            form.plain.as_ptr() == plain.as_ptr()
                && form.plain.len() == plain.len()
                && form.encoder.as_ref() == encoder
        };
        self.forms.iter().find(is_it).map(|form| form.bytes.clone())
    }

    fn keep(&mut self, plain: &Bytes, encoder: Option<Encoder>, bytes: Bytes) -> Bytes {
        self.forms.truncate(PACKED_FORMS_MAX - 1);
        self.forms.push_front(Form {
            plain: plain.clone(),
            encoder,
            bytes: bytes.clone(),
        });
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use usher_core::protocol::websocket;

    #[test]
    fn the_same_bytes_are_compressed_once_and_others_never_taken_for_them() {
        let mut cache = FormCache::default();
        let frames: Vec<Bytes> = (0..PACKED_FORMS_MAX + 1)
            .map(|number| websocket::text(&number.to_string().repeat(1_000)))
            .collect();
        let forms: Vec<Bytes> = frames.iter().map(|frame| cache.compressed(frame)).collect();
        for (frame, form) in frames.iter().zip(&forms).skip(1) {
            assert!(form.len() < frame.len() / 10);
            assert_eq!(cache.compressed(frame).as_ptr(), form.as_ptr());
        }
        assert_eq!(cache.forms.len(), PACKED_FORMS_MAX);
        assert_ne!(cache.compressed(&frames[0]).as_ptr(), forms[0].as_ptr());
        let alike = Bytes::copy_from_slice(&frames[1]);
        assert_ne!(cache.compressed(&alike).as_ptr(), forms[1].as_ptr());
        assert_eq!(cache.compressed(&alike), forms[1]);
    }

    #[test]
    fn short_frames_stay_as_they_are() {
        let frame = websocket::text("a short one");
        assert_eq!(FormCache::default().compressed(&frame), frame);
    }
}
