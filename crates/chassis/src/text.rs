//! Checks the length and the characters of texts that people write.

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{
        BidiControl, BinaryProperty, DefaultIgnorableCodePoint, Emoji, EmojiModifier, ExtendedPictographic,
        GeneralCategory, GeneralCategoryGroup, GraphemeLink, Ideographic, JoiningType, LineBreak,
        NoncharacterCodePoint, VariationSelector,
    },
};

/// The reasons why a text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// The text has no visible character.
    #[error("must not be empty")]
    Empty,
    /// The text has more characters than allowed.
    #[error("must be at most {max} characters")]
    TooLong {
        /// The maximum number of characters.
        max: usize,
    },
    /// The text has a control character, which nobody types on purpose and
    /// which could forge a log line or a mail header.
    #[error("must not contain control characters")]
    ControlCharacter,
    /// The text has a character that stands for lost characters.
    #[error("contains a replacement character (U+FFFD or U+FFFC): the text was damaged on its way, or isn't UTF-8")]
    Damaged,
    /// The text has a character that Unicode doesn't define, or leaves to
    /// private use. A reader may see another character than the writer.
    #[error("must contain only characters that Unicode defines")]
    Undefined,
    /// The text has an invisible character in a place where it has no effect.
    #[error(
        "must not contain invisible characters, other than joiners and selectors where a script or an emoji needs them"
    )]
    Invisible,
    /// The text begins with a combining mark, such as an accent without a
    /// letter.
    #[error("must not begin with a combining mark")]
    LoneMark,
}

/// The regular expression (ECMA-262) for a line in the OpenAPI document: a
/// visible character, and no forbidden character before or after it. The
/// schema states the maximum length separately.
///
/// The expression matches some texts that [`line`] refuses. A regular
/// expression that every tool understands can name neither Unicode's
/// properties nor the characters beyond the basic plane.
pub const LINE: &str = concat!(
    r"^[^\u0000-\u001F\u007F-\u009F\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069\uE000-\uF8FF\uFDD0-\uFDEF\uFEFF\uFFFC-\uFFFF]*",
    r"[^\u0000-\u0020\u007F-\u00A0\u00AD\u034F\u061C\u115F\u1160\u1680\u2000-\u200F\u2028-\u202F\u205F-\u206F\u2800\u3000\u3164\uE000-\uF8FF\uFDD0-\uFDEF\uFEFF\uFFA0\uFFFC-\uFFFF]",
    r"[^\u0000-\u001F\u007F-\u009F\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069\uE000-\uF8FF\uFDD0-\uFDEF\uFEFF\uFFFC-\uFFFF]*$",
);
/// The regular expression for a paragraph in the OpenAPI document. It equals
/// [`LINE`], except that it also allows line breaks.
pub const PARAGRAPH: &str = concat!(
    r"^[^\u0000-\u0009\u000B-\u001F\u007F-\u009F\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069\uE000-\uF8FF\uFDD0-\uFDEF\uFEFF\uFFFC-\uFFFF]*",
    r"[^\u0000-\u0020\u007F-\u00A0\u00AD\u034F\u061C\u115F\u1160\u1680\u2000-\u200F\u2028-\u202F\u205F-\u206F\u2800\u3000\u3164\uE000-\uF8FF\uFDD0-\uFDEF\uFEFF\uFFA0\uFFFC-\uFFFF]",
    r"[^\u0000-\u0009\u000B-\u001F\u007F-\u009F\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069\uE000-\uF8FF\uFDD0-\uFDEF\uFEFF\uFFFC-\uFFFF]*$",
);
/// The OpenAPI document has this description beside [`LINE`] and [`PARAGRAPH`].
pub const BEYOND_THE_PATTERN: &str = "The service refuses some texts that the pattern admits: characters that Unicode \
     doesn't define, invisible characters that no script or emoji needs where they stand, and a combining mark at the \
     beginning.";

