//! All time limits that depend on each other.
//!
//! The assertions at the end of this file check, at compile time, the relations
//! between the limits that correctness needs. This is the only module of the
//! crate that names services, because the limits of two services can be
//! compared only if one module has both limits.

use std::time::Duration;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

// The timeouts of the functions, as `template.yaml` sets them. The code uses
// these constants only outside Lambda, where an invocation has no deadline.

/// The timeout of the users, products and payments functions.
pub const SERVICE_FUNCTION: Duration = seconds(8);
/// The timeout of the orders function, which runs a whole saga in one request.
pub const ORDERS_FUNCTION: Duration = seconds(20);
/// The timeout of the order worker, and the period of the schedule that starts
/// its sweeps.
pub const WORKER_FUNCTION: Duration = seconds(60);
/// The timeout of the notifications function.
pub const NOTIFICATIONS_FUNCTION: Duration = seconds(30);

// Reserves: parts of the time before the end of an invocation that are kept for
// its last tasks. Each reserve is measured back from the end of the invocation.

/// The time before the end of an invocation that is reserved for writing the
/// HTTP response. If the handler has not finished when this time begins, the
/// HTTP edge drops the handler and responds with 503.
pub const EDGE_ANSWER_RESERVE: Duration = millis(500);
/// When only this time is left, the orders service stops its attempt to wake
/// the worker, and responds. At this moment the HTTP edge still waits for the
/// service: it responds with 503 only when [`EDGE_ANSWER_RESERVE`] begins.
pub const WAKE_RESERVE: Duration = millis(700);
/// When only this time is left, the orders service stops running the saga,
/// wakes the worker, and then responds with the order's current state.
pub const ORDERS_ANSWER_RESERVE: Duration = millis(1000);
/// The time before the end of an invocation that is reserved for recording the
/// outcome of a saga's step, or of a request to the payment provider. In this
/// time, no step starts, and no request to the provider runs.
pub const RECORD_RESERVE: Duration = millis(1500);
/// The time before the end of an invocation that is reserved for recording that
/// a notification was sent, and for the response to the queue. In this time, no
/// notification is sent.
pub const NOTIFY_RECORD_RESERVE: Duration = millis(1500);
/// The part of [`NOTIFY_RECORD_RESERVE`] that is reserved for the response to
/// the queue.
pub const NOTIFY_ANSWER_RESERVE: Duration = millis(300);
/// When only this time is left, the users service does not repeat a write that
/// conflicted: an attempt takes up to a second, and the response needs time,
/// too.
pub const USERS_RETRY_RESERVE: Duration = millis(2000);
/// A step of the saga starts only if at least this much time is left before
/// [`RECORD_RESERVE`] begins.
pub const MINIMUM_STEP_TIME: Duration = millis(250);

// Calls: the limit of one attempt.

/// The limit of opening a connection. An attempt that takes longer than this is
/// better given up and repeated.
pub const AWS_CONNECT_TIMEOUT: Duration = seconds(1);
/// The limit of one attempt to call an AWS service. DynamoDB and SQS respond
/// within milliseconds, so an attempt that takes longer than this is better
/// given up and repeated.
pub const AWS_ATTEMPT_TIMEOUT: Duration = seconds(2);
/// The limit of one attempt to fetch the key set of the user pool.
pub const KEY_SET_TIMEOUT: Duration = seconds(2);
/// The limit of one attempt to call the users or the products service.
pub const SERVICE_CALL_TIMEOUT: Duration = seconds(2);
/// The limit of one attempt to call the payments service. It is longer than
/// [`SERVICE_CALL_TIMEOUT`], because the payment provider asks a card network,
/// which is slower than a table.
pub const PAYMENT_CALL_TIMEOUT: Duration = seconds(5);
/// The limit of one request to the payment provider.
pub const PROVIDER_TIMEOUT: Duration = seconds(5);
/// The limit of one attempt to send an e-mail or a text message. It is long,
/// because after a timeout it is unknown whether the message was sent.
pub const SEND_TIMEOUT: Duration = seconds(10);
/// The time for which a call is repeated while the called service reports
/// contention, if the deadline allows it. Contention for one product usually
/// ends sooner. The worker can't wait much longer for one call: it works on
/// several orders, and has each order only for [`ORDER_LEASE`].
pub const CONTENTION_PATIENCE: Duration = seconds(10);

