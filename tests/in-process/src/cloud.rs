//! Stands in for everything outside the services: DynamoDB (embedded, real
//! semantics), SQS, SES and SNS (they keep what they are sent), and the paths
//! between the services.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_smithy_runtime_api::{
    client::{
        connection::{CaptureSmithyConnection, ConnectionMetadata},
        http::{HttpConnector, HttpConnectorFuture},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use axum::{Router, body::Body};
use bytes::Bytes;
use dynoxide::Database;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceExt;

use crate::{
    fault::{Effect, Fault, Point, Script},
    invocation::{Invocation, Running},
    permissions::{self, GRANTED, Permission},
    tables, world,
};

/// The host under which services find each other: `http://users.internal`.
pub const INTERNAL: &str = ".internal";

/// What SES says to an e-mail instead of taking it: status and body.
type MailAnswer = dyn Fn(&Value) -> Option<(u16, Value)> + Send + Sync;

/// Everything outside the services. Clones share it.
#[derive(Clone)]
pub struct Cloud(Arc<Inner>);

struct Inner {
    database: Database,
    services: Mutex<HashMap<&'static str, Router>>,
    queue: Mutex<Vec<Message>>,
    /// The queue of events about users, which the order worker consumes.
    user_events: Mutex<Vec<Message>>,
    /// Every message that was ever sent.
    sent: Mutex<Vec<String>>,
    dead_letters: Mutex<Vec<String>>,
    mails: Mutex<Vec<Value>>,
    mail_answer: Mutex<Option<Arc<MailAnswer>>>,
    texts: Mutex<Vec<HashMap<String, String>>>,
    /// The error code with which SNS refuses text messages, if it does.
    text_refusal: Mutex<Option<&'static str>>,
    /// The user pool's key set, and how often it was fetched.
    keys: Mutex<(Value, usize)>,
    troubles: Mutex<Vec<(String, Trouble)>>,
    running: Mutex<Vec<Running>>,
    trial: Mutex<Option<Trial>>,
    permissions: Mutex<BTreeSet<Permission>>,
    /// How long each call takes; no time if not set.
    pace: Mutex<Option<Pace>>,
    /// Keys of items that others use, how, and until when.
    in_use: Mutex<Vec<(String, Use, Instant)>>,
    /// Every state of every item, with its table, if somebody watches.
    watched: Mutex<Option<Vec<(String, Value)>>>,
    /// What the services asked each other, and what was answered.
    exchanges: Mutex<Vec<Exchange>>,
    /// The hosts to which connections were given up.
    poisoned: Mutex<Vec<String>>,
}

/// How long calls take.
enum Pace {
    /// Each another time, below 20 ms.
    Random(fastrand::Rng),
    /// All that one function makes the same, the others none.
    Of(&'static str, Duration),
}

impl Pace {
    fn next(&mut self) -> Duration {
        match self {
            Self::Random(chance) => Duration::from_millis(chance.u64(0..20)),
            Self::Of(function, time) if calling() == *function => *time,
            Self::Of(..) => Duration::ZERO,
        }
    }
}

/// What others do with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// A transaction is about to commit it, and has committed the rest.
    Committing,
    /// One transaction after another writes it.
    Contended,
    /// They have used up what its partition takes.
    Throttled,
}

/// The function that makes a call.
fn calling() -> &'static str {
    Invocation::current().map_or("nobody", |invocation| invocation.function)
}

/// What is the matter with a host, until it is brought back.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// Connections are refused.
    Down,
    /// Nothing ever comes back, and nothing happens.
    Silent,
    /// What is asked for happens so much later, whether or not the caller
    /// still waits for it.
    Slow(Duration),
    /// The gateway before it turns everybody away, since too many come.
    TurnedAway,
    /// Every other call, more or less, has no answer: sometimes without having
    /// had its effect, sometimes after it.
    Flapping(fastrand::Rng),
}

/// What a trouble does to one call.
enum Mishap {
    NotMade,
    Silence,
    Delay(Duration),
    AnswerLost,
    TurnedAway,
}

