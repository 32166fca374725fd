//! The trace context of a request (<https://www.w3.org/TR/trace-context/>): the id
//! of the trace, and the id of one span of the trace. It is copied from the request
//! to the order, and from the order to every event of the order.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The length of a `traceparent` of version 00.
const LENGTH: usize = 55;

/// A trace, and one span in it.
#[derive(Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    is_sampled: bool,
}

impl TraceContext {
    /// Parses a `traceparent` header. Returns `None` if the value is malformed. Of a
    /// later version of the header, only the part that version 00 has is read, as
    /// the specification demands.
    pub fn parse(header: &str) -> Option<Self> {
        let known = header.get(..LENGTH)?;
        let (version, rest) = (known.get(..2)?, &header[LENGTH..]);
        let is_later_version = version != "00" && version != "ff";
        if !(rest.is_empty() && version != "ff" || is_later_version && rest.starts_with('-')) {
            return None;
        }
        let mut parts = known.split('-');
        let fields = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        let lengths_match = fields.iter().map(|part| part.len()).eq([2, 32, 16, 2]);
        let is_hex = |part: &&str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !lengths_match || !fields.iter().all(is_hex) {
            return None;
        }
        let trace_id = u128::from_str_radix(fields[1], 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(fields[2], 16).ok().filter(|id| *id != 0)?;
        let flags = u8::from_str_radix(fields[3], 16).ok()?;
        Some(Self { trace_id, span_id, is_sampled: flags & 1 == 1 })
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

    /// Starts a new trace, for a request without one.
    pub fn start() -> Self {
        Self { trace_id: fastrand::u128(1..), span_id: fastrand::u64(1..), is_sampled: true }
    }

    /// Returns a new span of the same trace.
    #[must_use]
    pub fn new_span(&self) -> Self {
        Self { span_id: fastrand::u64(1..), ..self.clone() }
    }

    /// The trace's id, as 32 hexadecimal digits.
    pub fn trace_id(&self) -> impl fmt::Display + use<> {
        Hex32(self.trace_id)
    }

    /// The span's id, as 16 hexadecimal digits.
    pub fn span_id(&self) -> impl fmt::Display + use<> {
        Hex16(self.span_id)
    }

    /// Returns whether both are spans of the same trace.
    pub fn is_same_trace(&self, other: &Self) -> bool {
        self.trace_id == other.trace_id
    }

    /// A number that all spans of the trace share, and that is different from trace to
    /// trace: a selection of traces by this number selects the same in every function.
    pub fn selector(&self) -> u64 {
        // The first half of an id of X-Ray is a time, so only the second half is random.
        self.trace_id as u64
    }
}

struct Hex32(u128);

impl fmt::Display for Hex32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

struct Hex16(u64);

impl fmt::Display for Hex16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.is_sampled))
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A malformed context is replaced by a new one, and what contains it is still
/// accepted (W3C Trace Context, 4.3).
impl<'de> Deserialize<'de> for TraceContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self::parse(&text).unwrap_or_else(Self::start))
    }
}

#[cfg(test)]
mod tests {
    use super::TraceContext;

    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_malformed_traceparent_is_ignored() {
        for header in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319ö-b7ad6b716920333-01",
        ] {
            assert_eq!(TraceContext::parse(header), None, "{header}");
        }
    }

    #[test]
    fn a_traceparent_is_written_as_it_was_read() {
        assert_eq!(TraceContext::parse(HEADER).unwrap().to_string(), HEADER);
        let unsampled = HEADER.replace("-01", "-00");
        assert_eq!(TraceContext::parse(&unsampled).unwrap().to_string(), unsampled);
    }

    #[test]
    fn of_a_later_version_the_known_part_is_read() {
        for later in [HEADER.replacen("00", "01", 1), format!("{}-more", HEADER.replacen("00", "cc", 1))] {
            assert_eq!(TraceContext::parse(&later).map(|trace| trace.to_string()).as_deref(), Some(HEADER), "{later}");
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

    #[test]
    fn a_new_span_belongs_to_the_same_trace() {
        let trace = TraceContext::start();
        let span = trace.new_span();
        assert!(span.is_same_trace(&trace) && span != trace);
        assert!(!span.is_same_trace(&TraceContext::start()));
    }

    #[test]
    fn a_malformed_context_in_json_is_replaced_by_a_new_one() {
        let read: TraceContext = serde_json::from_str(&format!("\"{HEADER}\"")).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), format!("\"{HEADER}\""));
        let replaced: TraceContext = serde_json::from_str("\"nonsense\"").unwrap();
        assert!(TraceContext::parse(&replaced.to_string()).is_some());
    }
}
