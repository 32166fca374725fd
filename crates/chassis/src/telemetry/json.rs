//! Writes the members of a JSON object as text. A log line is written at once, without
//! a tree of values in between: most of the instructions of a warm invocation would
//! otherwise be spent on its log lines.

use std::fmt::{self, Display, Write};

/// The members of a JSON object so far, without the braces around them.
#[derive(Debug, Default)]
pub(super) struct Members(String);

impl Members {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether a member has this name.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.match_indices(name).any(|(at, _)| {
            let rest = &self.0[at + name.len()..];
            self.0[..at].ends_with('"') && rest.starts_with("\":")
        })
    }

    fn name(&mut self, name: &str) {
        self.0.push_str(if self.0.is_empty() { "\"" } else { ",\"" });
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    /// Adds a number or a truth value.
    pub(super) fn literal(&mut self, name: &str, value: impl Display) {
        self.name(name);
        write(&mut self.0, value);
    }

    /// Adds a text, with escapes where JSON needs them.
    pub(super) fn text(&mut self, name: &str, value: impl Display) {
        self.name(name);
        self.0.push('"');
        write(&mut Escaped(&mut self.0), value);
        self.0.push('"');
    }

    /// Adds a value that is JSON already.
    pub(super) fn json(&mut self, name: &str, value: &str) {
        self.name(name);
        self.0.push_str(value);
    }

    /// Adds all members of `other`.
    pub(super) fn extend(&mut self, other: &str) {
        if !self.0.is_empty() && !other.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(other);
    }

    /// Returns the object as a line.
    pub(super) fn into_line(self) -> String {
        let mut line = self.0;
        line.insert(0, '{');
        line.push_str("}\n");
        line
    }
}

fn write(to: &mut impl Write, value: impl Display) {
    // A string takes every text. If the value's own formatting fails, what it has
    // written so far stays.
    write!(to, "{value}").ok();
}

/// Escapes what is written through it as the content of a JSON string.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        let needs_escape = |c: char| c < ' ' || matches!(c, '"' | '\\');
        while let Some(at) = rest.find(needs_escape) {
            let (plain, special) = rest.split_at(at);
            self.0.push_str(plain);
            let mut chars = special.chars();
            match chars.next() {
                Some('"') => self.0.push_str("\\\""),
                Some('\\') => self.0.push_str("\\\\"),
                Some('\n') => self.0.push_str("\\n"),
                Some(control) => write!(self.0, "\\u{:04x}", u32::from(control))?,
                None => {}
            }
            rest = chars.as_str();
        }
        self.0.push_str(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Members;

    #[test]
    fn every_text_stays_the_same_in_json() {
        for text in ["", "plain", "a \"quoted\" \\ text", "line\nline\ttab\u{0}\u{1f}", "ä€𝄞", "\""] {
            let mut members = Members::default();
            members.text("first", text);
            members.text("second", text);
            let read: serde_json::Value = serde_json::from_str(&members.into_line()).unwrap();
            assert_eq!(read, serde_json::json!({ "first": text, "second": text }));
        }
    }

    #[test]
    fn a_member_is_found_by_its_whole_name() {
        let mut members = Members::default();
        members.text("order_id", "payment_id");
        assert!(members.contains("order_id"));
        assert!(!members.contains("id") && !members.contains("order") && !members.contains("payment_id"));
    }
}