impl Trouble {
    fn strike(&mut self) -> Option<Mishap> {
        match self {
            Self::Down => Some(Mishap::NotMade),
            Self::Silent => Some(Mishap::Silence),
            Self::Slow(delay) => Some(Mishap::Delay(*delay)),
            Self::TurnedAway => Some(Mishap::TurnedAway),
            Self::Flapping(chance) => match chance.u8(0..4) {
                0 => Some(Mishap::NotMade),
                1 => Some(Mishap::AnswerLost),
                _ => None,
            },
        }
    }
}

/// A message in the queue.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its body.
    pub body: String,
    /// How often it was delivered without being acknowledged.
    pub receives: u32,
}

/// A run of which every call is counted, and some go wrong.
#[derive(Default)]
struct Trial {
    script: Script,
    points: Vec<Point>,
    late: Vec<Call>,
    /// Calls of these kinds meet these faults while these invocations last.
    lasting: Vec<(Invocation, String, Fault)>,
}

impl Trial {
    /// Counts a call; what goes wrong with it.
    fn reach(&mut self, point: Point) -> Option<Fault> {
        let fault = self.script.at(self.points.len());
        let lasting = Invocation::current().and_then(|invocation| {
            if let Some(fault) = fault.filter(|fault| fault.lasts()) {
                self.lasting.push((invocation.clone(), point.label.clone(), fault));
            }
            let met = self.lasting.iter().find(|(whose, what, _)| whose.is(&invocation) && *what == point.label);
            met.map(|(_, _, fault)| *fault)
        });
        self.points.push(point);
        lasting.or(fault)
    }
}

/// What one service asked another, and what was answered.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Who was asked.
    pub service: String,
    /// How.
    pub method: http::Method,
    /// Where.
    pub path: String,
    /// The request's body; null if there was none.
    pub request: Value,
    /// The answer's status.
    pub status: u16,
    /// The answer's body.
    pub answer: Value,
}

/// A call on its way out of a function.
#[derive(Clone)]
struct Call {
    host: String,
    operation: String,
    parts: http::request::Parts,
    body: Bytes,
}

impl Call {
    async fn read(request: HttpRequest) -> Result<Self, ConnectorError> {
        let request = request.try_into_http1x().map_err(|e| ConnectorError::other(e.into(), None))?;
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|e| ConnectorError::other(e, None))?.to_bytes();
        let host = parts.uri.host().unwrap_or_default().to_owned();
        let target = parts.headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        Ok(Self { host, operation, parts, body })
    }

    fn is_dynamodb(&self) -> bool {
        self.host.starts_with("dynamodb")
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// What the function that calls needs to be allowed.
    fn permissions(&self) -> Vec<Permission> {
        let Some(Invocation { function, .. }) = Invocation::current() else { return Vec::new() };
        let needed = match self.host.split('.').next() {
            Some("dynamodb") => permissions::of_dynamodb(&self.operation, &self.json()),
            Some("sqs") => {
                let queue = if is_about_users(&self.json()) { "UserEventsQueue" } else { "OrderEventsQueue" };
                vec![(format!("sqs:{}", self.operation), queue.to_owned())]
            }
            // SES also asks for the right to the configuration set that the
            // identity has by default.
            Some("email") => {
                ["identity/*", "configuration-set/*"].map(|of| ("ses:SendEmail".to_owned(), of.to_owned())).into()
            }
            Some("sns") => vec![("sns:Publish".to_owned(), "*".to_owned())],
            _ if self.host.ends_with(INTERNAL) => {
                let route = permissions::route(self.parts.method.as_str(), self.parts.uri.path());
                vec![("execute-api:Invoke".to_owned(), route)]
            }
            // The pool's keys, which are public.
            _ => Vec::new(),
        };
        needed.iter().map(|(action, resource)| Permission::new(function, action, resource)).collect()
    }

    fn point(&self) -> Point {
        let (to, effect) = if self.is_dynamodb() {
            let body = self.json();
            let table = find(&body, "TableName").and_then(Value::as_str).unwrap_or("tables").to_owned();
            let effect = match self.operation.as_str() {
                "GetItem" | "BatchGetItem" | "Query" => Effect::Read,
                "TransactGetItems" => Effect::SettledRead,
                _ => Effect::Write,
            };
            (format!("{} {table}", self.operation), effect)
        } else if let Some(service) = self.host.strip_suffix(INTERNAL) {
            let verb = self.parts.uri.path().rsplit('/').next().unwrap_or_default();
            let effect = if self.parts.method == http::Method::GET { Effect::Read } else { Effect::Change };
            (format!("{} {service} {verb}", self.parts.method), effect)
        } else {
            let service = self.host.split('.').next().unwrap_or_default();
            (service.to_owned(), Effect::Change)
        };
        Point { label: format!("{} → {to}", calling()), effect }
    }
}

