//! All time limits that depend on each other, in one table.
//!
//! Each limit has its reason, and the assertions at the end hold the order that
//! correctness needs. This is the only module of the crate that names services:
//! limits of two services can be compared only in one place.

use std::time::Duration;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

// The timeouts of the functions, as `template.yaml` sets them. Code uses them
// only where no Lambda gives a deadline with the invocation.

/// The timeout of the users, products and payments functions.
pub const SERVICE_FUNCTION: Duration = seconds(8);
/// The timeout of the orders function: a whole saga runs in one request.
pub const ORDERS_FUNCTION: Duration = seconds(20);
/// The timeout of the order worker, and the period of its schedule.
pub const WORKER_FUNCTION: Duration = seconds(60);
/// The timeout of the notifications function.
pub const NOTIFICATIONS_FUNCTION: Duration = seconds(30);

// The end of an invocation: what is reserved for the last things to be done,
// from the last to the first.

/// The time in which the HTTP edge writes its answer. When it begins, the edge
/// gives the handler up and answers 503.
pub const EDGE_ANSWER_RESERVE: Duration = millis(500);
/// When it begins, the orders service gives up waking the worker, and answers:
/// in time, before the edge answers that there was no time.
pub const WAKE_RESERVE: Duration = millis(700);
/// When it begins, the orders service gives up the saga, wakes the worker, and
/// then answers with the order's state.
pub const ORDERS_ANSWER_RESERVE: Duration = millis(1000);
/// The time for recording the outcome of a step, or of a request to the payment
/// provider. No step starts, and no request to the provider runs, in this time.
pub const RECORD_RESERVE: Duration = millis(1500);
/// The time for recording that a notification was sent, and for the answer. No
/// notification is sent in this time.
pub const NOTIFY_RECORD_RESERVE: Duration = millis(1500);
/// The part of [`NOTIFY_RECORD_RESERVE`] for the answer to the queue.
pub const NOTIFY_ANSWER_RESERVE: Duration = millis(300);
/// The users service does not repeat a conflicting write in this time: a try
/// takes up to a second, and the answer needs its time, too.
pub const USERS_RETRY_RESERVE: Duration = millis(2000);
/// A step of the saga is not started with less time than this.
pub const MINIMUM_STEP_TIME: Duration = millis(250);

// Calls: how long one attempt may take.

/// DynamoDB and SQS answer in milliseconds; whatever takes longer than these
/// two limits is better tried again.
pub const AWS_CONNECT_TIMEOUT: Duration = seconds(1);
/// The limit of one attempt to call an AWS service.
pub const AWS_ATTEMPT_TIMEOUT: Duration = seconds(2);
/// The limit of one attempt to fetch the key set of the user pool.
pub const KEY_SET_TIMEOUT: Duration = seconds(2);
/// The limit of one attempt to call the users or the products service.
pub const SERVICE_CALL_TIMEOUT: Duration = seconds(2);
/// The limit of one attempt to call the payments service. A card network needs
/// longer than a table.
pub const PAYMENT_CALL_TIMEOUT: Duration = seconds(5);
/// The limit of one request to the payment provider.
pub const PROVIDER_TIMEOUT: Duration = seconds(5);
/// The limit of one attempt to send an e-mail or a text message. It is long,
/// because after a timeout nobody knows whether the message was sent.
pub const SEND_TIMEOUT: Duration = seconds(10);
/// How long calls to a service that reports contention are repeated, if the
/// deadline allows it. Contention for one product usually ends sooner. A worker
/// has several orders, each only for the time of a lease, so it can't wait much
/// longer for one call.
pub const CONTENTION_PATIENCE: Duration = seconds(10);

// Leases and deadlines of orders and notifications.

/// The lease of a process that works on an order. A lease only avoids double
/// work: safety comes from the conditions of the writes.
pub const ORDER_LEASE: Duration = seconds(30);
/// An order that is undecided for longer than this is cancelled.
pub const DECIDE_WITHIN: Duration = seconds(120);
/// An order that is open for longer than this needs a person. The worker goes
/// on trying.
pub const OVERDUE_AFTER: Duration = seconds(15 * 60);
/// A sweep that had to postpone orders looks for due orders again after this
/// pause, if [`SWEEP_PASS`] is left.
pub const SWEEP_PAUSE: Duration = seconds(5);
/// The time that one pass of a sweep needs.
pub const SWEEP_PASS: Duration = seconds(15);
/// The lease of a delivery that sends a notification.
///
/// Twice the function's timeout: a function that took the lease has been stopped
/// by the time the lease ends, even by a clock that is half a minute ahead of its
/// own, and can't be about to send. A third of the queue's visibility timeout,
/// which is six times the function's timeout: when the queue delivers the event
/// again, an abandoned lease has ended.
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

// The end of a request: record the outcome, give the saga up, wake the worker, answer.
const _: () = assert!(is_less(EDGE_ANSWER_RESERVE, WAKE_RESERVE));
const _: () = assert!(is_less(WAKE_RESERVE, ORDERS_ANSWER_RESERVE));
const _: () = assert!(is_less(ORDERS_ANSWER_RESERVE, RECORD_RESERVE));
const _: () = assert!(is_less(EDGE_ANSWER_RESERVE, USERS_RETRY_RESERVE));
const _: () = assert!(is_less(NOTIFY_ANSWER_RESERVE, NOTIFY_RECORD_RESERVE));
// A function has time for its slowest attempt, and then for recording the outcome.
const _: () = assert!(is_less(sum(PROVIDER_TIMEOUT, RECORD_RESERVE), SERVICE_FUNCTION));
const _: () = assert!(is_less(sum(PAYMENT_CALL_TIMEOUT, RECORD_RESERVE), ORDERS_FUNCTION));
const _: () = assert!(is_less(sum(SEND_TIMEOUT, NOTIFY_RECORD_RESERVE), NOTIFICATIONS_FUNCTION));
const _: () = assert!(is_less(AWS_CONNECT_TIMEOUT, AWS_ATTEMPT_TIMEOUT));
// The worker doesn't take an order from a request that still works on it.
const _: () = assert!(is_less(ORDERS_FUNCTION, ORDER_LEASE));
const _: () = assert!(is_less(CONTENTION_PATIENCE, ORDER_LEASE));
// After a crash, a sweep finds the order before its time for a decision ends.
const _: () = assert!(is_less(sum(ORDER_LEASE, WORKER_FUNCTION), DECIDE_WITHIN));
const _: () = assert!(is_less(DECIDE_WITHIN, OVERDUE_AFTER));
const _: () = assert!(is_less(sum(SWEEP_PAUSE, SWEEP_PASS), WORKER_FUNCTION));
const _: () = assert!(NOTIFICATION_LEASE.as_secs() == 2 * NOTIFICATIONS_FUNCTION.as_secs());
