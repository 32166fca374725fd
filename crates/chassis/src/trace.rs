//! The trace context of a request, as the W3C header `traceparent` holds it
//! (<https://www.w3.org/TR/trace-context/>). It is copied from the request to
//! the order, and from the order to every event of the order.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A `traceparent` header's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TraceContext(String);

impl TraceContext {
    /// Parses a `traceparent` header. Returns `None` if the value is not a
    /// well-formed value of version 00.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let fields = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        let lengths_match = fields.iter().map(|part| part.len()).eq([2, 32, 16, 2]);
        let all_hex = fields.iter().all(|part| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        let ids_set = fields[1].bytes().any(|b| b != b'0') && fields[2].bytes().any(|b| b != b'0');
        (parts.next().is_none() && fields[0] == "00" && lengths_match && all_hex && ids_set)
            .then(|| Self(header.to_owned()))
    }

    /// Converts X-Ray's header (`Root=1-…;Parent=…;Sampled=1`). X-Ray's trace
    /// id has the same 128 bits as W3C's, in another notation.
    pub fn from_xray(header: &str) -> Option<Self> {
        let field = |name: &str| header.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
        let trace_id = field("Root")?.strip_prefix("1-")?.replace('-', "");
        let parent = field("Parent").map_or_else(|| format!("{:016x}", fastrand::u64(1..)), str::to_owned);
        let sampled = if field("Sampled") == Some("0") { "00" } else { "01" };
        Self::parse(&format!("00-{trace_id}-{parent}-{sampled}"))
    }

    /// Returns the id of the trace, 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        self.0.split('-').nth(1).unwrap_or_default()
    }

    /// Starts a new trace, for a request without one.
    pub fn start() -> Self {
        Self(format!("00-{:032x}-{:016x}-01", fastrand::u128(1..), fastrand::u64(1..)))
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::TraceContext;

    #[test]
    fn a_malformed_traceparent_is_ignored() {
        for header in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(header), None, "{header}");
        }
    }

    #[test]
    fn an_xray_header_keeps_its_trace_id() {
        let trace =
            TraceContext::from_xray("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1")
                .map(|t| t.to_string());
        assert_eq!(trace.as_deref(), Some("00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"));
    }

    #[test]
    fn a_started_trace_is_well_formed() {
        assert!(TraceContext::parse(&TraceContext::start().to_string()).is_some());
    }
}
