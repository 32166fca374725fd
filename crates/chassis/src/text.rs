//! Texts that people write: bounded, and without control characters.

/// Why a text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// Nothing but white space.
    #[error("must not be empty")]
    Empty,
    /// More characters than allowed.
    #[error("must be at most {max} characters")]
    TooLong {
        /// The most characters allowed.
        max: usize,
    },
    /// A character that no one types on purpose and that could forge a log
    /// line or a mail header.
    #[error("must not contain control characters")]
    ControlCharacter,
}

/// What [`line`] takes, but for its length, as a regular expression (ECMA-262)
/// for the API's document: something other than white space, and nothing
/// forbidden before or after it.
pub const LINE: &str = concat!(
    r"^[^\u0000-\u001F\u007F-\u009F\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069\uFEFF\uFFFE\uFFFF]*",
    r"[^\u0000-\u0020\u007F-\u00A0\u061C\u1680\u2000-\u200A\u200E\u200F\u2028-\u202F\u205F\u2066-\u2069\u3000\uFEFF\uFFFE\uFFFF]",
    r"[^\u0000-\u001F\u007F-\u009F\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069\uFEFF\uFFFE\uFFFF]*$",
);
/// The same for [`paragraph`].
pub const PARAGRAPH: &str = concat!(
    r"^[^\u0000-\u0009\u000B-\u001F\u007F-\u009F\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069\uFEFF\uFFFE\uFFFF]*",
    r"[^\u0000-\u0020\u007F-\u00A0\u061C\u1680\u2000-\u200A\u200E\u200F\u2028-\u202F\u205F\u2066-\u2069\u3000\uFEFF\uFFFE\uFFFF]",
    r"[^\u0000-\u0009\u000B-\u001F\u007F-\u009F\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069\uFEFF\uFFFE\uFFFF]*$",
);

/// A line of 1 to `max` characters, without white space around it.
pub fn line(text: &str, max: usize) -> Result<String, InvalidText> {
    checked(text, max, char::is_control)
}

/// A text of 1 to `max` characters that may have several lines.
pub fn paragraph(text: &str, max: usize) -> Result<String, InvalidText> {
    checked(text, max, |c| c.is_control() && c != '\n')
}

/// A line that a service of ours took from somebody, perhaps by the rules of an
/// earlier version. Nobody is left who could be told what these forbid now: it
/// is left out.
pub fn received(text: &str, max: usize) -> Result<String, InvalidText> {
    let allowed: String = text.chars().filter(|c| !c.is_control() && !is_invisible(*c)).collect();
    line(&allowed, max)
}

/// The rules are about the text as it was sent, so that they can be told in
/// the API's document; the white space around it goes afterwards.
fn checked(text: &str, max: usize, forbidden: impl Fn(char) -> bool) -> Result<String, InvalidText> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(InvalidText::Empty);
    }
    if text.chars().count() > max {
        return Err(InvalidText::TooLong { max });
    }
    if text.chars().any(|c| forbidden(c) || is_invisible(c)) {
        return Err(InvalidText::ControlCharacter);
    }
    Ok(trimmed.to_owned())
}

/// Line separators; the characters that reorder text on screen (Unicode's
/// `Bidi_Control`), with which a name could show as another; and the two of the
/// basic plane that are no characters, which no SQS message may hold: an event
/// with one could never be sent.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{2028}' | '\u{2029}'
            | '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
            | '\u{FEFF}' | '\u{FFFE}' | '\u{FFFF}'
    )
}

#[cfg(test)]
mod tests {
    use super::{InvalidText, line, paragraph, received};

    #[test]
    fn white_space_around_a_line_is_dropped() {
        assert_eq!(line("  Ada Lovelace ", 80), Ok("Ada Lovelace".into()));
    }

    #[test]
    fn a_line_break_is_a_control_character_in_a_line_but_not_in_a_paragraph() {
        assert_eq!(line("Ada\nBcc: all", 80), Err(InvalidText::ControlCharacter));
        assert_eq!(paragraph("one\ntwo", 80), Ok("one\ntwo".into()));
        assert_eq!(paragraph("one\r\ntwo", 80), Err(InvalidText::ControlCharacter));
        assert_eq!(line("Ada\n", 80), Err(InvalidText::ControlCharacter));
    }

    #[test]
    fn what_reorders_text_and_what_no_queue_takes_is_refused() {
        for c in ['\u{2028}', '\u{061C}', '\u{200E}', '\u{200F}', '\u{202E}', '\u{2069}', '\u{FFFE}', '\u{FFFF}'] {
            assert_eq!(line(&format!("Ada{c}"), 80), Err(InvalidText::ControlCharacter), "{c:?}");
            assert_eq!(paragraph(&format!("Ada{c}"), 80), Err(InvalidText::ControlCharacter), "{c:?}");
        }
    }

    #[test]
    fn what_is_forbidden_now_is_left_out_of_what_was_taken_before() {
        assert_eq!(received("\u{200F}Ada\nLovelace\u{FFFF} ", 80), Ok("AdaLovelace".into()));
        assert_eq!(received("\u{200F}\n", 80), Err(InvalidText::Empty));
        assert_eq!(received("äöüx", 3), Err(InvalidText::TooLong { max: 3 }));
    }

    #[test]
    fn length_is_counted_in_characters() {
        assert_eq!(line("äöü", 3), Ok("äöü".into()));
        assert_eq!(line("äöüx", 3), Err(InvalidText::TooLong { max: 3 }));
        assert_eq!(line("äöü ", 3), Err(InvalidText::TooLong { max: 3 }));
        assert_eq!(line(" ", 3), Err(InvalidText::Empty));
    }
}