/// Characters that are blank, although no property of Unicode says so: the
/// empty cell of Braille, two blank hieroglyphs, and a note without a head.
const BLANK: [char; 4] = ['\u{2800}', '\u{13441}', '\u{13442}', '\u{1D159}'];
/// Characters with which a program marks annotations internally, and which a
/// text must not contain (The Unicode Standard, section 23.8).
const ANNOTATION: [char; 3] = ['\u{FFF9}', '\u{FFFA}', '\u{FFFB}'];
const OBJECT_REPLACEMENT: char = '\u{FFFC}';

const ZERO_WIDTH_SPACE: char = '\u{200B}';
const ZERO_WIDTH_NON_JOINER: char = '\u{200C}';
const ZERO_WIDTH_JOINER: char = '\u{200D}';
const MONGOLIAN_VOWEL_SEPARATOR: char = '\u{180E}';
const TEXT_STYLE: char = '\u{FE0E}';
const EMOJI_STYLE: char = '\u{FE0F}';
const BLACK_FLAG: char = '\u{1F3F4}';
const CANCEL_TAG: char = '\u{E007F}';
/// The maximum number of tags in the flag of a part of a country, such as
/// England, without the tag that ends the flag.
const MAX_TAGS: usize = 6;

/// Accepts a line of 1 to `max` characters, and removes the white space around
/// it.
pub fn line(text: &str, max: usize) -> Result<String, InvalidText> {
    checked(text, max, char::is_control)
}

/// Accepts a text of 1 to `max` characters that may have several lines.
pub fn paragraph(text: &str, max: usize) -> Result<String, InvalidText> {
    checked(text, max, |c| c.is_control() && c != '\n')
}

/// Accepts a line that another service of the system has accepted before,
/// perhaps with the rules of an earlier version. The writer can no longer
/// correct the text. So forbidden characters are not an error here: characters
/// that could forge something, or that a queue refuses, are removed, and all
/// other characters stay.
pub fn received(text: &str, max: usize) -> Result<String, InvalidText> {
    let allowed: String = text.chars().filter(|c| !c.is_control() && !reorders(*c) && !is_noncharacter(*c)).collect();
    let trimmed = allowed.trim();
    if trimmed.is_empty() {
        return Err(InvalidText::Empty);
    }
    if allowed.chars().count() > max { Err(InvalidText::TooLong { max }) } else { Ok(trimmed.to_owned()) }
}

/// Checks a text, and removes the white space around it. The length is checked
/// first, because the OpenAPI document states the maximum length of the text
/// that the client sends.
fn checked(text: &str, max: usize, forbidden: impl Fn(char) -> bool) -> Result<String, InvalidText> {
    let trimmed = text.trim_matches(is_blank);
    if trimmed.is_empty() {
        return Err(InvalidText::Empty);
    }
    if text.chars().count() > max {
        return Err(InvalidText::TooLong { max });
    }
    if text.chars().any(|c| forbidden(c) || reorders(c)) {
        return Err(InvalidText::ControlCharacter);
    }
    let chars: Vec<char> = trimmed.chars().collect();
    for (at, c) in chars.iter().enumerate() {
        match category(*c) {
            _ if [char::REPLACEMENT_CHARACTER, OBJECT_REPLACEMENT].contains(c) => return Err(InvalidText::Damaged),
            GeneralCategory::Unassigned | GeneralCategory::PrivateUse => return Err(InvalidText::Undefined),
            _ if ANNOTATION.contains(c) => return Err(InvalidText::Invisible),
            _ if has::<DefaultIgnorableCodePoint>(*c) && !is_needed(&chars, at) => return Err(InvalidText::Invisible),
            _ => {}
        }
    }
    if is_mark(chars[0]) {
        return Err(InvalidText::LoneMark);
    }
    if chars.iter().any(|c| is_visible(*c)) { Ok(trimmed.to_owned()) } else { Err(InvalidText::Empty) }
}

