//! Compressed forms of what many receivers are sent, each made once.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::limits::PACKED_FORMS_MAX;
use usher_core::limits::PACKED_BYTES_MIN;
use usher_core::protocol::deflate::Compressor;

/// The compressed forms made last. A receiver's turn comes right after another's with the same bytes, so a few are enough.
#[derive(Debug, Default)]
pub(crate) struct CompressionCache {
    compressor: Option<Compressor>,
    forms: VecDeque<Form>,
}

#[derive(Debug)]
struct Form {
    plain: Bytes,
    compressed: Bytes,
}

impl CompressionCache {
    /// The compressed form of some frames. The same bytes in memory, the same form.
    pub(crate) fn form(&mut self, plain: &Bytes) -> Bytes {
        if plain.len() < PACKED_BYTES_MIN {
            return plain.clone();
        }
        // A form holds on to its bytes, so that nothing else can come to stand in their place.
        let is_it =
            |form: &&Form| form.plain.as_ptr() == plain.as_ptr() && form.plain.len() == plain.len();
        if let Some(form) = self.forms.iter().find(is_it) {
            return form.compressed.clone();
        }
        // A loop whose clients all want plain frames needs no compressor.
        let compressed = self.compressor.get_or_insert_default().compress(plain);
        self.forms.truncate(PACKED_FORMS_MAX - 1);
        self.forms.push_front(Form {
            plain: plain.clone(),
            compressed: compressed.clone(),
        });
        compressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use usher_core::protocol::websocket;

    #[test]
    fn the_same_bytes_are_compressed_once_and_others_never_taken_for_them() {
        let mut compression_cache = CompressionCache::default();
        let frames: Vec<Bytes> = (0..PACKED_FORMS_MAX + 1)
            .map(|number| websocket::text(&number.to_string().repeat(1_000)))
            .collect();
        let forms: Vec<Bytes> = frames
            .iter()
            .map(|frame| compression_cache.form(frame))
            .collect();
        for (frame, form) in frames.iter().zip(&forms).skip(1) {
            assert!(form.len() < frame.len() / 10);
            assert_eq!(compression_cache.form(frame).as_ptr(), form.as_ptr());
        }
        assert_eq!(compression_cache.forms.len(), PACKED_FORMS_MAX);
        assert_ne!(
            compression_cache.form(&frames[0]).as_ptr(),
            forms[0].as_ptr()
        );
        let alike = Bytes::copy_from_slice(&frames[1]);
        assert_ne!(compression_cache.form(&alike).as_ptr(), forms[1].as_ptr());
        assert_eq!(compression_cache.form(&alike), forms[1]);
    }

    #[test]
    fn short_frames_stay_as_they_are() {
        let frame = websocket::text("a short one");
        assert_eq!(CompressionCache::default().form(&frame), frame);
    }
}