// Leases and deadlines of orders and notifications.

/// The duration of the lease that a process holds while it works on an order. A
/// lease only avoids double work. If two processes work on one order all the
/// same, the conditions of their writes keep the order correct.
pub const ORDER_LEASE: Duration = seconds(30);
/// An order that is still undecided (`PENDING`) after this time is cancelled.
pub const DECIDE_WITHIN: Duration = seconds(120);
/// An order that is open for longer than this is counted as overdue, so that an
/// alarm calls a person. The worker still goes on trying to finish the order.
pub const OVERDUE_AFTER: Duration = seconds(15 * 60);
/// After a pass that postponed orders, a sweep waits for this pause and makes
/// another pass, if the invocation has [`SWEEP_PASS`] left for it.
pub const SWEEP_PAUSE: Duration = seconds(5);
/// The time that one pass of a sweep needs.
pub const SWEEP_PASS: Duration = seconds(15);
/// The duration of the lease of a claim. While the lease lasts, no other
/// delivery of the same event sends the same notification.
///
/// The lease is twice as long as the function's timeout. So Lambda has stopped
/// the function that took the lease before another function finds the
/// lease ended, even if the other function's clock is half a minute ahead.
///
/// The lease is a third of the queue's visibility timeout, which is six times
/// the function's timeout. So if a function crashes, its lease has ended when
/// the queue delivers the event again.
pub const NOTIFICATION_LEASE: Duration = seconds(60);

const fn is_less(shorter: Duration, longer: Duration) -> bool {
    shorter.as_nanos() < longer.as_nanos()
}

const fn sum(a: Duration, b: Duration) -> Duration {
    match a.checked_add(b) {
        Some(sum) => sum,
        None => Duration::MAX,
    }
}

// The order of the last tasks of a request: record the outcome of a step, stop
// the saga, wake the worker, respond.
const _: () = assert!(is_less(EDGE_ANSWER_RESERVE, WAKE_RESERVE));
const _: () = assert!(is_less(WAKE_RESERVE, ORDERS_ANSWER_RESERVE));
const _: () = assert!(is_less(ORDERS_ANSWER_RESERVE, RECORD_RESERVE));
const _: () = assert!(is_less(EDGE_ANSWER_RESERVE, USERS_RETRY_RESERVE));
const _: () = assert!(is_less(NOTIFY_ANSWER_RESERVE, NOTIFY_RECORD_RESERVE));
// A function has enough time for its slowest call, and then for recording the
// outcome.
const _: () = assert!(is_less(sum(PROVIDER_TIMEOUT, RECORD_RESERVE), SERVICE_FUNCTION));
const _: () = assert!(is_less(sum(PAYMENT_CALL_TIMEOUT, RECORD_RESERVE), ORDERS_FUNCTION));
const _: () = assert!(is_less(sum(SEND_TIMEOUT, NOTIFY_RECORD_RESERVE), NOTIFICATIONS_FUNCTION));
const _: () = assert!(is_less(AWS_CONNECT_TIMEOUT, AWS_ATTEMPT_TIMEOUT));
// The lease of a request lasts longer than the request, so the worker doesn't
// take over an order on which a request still works.
const _: () = assert!(is_less(ORDERS_FUNCTION, ORDER_LEASE));
const _: () = assert!(is_less(CONTENTION_PATIENCE, ORDER_LEASE));
// If a process crashes while it works on an order, a sweep finds the order
// before the order must be cancelled as undecided.
const _: () = assert!(is_less(sum(ORDER_LEASE, WORKER_FUNCTION), DECIDE_WITHIN));
const _: () = assert!(is_less(DECIDE_WITHIN, OVERDUE_AFTER));
const _: () = assert!(is_less(sum(SWEEP_PAUSE, SWEEP_PASS), WORKER_FUNCTION));
const _: () = assert!(NOTIFICATION_LEASE.as_secs() == 2 * NOTIFICATIONS_FUNCTION.as_secs());