/// The value of `key`, however deep.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(object) => object.get(key).or_else(|| object.values().find_map(|inner| find(inner, key))),
        Value::Array(list) => list.iter().find_map(|inner| find(inner, key)),
        _ => None,
    }
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cloud")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cloud {
    /// With the template's tables, all empty.
    pub fn start() -> Self {
        let database = Database::memory().expect("an in-memory database");
        for request in tables::from_template() {
            database
                .create_table(serde_json::from_value(request.clone()).expect("a CreateTable request"))
                .expect("a table");
        }
        Self(Arc::new(Inner {
            database,
            services: Mutex::default(),
            queue: Mutex::default(),
            user_events: Mutex::default(),
            sent: Mutex::default(),
            dead_letters: Mutex::default(),
            mails: Mutex::default(),
            mail_answer: Mutex::default(),
            texts: Mutex::default(),
            text_refusal: Mutex::default(),
            keys: Mutex::default(),
            troubles: Mutex::default(),
            running: Mutex::default(),
            trial: Mutex::default(),
            permissions: Mutex::default(),
            pace: Mutex::default(),
            in_use: Mutex::default(),
            watched: Mutex::default(),
            exchanges: Mutex::default(),
            poisoned: Mutex::default(),
        }))
    }

    /// From here on, every call takes a while, each another: the order in
    /// which calls of several functions meet follows from `seed`.
    pub fn take_random_time(&self, seed: u64) {
        *lock(&self.0.pace) = Some(Pace::Random(fastrand::Rng::with_seed(seed)));
    }

    /// From here on, every call that `function` makes takes `time`, and those
    /// of others none.
    pub fn take_time(&self, function: &'static str, time: Duration) {
        *lock(&self.0.pace) = Some(Pace::Of(function, time));
    }

    /// For so long from now, DynamoDB is about to commit the item with this
    /// (partition or sort) key, and has done so with the rest of its
    /// transaction: a plain read doesn't find it yet, and whatever else wants
    /// it meets a conflict.
    pub fn commit_late(&self, key: &str, time: Duration) {
        self.use_item(key, Use::Committing, time);
    }

    /// For so long from now, one transaction after another writes the item with
    /// this key, or the items of the table of this name: whatever else wants to write it meets a conflict. Plain reads
    /// wait for nobody.
    pub fn contend(&self, key: &str, time: Duration) {
        self.use_item(key, Use::Contended, time);
    }

    /// For so long from now, DynamoDB takes no more of the partition with this
    /// key, or of the table of this name.
    pub fn throttle(&self, key: &str, time: Duration) {
        self.use_item(key, Use::Throttled, time);
    }

    fn use_item(&self, key: &str, how: Use, time: Duration) {
        lock(&self.0.in_use).push((format!("{key:?}"), how, Instant::now() + time));
    }

    /// From here on, every state that an item comes to is remembered.
    pub fn watch_items(&self) {
        *lock(&self.0.watched) = Some(Vec::new());
    }

    /// The items that were watched, each with its table, in the order in which
    /// they came to be so.
    pub fn watched_items(&self) -> Vec<(String, Value)> {
        lock(&self.0.watched).clone().unwrap_or_default()
    }

    /// Looks what a write has changed.
    fn look(&self) {
        let mut watched = lock(&self.0.watched);
        let Some(watched) = watched.as_mut() else { return };
        for table in tables::from_template().iter().filter_map(|request| request["TableName"].as_str()) {
            for item in self.scan(table) {
                if !watched.iter().any(|(of, seen)| of == table && *seen == item) {
                    watched.push((table.to_owned(), item));
                }
            }
        }
    }

    /// Everything that the services asked each other so far, and that was
    /// answered.
    pub fn exchanges(&self) -> Vec<Exchange> {
        lock(&self.0.exchanges).clone()
    }

    /// The hosts to which connections were given up, once for each.
    pub fn poisoned(&self) -> Vec<String> {
        lock(&self.0.poisoned).clone()
    }

    /// Kills everything that runs.
    pub fn kill_all(&self) {
        for running in lock(&self.0.running).drain(..) {
            running.kill();
        }
    }

    /// Ends every lease on an order, as if whoever holds it had taken too long.
    pub fn end_leases(&self) {
        for item in self.scan("OrdersTable").into_iter().filter(|item| item["lease"].is_object()) {
            let update = json!({
                "TableName": "OrdersTable",
                "Key": { "pk": item["pk"], "sk": item["sk"] },
                "UpdateExpression": "SET #lease.#until = :past, next_check = :past",
                "ExpressionAttributeNames": { "#lease": "lease", "#until": "until" },
                "ExpressionAttributeValues": { ":past": { "N": "0" } },
            });
            let (status, answer) = self.dynamodb("UpdateItem", update.to_string().as_bytes());
            assert_eq!(status, 200, "{answer}");
        }
    }

    /// From here on, calls are counted, and go wrong as `script` says.
    pub fn begin_trial(&self, script: Script) {
        *lock(&self.0.trial) = Some(Trial { script, ..Trial::default() });
    }

    /// Ends the trial: nothing goes wrong any more. Returns the calls that
    /// were made.
    pub fn end_trial(&self) -> Vec<Point> {
        let mut trial = lock(&self.0.trial);
        trial
            .as_mut()
            .map(|trial| {
                trial.script = Script::none();
                trial.lasting.clear();
                std::mem::take(&mut trial.points)
            })
            .unwrap_or_default()
    }

    /// Delivers the calls that were held back; tells how many there were.
    pub async fn deliver_late(&self) -> usize {
        let late = lock(&self.0.trial).as_mut().map(|trial| std::mem::take(&mut trial.late)).unwrap_or_default();
        let count = late.len();
        for mut call in late {
            call.forget_token();
            // Nobody waits for the answer any more.
            self.perform(call).await.ok();
        }
        count
    }

    /// Starts an invocation of a function.
    pub fn invocation(&self, function: &'static str) -> Invocation {
        let invocation = Invocation::new(function);
        lock(&self.0.running).push(invocation.running());
        invocation
    }

    /// Makes a service reachable for the others.
    pub fn serve(&self, name: &'static str, router: Router) {
        lock(&self.0.services).insert(name, router);
    }

    /// Makes nobody reachable any more. Services hold the cloud and the cloud
    /// holds them: without this, neither would ever be dropped.
    pub(crate) fn close(&self) {
        lock(&self.0.services).clear();
    }

    /// A service's routes.
    pub fn service(&self, name: &str) -> Router {
        lock(&self.0.services).get(name).cloned().unwrap_or_else(|| panic!("no service {name}"))
    }

    /// Takes the messages that were sent to the queue so far, oldest first.
    pub fn take_messages(&self) -> Vec<String> {
        self.receive().into_iter().map(|message| message.body).collect()
    }

    /// Takes the messages about users that were sent so far, oldest first, with
    /// how often each was delivered.
    pub fn receive_user_events(&self) -> Vec<Message> {
        std::mem::take(&mut lock(&self.0.user_events))
    }

    /// Gives a message about a user back that was not acknowledged.
    pub fn give_back_user_event(&self, message: Message) {
        self.give_back_to(&self.0.user_events, message);
    }

    /// As [`Cloud::take_messages`], with how often each was delivered.
    pub fn receive(&self) -> Vec<Message> {
        std::mem::take(&mut lock(&self.0.queue))
    }

    /// Puts a message into the queue.
    pub fn put_message(&self, message: impl Into<String>) {
        lock(&self.0.queue).push(Message { body: message.into(), receives: 0 });
    }

    /// Gives a message back that was not acknowledged; too often, and it goes
    /// to the dead letters.
    pub fn give_back(&self, message: Message) {
        self.give_back_to(&self.0.queue, message);
    }

    fn give_back_to(&self, queue: &Mutex<Vec<Message>>, message: Message) {
        let receives = message.receives + 1;
        if receives < MAX_RECEIVES {
            lock(queue).push(Message { receives, ..message });
        } else {
            lock(&self.0.dead_letters).push(message.body);
        }
    }

    /// How many messages wait in the queue.
    pub fn waiting(&self) -> usize {
        lock(&self.0.queue).len()
    }

    /// How many messages about users wait in their queue.
    pub fn waiting_user_events(&self) -> usize {
        lock(&self.0.user_events).len()
    }

    /// Every message that was ever sent, oldest first.
    pub fn sent_messages(&self) -> Vec<String> {
        lock(&self.0.sent).clone()
    }

    /// The messages that were delivered in vain too often.
    pub fn dead_letters(&self) -> Vec<String> {
        lock(&self.0.dead_letters).clone()
    }

    /// Lets `answer` see each e-mail before SES takes it, and answer instead.
    pub fn answer_mail(&self, answer: impl Fn(&Value) -> Option<(u16, Value)> + Send + Sync + 'static) {
        *lock(&self.0.mail_answer) = Some(Arc::new(answer));
    }

    /// Lets SNS refuse every text message with this error code.
    pub fn refuse_texts(&self, code: &'static str) {
        *lock(&self.0.text_refusal) = Some(code);
    }

    /// The e-mails sent so far, as SES was asked to send them.
    pub fn mails(&self) -> Vec<Value> {
        lock(&self.0.mails).clone()
    }

    /// The text messages sent so far, as SNS was asked to send them.
    pub fn texts(&self) -> Vec<HashMap<String, String>> {
        lock(&self.0.texts).clone()
    }

    /// The key set that the user pool publishes from here on.
    pub fn publish_keys(&self, key_set: Value) {
        lock(&self.0.keys).0 = key_set;
    }

    /// How often somebody fetched the key set.
    pub fn key_fetches(&self) -> usize {
        lock(&self.0.keys).1
    }

    /// Lets nothing through to hosts that contain `part` any more.
    pub fn take_down(&self, part: &str) {
        self.trouble(part, Trouble::Down);
    }

    /// From here on, hosts that contain `part` are in trouble.
    pub fn trouble(&self, part: &str, trouble: Trouble) {
        lock(&self.0.troubles).push((part.to_owned(), trouble));
    }

    /// Everything is well again.
    pub fn bring_back(&self) {
        lock(&self.0.troubles).clear();
        lock(&self.0.in_use).clear();
    }

    /// All items of a table, by its logical id.
    pub fn scan(&self, table: &str) -> Vec<Value> {
        let request = serde_json::from_value(json!({ "TableName": table })).expect("a Scan request");
        let response = self.0.database.scan(request).expect("a scan");
        let mut response = serde_json::to_value(response).expect("a response in JSON");
        match response["Items"].take() {
            Value::Array(items) => items,
            other => panic!("a scan that answers with {other}"),
        }
    }

    /// Puts an item into a table by hand.
    pub fn put(&self, table: &str, item: Value) {
        let request = json!({ "TableName": table, "Item": item });
        let (status, answer) = self.dynamodb("PutItem", request.to_string().as_bytes());
        assert_eq!(status, 200, "{answer}");
    }

    /// Everything that functions did so far, or tried to.
    pub fn used_permissions(&self) -> BTreeSet<Permission> {
        lock(&self.0.permissions).clone()
    }

    /// Has the caller know its connection, which is never used again when it
    /// gives it up.
    fn connect(&self, call: &Call) {
        let Some(caller) = call.parts.extensions.get::<CaptureSmithyConnection>() else { return };
        let (cloud, host) = (self.clone(), call.host.clone());
        caller.set_connection_retriever(move || {
            let (cloud, host) = (cloud.clone(), host.clone());
            let poison = move || lock(&cloud.0.poisoned).push(host.clone());
            Some(ConnectionMetadata::builder().proxied(false).poison_fn(poison).build())
        });
    }

    /// What AWS says if the role of the function that calls doesn't allow it.
    fn denial(&self, call: &Call) -> Option<Value> {
        let needed = call.permissions();
        let missing = needed.iter().find(|permission| !GRANTED.contains(permission));
        let message = missing.map(|missing| format!("no role allows {missing}"));
        lock(&self.0.permissions).extend(needed);
        Some(json!({ "__type": "AccessDeniedException", "message": message? }))
    }

    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let call = Call::read(request).await?;
        self.connect(&call);
        if let Some(denial) = self.denial(&call) {
            return Ok(json_response((403, denial.to_string())));
        }
        let fault = lock(&self.0.trial).as_mut().and_then(|trial| trial.reach(call.point()));
        let Some(fault) = fault else { return self.perform(call).await };
        match fault {
            Fault::Refused | Fault::Outage => Err(no_connection()),
            Fault::Conflict | Fault::Contention => Ok(json_response(conflict(&call.operation))),
            Fault::Silence => std::future::pending().await,
            Fault::ReplyLost => {
                self.perform(call).await?;
                Err(no_connection())
            }
            Fault::Twice => {
                self.perform(call.clone()).await?;
                self.perform(call).await
            }
            Fault::Late => {
                if let Some(trial) = lock(&self.0.trial).as_mut() {
                    trial.late.push(call);
                }
                std::future::pending().await
            }
            Fault::CrashBefore => crash().await,
            Fault::CrashAfter => {
                self.perform(call).await?;
                crash().await
            }
            Fault::Blackout => {
                self.kill_all();
                std::future::pending().await
            }
        }
    }

    /// Does what the call asks for, unless something is the matter with whom
    /// it goes to.
    async fn perform(&self, call: Call) -> Result<HttpResponse, ConnectorError> {
        let delay = lock(&self.0.pace).as_mut().map(Pace::next);
        if let Some(delay) = delay.filter(|delay| !delay.is_zero()) {
            tokio::time::sleep(delay).await;
        }
        let mishap = {
            let mut troubles = lock(&self.0.troubles);
            let trouble = troubles.iter_mut().find(|(part, _)| call.host.contains(part.as_str()));
            trouble.and_then(|(_, trouble)| trouble.strike())
        };
        match mishap {
            None => self.carry_out(call).await,
            Some(Mishap::NotMade) => Err(no_connection()),
            Some(Mishap::Silence) => std::future::pending().await,
            Some(Mishap::TurnedAway) => Ok(json_response((429, json!({ "message": "Too Many Requests" }).to_string()))),
            Some(Mishap::AnswerLost) => {
                self.carry_out(call).await?;
                Err(no_connection())
            }
            Some(Mishap::Delay(delay)) => {
                let cloud = self.clone();
                let late = tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    cloud.carry_out(call).await
                });
                late.await.unwrap_or_else(|failure| std::panic::resume_unwind(failure.into_panic()))
            }
        }
    }

    /// What others do with an item that is named in `body`.
    fn in_use(&self, body: &[u8]) -> Option<Use> {
        let named = |key: &str| String::from_utf8_lossy(body).contains(key);
        let in_use = lock(&self.0.in_use);
        in_use.iter().find(|(key, _, until)| Instant::now() < *until && named(key)).map(|(_, how, _)| *how)
    }

    async fn carry_out(&self, call: Call) -> Result<HttpResponse, ConnectorError> {
        let Call { host, operation, parts, body } = call;
        if let Some(service) = host.strip_suffix(INTERNAL) {
            return self.call_service(service, parts, body).await;
        }
        if host.starts_with("dynamodb") {
            let is_plain_read = ["GetItem", "BatchGetItem", "Query"].contains(&operation.as_str());
            let answer = match self.in_use(&body) {
                Some(Use::Committing) if operation == "GetItem" => (200, json!({}).to_string()),
                Some(Use::Committing) => conflict(&operation),
                Some(Use::Contended) if !is_plain_read => conflict(&operation),
                Some(Use::Throttled) => throttled(&operation),
                Some(Use::Contended) | None => self.dynamodb(&operation, &body),
            };
            if !is_plain_read {
                self.look();
            }
            return Ok(json_response(answer));
        }
        if host.starts_with("sqs") && operation == "SendMessage" {
            return Ok(json_response(self.send_message(&body)));
        }
        if host.starts_with("email") && parts.uri.path() == "/v2/email/outbound-emails" {
            return Ok(json_response(self.send_mail(&body)));
        }
        if host.starts_with("sns") {
            return Ok(self.publish(&body));
        }
        if host == world::POOL {
            let mut keys = lock(&self.0.keys);
            keys.1 += 1;
            return Ok(json_response((200, keys.0.to_string())));
        }
        panic!("nothing in this world answers {} {}", parts.method, parts.uri);
    }

    async fn call_service(
        &self,
        name: &str,
        parts: http::request::Parts,
        body: Bytes,
    ) -> Result<HttpResponse, ConnectorError> {
        let router = self.service(name);
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let asked = serde_json::from_slice(&body).unwrap_or_default();
        assert!(parts.headers.contains_key("authorization"), "calls between services are signed");
        let mut request = http::Request::from_parts(parts, Body::from(body));
        *request.uri_mut() =
            request.uri().path_and_query().map(ToString::to_string).unwrap_or_default().parse().expect("a path");
        request.extensions_mut().insert(world::iam_context());
        let function = lock(&self.0.services).get_key_value(name).map(|(function, _)| *function);
        let function = function.unwrap_or_else(|| panic!("no service {name}"));
        request.extensions_mut().insert(world::lambda_context(function));
        let answer = self.invocation(function).run(router.oneshot(request)).await;
        // What the gateway says of a function that died.
        let Ok(answer) = answer else {
            return Ok(json_response((502, r#"{"message": "Internal server error"}"#.into())));
        };
        let (parts, body) = answer.unwrap_or_else(|never| match never {}).into_parts();
        let body = body.collect().await.map_err(|e| ConnectorError::other(e.into(), None))?.to_bytes();
        lock(&self.0.exchanges).push(Exchange {
            service: name.to_owned(),
            method,
            path,
            request: asked,
            status: parts.status.as_u16(),
            answer: serde_json::from_slice(&body).unwrap_or_default(),
        });
        let response = http::Response::from_parts(parts, SdkBody::from(body.to_vec()));
        HttpResponse::try_from(response).map_err(|e| ConnectorError::other(e.into(), None))
    }

    fn dynamodb(&self, operation: &str, body: &[u8]) -> (u16, String) {
        let database = &self.0.database;
        macro_rules! dispatch {
            ($($operation:literal => $method:ident),* $(,)?) => {
                match operation {
                    $($operation => {
                        let request = serde_json::from_slice(body).expect(concat!("a request for ", $operation));
                        match database.$method(request) {
                            Ok(response) => (200, serde_json::to_string(&response).expect("a response in JSON")),
                            Err(error) => (error.status_code(), error.to_json()),
                        }
                    })*
                    other => panic!("{other} is not among the operations that any role allows"),
                }
            };
        }
        dispatch! {
            "GetItem" => get_item,
            "BatchGetItem" => batch_get_item,
            "PutItem" => put_item,
            "UpdateItem" => update_item,
            "DeleteItem" => delete_item,
            "Query" => query,
            "TransactGetItems" => transact_get_items,
            "TransactWriteItems" => transact_write_items,
        }
    }

    fn send_message(&self, body: &[u8]) -> (u16, String) {
        let request: Value = serde_json::from_slice(body).expect("a SendMessage request");
        let message = request["MessageBody"].as_str().expect("a message body").to_owned();
        // The rest of what SQS doesn't take can't be in a JSON document.
        if message.contains(['\u{FFFE}', '\u{FFFF}']) {
            return (400, json!({ "__type": "com.amazonaws.sqs#InvalidMessageContents" }).to_string());
        }
        if is_about_users(&request) {
            lock(&self.0.user_events).push(Message { body: message, receives: 0 });
        } else {
            lock(&self.0.sent).push(message.clone());
            self.put_message(message);
        }
        (200, json!({ "MessageId": uuid::Uuid::now_v7() }).to_string())
    }

    fn send_mail(&self, body: &[u8]) -> (u16, String) {
        let mail: Value = serde_json::from_slice(body).expect("a SendEmail request");
        let answer = lock(&self.0.mail_answer).clone();
        if let Some((status, body)) = answer.and_then(|answer| answer(&mail)) {
            return (status, body.to_string());
        }
        lock(&self.0.mails).push(mail);
        (200, json!({ "MessageId": uuid::Uuid::now_v7() }).to_string())
    }

    fn publish(&self, body: &[u8]) -> HttpResponse {
        let form = serde_urlencoded::from_bytes::<HashMap<String, String>>(body).expect("a form");
        assert_eq!(form.get("Action").map(String::as_str), Some("Publish"));
        if let Some(code) = *lock(&self.0.text_refusal) {
            let xml = format!("<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>");
            return HttpResponse::new(StatusCode::try_from(400).expect("a status"), SdkBody::from(xml));
        }
        lock(&self.0.texts).push(form);
        let xml = "<PublishResponse><PublishResult><MessageId>m-1</MessageId></PublishResult></PublishResponse>";
        HttpResponse::new(StatusCode::try_from(200).expect("a status"), SdkBody::from(xml))
    }
}

/// After so many deliveries in vain, a message is dead (`maxReceiveCount`).
const MAX_RECEIVES: u32 = 5;

impl Call {
    /// A request token is remembered for ten minutes; a call that comes later
    /// than that is a new one to DynamoDB.
    fn forget_token(&mut self) {
        if !self.is_dynamodb() {
            return;
        }
        let mut body = self.json();
        if let Some(body) = body.as_object_mut() {
            body.remove("ClientRequestToken");
        }
        self.body = body.to_string().into();
    }
}

/// Whether a request to SQS is about the queue of events about users.
fn is_about_users(request: &Value) -> bool {
    request["QueueUrl"].as_str().is_some_and(|url| url.ends_with("/user-events"))
}

fn no_connection() -> ConnectorError {
    ConnectorError::io(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into())
}

/// Kills the invocation that this code runs in.
async fn crash() -> Result<HttpResponse, ConnectorError> {
    if let Some(invocation) = Invocation::current() {
        invocation.kill();
    }
    std::future::pending().await
}

/// How DynamoDB reports that somebody else's transaction has an item.
fn conflict(operation: &str) -> (u16, String) {
    let message = "Transaction is ongoing for the item";
    if operation.starts_with("Transact") {
        cancelled("TransactionConflict", message)
    } else {
        (400, dynamodb_error("TransactionConflictException", message).to_string())
    }
}

/// How DynamoDB reports that it takes no more of a partition.
fn throttled(operation: &str) -> (u16, String) {
    let message = "Throughput exceeds the current capacity of your table or index.";
    if operation.starts_with("Transact") {
        cancelled("ThrottlingError", message)
    } else {
        (400, dynamodb_error("ThrottlingException", message).to_string())
    }
}

fn cancelled(code: &str, message: &str) -> (u16, String) {
    let why = format!("Transaction cancelled, please refer cancellation reasons for specific reasons [{code}]");
    let mut body = dynamodb_error("TransactionCanceledException", &why);
    body["CancellationReasons"] = json!([{ "Code": code, "Message": message }]);
    (400, body.to_string())
}

fn dynamodb_error(name: &str, message: &str) -> Value {
    json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{name}"), "message": message, "Message": message })
}

fn json_response((status, body): (u16, String)) -> HttpResponse {
    let status = StatusCode::try_from(status).expect("a status");
    let mut response = HttpResponse::new(status, SdkBody::from(body));
    response.headers_mut().insert("content-type", "application/x-amz-json-1.0");
    response
}

impl HttpConnector for Cloud {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let cloud = self.clone();
        HttpConnectorFuture::new(async move { cloud.answer(request).await })
    }
}