/// Returns whether an invisible character stands where a script or an emoji
/// needs it.
fn is_needed(chars: &[char], at: usize) -> bool {
    let before = &chars[..at];
    let Some(previous) = before.last().copied() else { return false };
    let next = chars.get(at + 1).copied();
    match chars[at] {
        // Khmer, Thai and other scripts are written without spaces: a zero-width
        // space marks the end of a word.
        ZERO_WIDTH_SPACE => is_of_script_without_spaces(previous) && next.is_some_and(is_of_script_without_spaces),
        ZERO_WIDTH_JOINER if is_end_of_emoji(previous) => next.is_some_and(has::<ExtendedPictographic>),
        ZERO_WIDTH_JOINER | ZERO_WIDTH_NON_JOINER => {
            // Beside a virama in an Indic script, a joiner or non-joiner selects
            // the form of the consonants.
            has::<GraphemeLink>(previous)
                || next.is_some_and(has::<GraphemeLink>) && is_visible(previous)
                // In a cursive script, it selects the form of the letters.
                || ends_cursive(before) && next.is_some_and(is_visible)
        }
        MONGOLIAN_VOWEL_SEPARATOR => ends_cursive(before) && next.is_some_and(is_visible),
        TEXT_STYLE | EMOJI_STYLE => has::<Emoji>(previous),
        c if has::<VariationSelector>(c) && c > EMOJI_STYLE => has::<Ideographic>(previous),
        c if has::<VariationSelector>(c) => !previous.is_ascii() && is_visible(previous),
        c if is_tag(c) => is_tag_of_a_flag(before, c, next),
        _ => false,
    }
}

/// Returns whether a tag is a part of a flag. The flag of England, for example,
/// is a black flag, the tags `gbeng`, and a tag that ends them.
fn is_tag_of_a_flag(before: &[char], tag: char, next: Option<char>) -> bool {
    let tags = before.iter().rev().take_while(|c| is_tag(**c)).count();
    let is_open = !before[before.len() - tags..].contains(&CANCEL_TAG);
    let is_flag = before.len() > tags && before[before.len() - tags - 1] == BLACK_FLAG;
    let fits = if tag == CANCEL_TAG { tags > 0 } else { tags < MAX_TAGS && next.is_some_and(is_tag) };
    is_flag && is_open && fits
}

/// Returns whether the character is a tag for a digit or a small letter, or the
/// tag that ends a flag.
fn is_tag(c: char) -> bool {
    matches!(c, '\u{E0030}'..='\u{E0039}' | '\u{E0061}'..='\u{E007A}' | CANCEL_TAG)
}

fn is_end_of_emoji(c: char) -> bool {
    c == EMOJI_STYLE || has::<ExtendedPictographic>(c) || has::<EmojiModifier>(c)
}

/// Returns whether the form of the last letter depends on its neighbours. The
/// marks on the letter are skipped.
fn ends_cursive(before: &[char]) -> bool {
    let joining = |c: &char| CodePointMapData::<JoiningType>::new().get(*c);
    let letter = before.iter().rev().map(joining).find(|kind| *kind != JoiningType::Transparent);
    let cursive = [JoiningType::DualJoining, JoiningType::LeftJoining, JoiningType::RightJoining];
    letter.is_some_and(|kind| cursive.contains(&kind))
}

fn is_of_script_without_spaces(c: char) -> bool {
    CodePointMapData::<LineBreak>::new().get(c) == LineBreak::ComplexContext
}

/// Returns whether the character is white space, or looks like it.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || BLANK.contains(&c)
}

fn is_visible(c: char) -> bool {
    let seen = GeneralCategoryGroup::Letter
        .union(GeneralCategoryGroup::Mark)
        .union(GeneralCategoryGroup::Number)
        .union(GeneralCategoryGroup::Punctuation)
        .union(GeneralCategoryGroup::Symbol);
    seen.contains(category(c)) && !has::<DefaultIgnorableCodePoint>(c) && !BLANK.contains(&c)
}

fn is_mark(c: char) -> bool {
    GeneralCategoryGroup::Mark.contains(category(c))
}

fn category(c: char) -> GeneralCategory {
    CodePointMapData::<GeneralCategory>::new().get(c)
}

fn has<P: BinaryProperty>(c: char) -> bool {
    CodePointSetData::new::<P>().contains(c)
}

/// Returns whether the character separates lines, or reorders text on screen,
/// so that a name could look like another name.
fn reorders(c: char) -> bool {
    use GeneralCategory::{LineSeparator, ParagraphSeparator};
    // This character marks the byte order of a text. Older texts also use it as a
    // space without width.
    const BYTE_ORDER_MARK: char = '\u{FEFF}';
    has::<BidiControl>(c) || c == BYTE_ORDER_MARK || matches!(category(c), LineSeparator | ParagraphSeparator)
}

