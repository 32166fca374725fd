//! The invocation in which a function's code runs.

use std::sync::Arc;

use crate::deadline::Deadline;

/// The id of a request, which every log line and every problem document carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One run of a function, from the event to the response. The code behind the
/// HTTP edge, or behind the entry point of a worker, needs only these two
/// properties of the run.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The id of the request, as Lambda or the gateway assigned it.
    pub request_id: RequestId,
    /// The moment at which Lambda stops the function. The function must have
    /// responded before.
    pub deadline: Deadline,
}

impl Invocation {
    /// Returns the invocation with the id `request_id`, which ends at
    /// `deadline`.
    pub fn new(request_id: &str, deadline: Deadline) -> Self {
        Self { request_id: RequestId(request_id.into()), deadline }
    }
}
