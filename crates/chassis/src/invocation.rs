//! The invocation that a function's code runs in.

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

/// One run of a function, from an event to its answer. The code below the HTTP
/// edge, or below the entry point of a worker, needs no more of it than this.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The id of the request, as Lambda or the gateway assigned it.
    pub request_id: RequestId,
    /// The moment at which the invocation's answer must be on its way.
    pub deadline: Deadline,
}

impl Invocation {
    /// The invocation `request_id`, which ends at `deadline`.
    pub fn new(request_id: &str, deadline: Deadline) -> Self {
        Self { request_id: RequestId(request_id.into()), deadline }
    }
}
