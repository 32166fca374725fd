//! The kinds of weather: what each does, and what ought to happen.

use serde::{Deserialize, Serialize};
use strum::VariantArray;

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, strum::VariantArray, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    KillNow,
    KillHalfway,
    PaymentsSlow,
    PaymentsDead,
    PaymentsForgetful,
    LoseAnswer,
    DeliverTwice,
    PoisonQueue,
    ThrottleTable,
}

/// What a kind says about itself on the page.
#[derive(Clone, Debug, Serialize)]
pub struct KindDocument {
    pub id: Kind,
    pub title: &'static str,
    pub what_it_does: &'static str,
    pub what_should_happen: &'static str,
    pub targets: Vec<TargetDocument>,
    /// How long it lasts, unless the request says otherwise. 0 if it is over at once.
    pub seconds: u64,
    /// It acts between a function and the emulator.
    pub needs_proxy: bool,
    /// Why it cannot be used now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetDocument {
    pub id: &'static str,
    pub name: &'static str,
}

const FUNCTIONS: &[(&str, &str)] = &[
    ("payments", "payments"),
    ("orders", "orders"),
    ("order_worker", "order-worker"),
    ("products", "products"),
    ("users", "users"),
    ("notifications", "notifications"),
];
/// The functions whose requests write something.
const WRITING_FUNCTIONS: &[(&str, &str)] = &[
    ("payments", "payments"),
    ("orders", "orders"),
    ("order_worker", "order-worker"),
    ("products", "products"),
    ("notifications", "notifications"),
];
const ANSWERING: &[(&str, &str)] = &[
    ("service:payments", "the payments service"),
    ("service:products", "the products service"),
    ("service:users", "the users service"),
    ("table:orders", "the table of orders"),
    ("table:products", "the table of products"),
    ("table:payments", "the table of payments"),
];
const TABLES: &[(&str, &str)] = &[
    ("orders", "the table of orders"),
    ("products", "the table of products"),
    ("payments", "the table of payments"),
    ("notifications", "the table of messages"),
];
const PAYMENTS: &[(&str, &str)] = &[("payments", "payments")];
const ORDER_EVENTS: &[(&str, &str)] = &[("order_events", "the queue of order events")];

struct Facts {
    title: &'static str,
    what_it_does: &'static str,
    what_should_happen: &'static str,
    targets: &'static [(&'static str, &'static str)],
    seconds: u64,
    needs_proxy: bool,
}

impl Kind {
    pub fn all() -> impl Iterator<Item = Self> {
        Self::VARIANTS.iter().copied()
    }

    fn facts(self) -> Facts {
        match self {
            Self::KillNow => Facts {
                title: "Kill a function now",
                what_it_does: "Ends all processes of one function at once, in the middle of whatever they do.",
                what_should_happen: "A request that was cut off is repeated, or the worker continues its order from \
                                     what is stored. The next request starts a new process.",
                targets: FUNCTIONS,
                seconds: 0,
                needs_proxy: false,
            },
            Self::KillHalfway => Facts {
                title: "Kill the next request half-way",
                what_it_does: "Lets the next request of one function write, and ends its process before it learns \
                               that the write has succeeded.",
                what_should_happen: "Whoever made the request repeats it with the same id: the orders service at once, \
                                     or the worker later. The answer is what has already happened, so nothing is \
                                     done twice, and the order is finished.",
                targets: WRITING_FUNCTIONS,
                seconds: 60,
                needs_proxy: true,
            },
            Self::PaymentsSlow => Facts {
                title: "Payments are slow",
                what_it_does: "Delays each request to the payments service by three seconds.",
                what_should_happen: "Orders take longer, and none fails.",
                targets: PAYMENTS,
                seconds: 30,
                needs_proxy: true,
            },
            Self::PaymentsDead => Facts {
                title: "Payments are dead",
                what_it_does: "Answers each request to the payments service with 503.",
                what_should_happen: "New orders stay PENDING, and the customer is told that the order is not decided \
                                     yet. When payments live again, the worker decides the orders. An order that is \
                                     not decided within two minutes is cancelled, and nothing stays reserved.",
                targets: PAYMENTS,
                seconds: 30,
                needs_proxy: true,
            },
            Self::PaymentsForgetful => Facts {
                title: "The payment provider is forgetful",
                what_it_does: "Lets the provider do what it is asked, and loses its answer.",
                what_should_happen: "Nobody knows whether money was taken, so nobody assumes it. The service asks \
                                     again with the same key, and the provider takes the money once.",
                targets: PAYMENTS,
                seconds: 20,
                needs_proxy: true,
            },
            Self::LoseAnswer => Facts {
                title: "Lose an answer",
                what_it_does: "Lets the next write of a table, or the next request to a service, succeed, and loses \
                               the answer.",
                what_should_happen: "The request is sent again. The second one finds what the first has done, has no \
                                     second effect, and gets the same answer.",
                targets: ANSWERING,
                seconds: 60,
                needs_proxy: true,
            },
            Self::DeliverTwice => Facts {
                title: "Deliver events twice",
                what_it_does: "Sends each event about an order to its queue twice.",
                what_should_happen: "The customer gets one e-mail and one text message: the notifier recognises the \
                                     event.",
                targets: ORDER_EVENTS,
                seconds: 60,
                needs_proxy: true,
            },
            Self::PoisonQueue => Facts {
                title: "Poison the queue",
                what_it_does: "Sends a message that no parser accepts, and lets the queue deliver a failed message \
                               again after fifteen seconds instead of three minutes.",
                what_should_happen: "Other messages pass. After five deliveries, in about a minute, the message is in the \
                                     dead-letter queue, and the books are red. On a real stack, somebody repairs the \
                                     cause, and `make redrive` moves the letter back. When this weather ends, the \
                                     message is removed, within a minute.",
                targets: ORDER_EVENTS,
                seconds: 300,
                needs_proxy: false,
            },
            Self::ThrottleTable => Facts {
                title: "Throttle a table",
                what_it_does: "Refuses two of three requests to a table, as DynamoDB does when a table gets more \
                               requests than it may.",
                what_should_happen: "The functions wait a little and try again. Orders take longer; some are left to \
                                     the worker, which finishes them.",
                targets: TABLES,
                seconds: 20,
                needs_proxy: true,
            },
        }
    }

    pub fn id(self) -> &'static str {
        self.into()
    }

    pub fn title(self) -> &'static str {
        self.facts().title
    }

    pub fn seconds(self) -> u64 {
        self.facts().seconds
    }

    pub fn needs_proxy(self) -> bool {
        self.facts().needs_proxy
    }

    /// The name of a target, or `None` if this kind has no such target.
    pub fn target_name(self, id: &str) -> Option<&'static str> {
        self.facts().targets.iter().find(|(own, _)| *own == id).map(|(_, name)| *name)
    }

    pub fn targets(self) -> impl ExactSizeIterator<Item = &'static str> {
        self.facts().targets.iter().map(|(id, _)| *id)
    }

    pub fn document(self, without_proxy: Option<&'static str>) -> KindDocument {
        let Facts { title, what_it_does, what_should_happen, targets, seconds, needs_proxy } = self.facts();
        KindDocument {
            id: self,
            title,
            what_it_does,
            what_should_happen,
            targets: targets.iter().map(|(id, name)| TargetDocument { id, name }).collect(),
            seconds,
            needs_proxy,
            disabled: without_proxy.filter(|_| needs_proxy),
        }
    }
}