/// Returns whether Unicode guarantees that the code point is never a character.
/// SQS refuses messages with some of these code points, so an event that contains
/// one of them could never be sent.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>
fn is_noncharacter(c: char) -> bool {
    has::<NoncharacterCodePoint>(c)
}

#[cfg(test)]
mod tests {
    use super::{InvalidText, line, paragraph, received};

    #[test]
    fn white_space_around_a_line_is_removed() {
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
    fn characters_that_reorder_text_are_refused() {
        for c in ['\u{2028}', '\u{061C}', '\u{200E}', '\u{200F}', '\u{202E}', '\u{2069}', '\u{FEFF}'] {
            expect_refused(&format!("Ada{c}"), &InvalidText::ControlCharacter);
        }
    }

    #[track_caller]
    fn expect_refused(text: &str, why: &InvalidText) {
        assert_eq!(line(text, 80).as_ref(), Err(why), "{text:?}");
        assert_eq!(paragraph(text, 80).as_ref(), Err(why), "{text:?}");
    }

    #[test]
    fn a_name_in_any_script_is_accepted_unchanged() {
        let names = [
            "Ada Lovelace",
            "Zoë",
            "Zoe\u{308}",
            "Nguyễn Thị Ánh",
            "O\u{2019}Brien",
            "Jean-Luc",
            "Łukasz",
            "Þór",
            "ß",
            "X Æ A-12",
            "Ḥ\u{323}asan",
            "Αλέξανδρος",
            "Дмитрий",
            "Ўткир",
            "Գրիգոր",
            "გიორგი",
            "משה",
            "מֹשֶׁה",
            "محمد",
            "مُحَمَّد",
            "علی\u{200C}رضا",
            "پروین\u{200C}دخت",
            "کار\u{200C}خانه",
            "ܝܘܚܢܢ",
            "ߛߊ߲߬ߓߊ",
            "ትግስት",
            "अमित",
            "क्\u{200D}ष",
            "शक्\u{200C}ति",
            "র\u{200D}্যাব",
            "শেখ হাসিনা",
            "ਸਿੰਘ",
            "ગાંધી",
            "ଓଡ଼ିଆ",
            "தமிழ்",
            "తెలుగు",
            "ಸಿದ್ದರಾಮಯ್ಯ",
            "ജോണ്\u{200D}",
            "ശ്രീ",
            "ශ්\u{200D}රී",
            "สมชาย",
            "ลาว ກອງ",
            "សុខ\u{200B}ហេង",
            "ရွှေ",
            "བསྟན་འཛིན",
            "ᠰᠠᠷᠠ\u{180E}ᠠ",
            "ᠮᠣᠩᠭᠣᠯ\u{180B}",
            "김민수",
            "각",
            "山田太郎",
            "葛\u{E0100}城",
            "禰\u{FE00}",
            "しげる",
            "ヴァネッサ",
            "王小明",
            "𠮷野家",
            "ꦗꦮ",
            "ᬩᬮᬶ",
            "ᏣᎳᎩ",
            "ᐃᓄᒃ",
            "ⵜⴰⵎⴰⵣⵉⵖⵜ",
            "𞤀𞤣𞤤𞤢𞤥",
            "⠁⠙⠁⠀⠇",
            "𓀀",
            "¡Hola!",
            "№ 7",
            "☕",
            "❤\u{FE0F}",
            "👩\u{200D}👩\u{200D}👧",
            "👩🏽\u{200D}🚀",
            "🏳\u{FE0F}\u{200D}🌈",
            "🇺🇦",
            "1\u{FE0F}\u{20E3}",
            "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
            "Ada ❤\u{FE0F} 🏴 tea",
        ];
        for name in names {
            assert_eq!(line(name, 80).as_deref(), Ok(name), "{name:?}");
            assert_eq!(paragraph(name, 80).as_deref(), Ok(name), "{name:?}");
        }
    }

    #[test]
    fn a_text_without_a_visible_character_is_refused() {
        for text in ["", " ", "\u{A0}\u{3000}", "\u{2800}", "\u{2800} \u{2800}", "\u{13441}", "\u{1D159}"] {
            expect_refused(text, &InvalidText::Empty);
        }
        let ignorable = [
            "\u{200B}",
            "\u{2060}",
            "\u{AD}",
            "\u{3164}",
            "\u{115F}",
            "\u{1160}",
            "\u{FFA0}",
            "\u{34F}",
            "\u{200D}",
            "\u{200C}\u{200D}",
            "\u{FE0F}",
            "\u{E0100}",
            "\u{180E}",
            "\u{17B4}",
            "\u{2064}",
            "\u{E0067}",
            "\u{E007F}",
        ];
        for text in ignorable {
            expect_refused(text, &InvalidText::Invisible);
            expect_refused(&format!("  {text} "), &InvalidText::Invisible);
        }
        for text in ["\u{301}", "\u{301}\u{302}", " \u{308}", "\u{20DD}", "\u{903}", "\u{301}Ada"] {
            expect_refused(text, &InvalidText::LoneMark);
        }
    }

    #[test]
    fn an_invisible_character_without_effect_is_refused() {
        let invisible = [
            "\u{200B}",
            "\u{200C}",
            "\u{200D}",
            "\u{2060}",
            "\u{AD}",
            "\u{3164}",
            "\u{FE0F}",
            "\u{FE00}",
            "\u{E0100}",
            "\u{180B}",
            "\u{E0061}",
            "\u{E007F}",
            "\u{FFF9}",
            "\u{FFFB}",
        ];
        for c in invisible {
            for text in [format!("{c}Ada"), format!("A{c}da"), format!("Ada{c}"), format!("Ada{c} Lovelace")] {
                expect_refused(&text, &InvalidText::Invisible);
            }
        }
        let misplaced = [
            "علی\u{200C}",
            "\u{200C}علی",
            "علی\u{200C}\u{200C}رضا",
            "علی\u{200D}\u{200C}رضا",
            "क्\u{200D}\u{200D}ष",
            "សុខ\u{200B}",
            "សុខ\u{200B}\u{200B}ហេង",
            "👩\u{200D}",
            "👩\u{200D}\u{200D}👧",
            "👩\u{200D}a",
            "❤\u{FE0F}\u{FE0F}",
            "葛\u{E0100}\u{E0100}",
            "🏴\u{E0067}",
            "🏴\u{E007F}",
            "👩\u{E0067}\u{E007F}",
            "🏴\u{E0067}\u{E007F}\u{E0067}\u{E007F}",
            "🏴\u{E0061}\u{E0061}\u{E0061}\u{E0061}\u{E0061}\u{E0061}\u{E0061}\u{E007F}",
        ];
        for text in misplaced {
            expect_refused(text, &InvalidText::Invisible);
        }
    }

    #[test]
    fn a_text_with_replacement_characters_is_refused_as_damaged() {
        let latin_1 = String::from_utf8_lossy(b"Zo\xEB").into_owned();
        for text in [latin_1.as_str(), "\u{FFFD}", "Ada\u{FFFC}"] {
            expect_refused(text, &InvalidText::Damaged);
        }
    }

    #[test]
    fn characters_that_unicode_does_not_define_are_refused() {
        for c in [
            '\u{FDD0}',
            '\u{FFFE}',
            '\u{FFFF}',
            '\u{1FFFE}',
            '\u{10FFFF}',
            '\u{378}',
            '\u{E000}',
            '\u{F8FF}',
            '\u{F0000}',
        ] {
            expect_refused(&format!("Ada{c}"), &InvalidText::Undefined);
            expect_refused(&c.to_string(), &InvalidText::Undefined);
        }
    }

    #[test]
    fn texts_that_an_earlier_version_accepted_can_still_be_read() {
        for text in ["\u{3164}", "\u{200B}", "\u{301}", "Zo\u{FFFD}", "Ada\u{E000}", "\u{2800}", "A\u{AD}da"] {
            assert_eq!(received(text, 80).as_deref(), Ok(text), "{text:?}");
        }
    }

    #[test]
    fn characters_that_could_forge_something_are_removed_from_earlier_texts() {
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
