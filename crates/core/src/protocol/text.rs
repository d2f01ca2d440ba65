//! Visible text: the rules for messages and for one-line texts such as names.
//!
//! The database has the same rules (`usher.has_ink`, `usher.is_line`), and so do the web pages (`src/web/text.js`).
//! `tests/it/texts.rs` compares the three over all characters.

/// Whether a text has at least one visible character.
#[must_use]
pub fn has_ink(text: &str) -> bool {
    text.chars().any(|c| !is_invisible(c))
}

/// Whether a text is visible, and appears as one line in the order of its letters. It has no line breaks, no other
/// controls and no overrides of the writing direction.
#[must_use]
pub fn is_line(text: &str) -> bool {
    has_ink(text) && !text.chars().any(breaks_line)
}

/// Whether a character is invisible: white space, controls, the characters that Unicode calls default ignorable, and
/// the blanks that count as letters or symbols (the Hangul fillers, the empty Braille pattern, the null notehead).
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{0}'..='\u{20}' | '\u{7f}'..='\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}'
        | '\u{1680}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2000}'..='\u{200f}'
        | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' | '\u{2800}' | '\u{3000}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d159}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Whether a character ends the line or changes the layout of the text after it. The marks that a name in Arabic or
/// Hebrew may need (U+061C, U+200E, U+200F) do neither.
fn breaks_line(c: char) -> bool {
    matches!(c,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
        | '\u{fff9}'..='\u{fffb}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_visible_character_makes_a_text_visible() {
        for blank in [
            "",
            " ",
            "\n\t ",
            "\u{200b}\u{200d}\u{feff}",
            "\u{3164}",
            "\u{2800}\u{e0020}",
        ] {
            assert!(!has_ink(blank) && !is_line(blank), "{blank:?}");
        }
        for text in [
            "a",
            " . ",
            "\u{200f}א",
            "👩\u{200d}🚀",
            "❤\u{fe0f}",
            "🏴\u{e0067}\u{e007f}",
        ] {
            assert!(has_ink(text) && is_line(text), "{text:?}");
        }
    }

    #[test]
    fn a_line_has_no_break_and_no_override() {
        for text in [
            "a\nb",
            "a\u{2028}b",
            "a\u{202e}b",
            "a\u{2067}b\u{2069}",
            "a\u{7}",
            "a\u{9b}b",
        ] {
            assert!(has_ink(text) && !is_line(text), "{text:?}");
        }
    }
}
