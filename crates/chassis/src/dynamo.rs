//! What DynamoDB's answers mean.
//!
//! A condition that failed, a conflict with another transaction, a table that
//! takes no more at the moment, and a table that doesn't answer are four
//! different things. This module keeps them apart, so that a repository can't
//! mistake one for another.

use std::{collections::HashMap, str::FromStr, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    error::{BuildError, ProvideErrorMetadata, SdkError},
    operation::{
        delete_item::DeleteItemError, put_item::PutItemError, query::builders::QueryFluentBuilder,
        transact_get_items::TransactGetItemsError, transact_write_items::TransactWriteItemsError,
        update_item::UpdateItemError,
    },
    types::{
        AttributeValue, CancellationReason, Delete, Get, KeysAndAttributes, Put, ReturnValue,
        ReturnValuesOnConditionCheckFailure, TransactGetItem, TransactWriteItem, Update,
    },
};
use backon::{ExponentialBuilder, Retryable};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    config::Env,
    deadline::Deadline,
    page::{self, Cursor, InvalidCursor, Limit, ListError, Page},
    store::{SaveOutcome, StoreError},
};

/// An item as the SDK has it.
pub type Item = HashMap<String, AttributeValue>;

/// How often a write that met somebody else's transaction is tried again.
const CONFLICT_RETRIES: usize = 6;

/// How often the rest of a batch is asked for when DynamoDB answers a part of
/// it, and the first pause between, which then doubles.
const BATCH_TRIES: u32 = 6;
const BATCH_PAUSE: Duration = Duration::from_millis(20);

/// A record or a cursor that can't be written or read.
fn corrupt(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::corrupt("DynamoDB", source)
}

impl From<BuildError> for StoreError {
    /// A request of ours that lacks something: never left this process.
    fn from(error: BuildError) -> Self {
        corrupt(error)
    }
}

/// The result of a conditional write.
#[derive(Debug, PartialEq)]
#[must_use]
pub enum WriteOutcome {
    /// The item is written.
    Written,
    /// The condition failed. Holds the item that is stored, if there is one.
    ///
    /// This is no proof that *this* write didn't happen: the SDK may have
    /// repeated it after a lost reply. A caller to whom that matters compares
    /// the stored item with the one that it wanted to write.
    ConditionFailed(Option<Item>),
}

impl From<WriteOutcome> for SaveOutcome {
    fn from(outcome: WriteOutcome) -> Self {
        match outcome {
            WriteOutcome::Written => Self::Saved,
            WriteOutcome::ConditionFailed(_) => Self::Stale,
        }
    }
}

/// The result of a transaction. (Contention with other transactions is
/// [`StoreError::Contended`].)
#[derive(Debug, PartialEq)]
#[must_use]
pub enum TransactionOutcome {
    /// All items are written.
    Written,
    /// Nothing is written: the condition of the subject failed. Holds the
    /// subject's stored item, if there is one.
    SubjectConditionFailed(Option<Item>),
    /// Nothing is written: the condition of the subject held, and the condition
    /// of another write failed.
    OtherConditionFailed,
}

/// A write of one item, sent alone or as part of a transaction. Its methods
/// have the names of the SDK's.
#[derive(Clone, Debug)]
#[must_use]
pub struct ItemWrite {
    kind: Kind,
    condition: Option<String>,
    names: Option<HashMap<String, String>>,
    values: Option<Item>,
}

#[derive(Clone, Debug)]
enum Kind {
    Put(Item),
    Update { key: Item, expression: String },
    Delete { key: Item },
}

impl ItemWrite {
    fn new(kind: Kind) -> Self {
        Self { kind, condition: None, names: None, values: None }
    }

    /// Writes only where `condition` holds.
    pub fn condition_expression(mut self, condition: impl Into<String>) -> Self {
        self.condition = Some(condition.into());
        self
    }

    /// What `name` stands for in the expressions.
    pub fn expression_attribute_names(mut self, name: impl Into<String>, attribute: impl Into<String>) -> Self {
        self.names.get_or_insert_default().insert(name.into(), attribute.into());
        self
    }

    /// What `name` stands for in the expressions.
    pub fn expression_attribute_values(mut self, name: impl Into<String>, value: AttributeValue) -> Self {
        self.values.get_or_insert_default().insert(name.into(), value);
        self
    }

    /// As a part of a transaction on `table`, which returns the item that a
    /// failed condition met if `failed` says so.
    fn in_transaction(
        self,
        table: &str,
        failed: ReturnValuesOnConditionCheckFailure,
    ) -> Result<TransactWriteItem, StoreError> {
        macro_rules! write {
            ($builder:expr) => {
                $builder
                    .table_name(table)
                    .set_condition_expression(self.condition)
                    .set_expression_attribute_names(self.names)
                    .set_expression_attribute_values(self.values)
                    .return_values_on_condition_check_failure(failed)
                    .build()?
            };
        }
        let part = TransactWriteItem::builder();
        Ok(match self.kind {
            Kind::Put(item) => part.put(write!(Put::builder().set_item(Some(item)))),
            Kind::Update { key, expression } => {
                part.update(write!(Update::builder().set_key(Some(key)).update_expression(expression)))
            }
            Kind::Delete { key } => part.delete(write!(Delete::builder().set_key(Some(key)))),
        }
        .build())
    }
}

/// An update that doesn't say yet what it changes.
#[derive(Clone, Debug)]
#[must_use]
pub struct UpdateBuilder {
    key: Item,
}

impl UpdateBuilder {
    /// What the update changes.
    pub fn update_expression(self, expression: impl Into<String>) -> ItemWrite {
        ItemWrite::new(Kind::Update { key: self.key, expression: expression.into() })
    }
}

/// A table's key: every table of this project has the same two attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Partition key.
    pub pk: String,
    /// Sort key.
    pub sk: String,
}

impl Key {
    /// The key of an item that is alone in its partition, or its head.
    pub fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        Self { pk: pk.into(), sk: sk.into() }
    }

    /// As the SDK wants it.
    pub fn attributes(&self) -> Item {
        HashMap::from([("pk".into(), string(&self.pk)), ("sk".into(), string(&self.sk))])
    }
}

/// A string attribute.
pub fn string(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

/// A number attribute.
pub fn number(number: impl std::fmt::Display) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Any value as an attribute.
pub fn attribute<T: Serialize>(value: &T) -> Result<AttributeValue, StoreError> {
    serde_dynamo::aws_sdk_dynamodb_1::to_attribute_value(value).map_err(corrupt)
}

/// A record as an item.
pub fn to_item<T: Serialize>(record: &T) -> Result<Item, StoreError> {
    serde_dynamo::aws_sdk_dynamodb_1::to_item(record).map_err(corrupt)
}

/// An item as a record.
pub fn from_item<T: DeserializeOwned>(item: Item) -> Result<T, StoreError> {
    serde_dynamo::aws_sdk_dynamodb_1::from_item(item)
        .map_err(|error: serde_dynamo::Error| corrupt(without_quotations(&error.to_string())))
}

/// The message without the texts that serde quotes in it, which may be
/// somebody's name, and which it escapes as Rust does.
fn without_quotations(message: &str) -> String {
    let mut rest = message.chars();
    let mut kept = String::new();
    while let Some(c) = rest.next() {
        kept.push(c);
        if c == '"' {
            while let Some(quoted) = rest.next().filter(|&c| c != '"') {
                if quoted == '\\' {
                    rest.next();
                }
            }
            kept.push_str("…\"");
        }
    }
    kept
}

/// What to list: one partition of an index that is sorted by the table's
/// partition key.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    /// The index.
    pub index: &'a str,
    /// The index's partition key attribute.
    pub partition_attribute: &'a str,
    /// Its value. Comes from the caller's rights, never from a cursor.
    pub partition: &'a str,
    /// Descending by the index's sort key.
    pub newest_first: bool,
    /// Entries a page.
    pub limit: Limit,
    /// Where the page before ended.
    pub cursor: Option<&'a Cursor>,
}

/// A table's name, as a function's environment gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName(String);

/// Why a text is no table's name.
#[derive(Debug, thiserror::Error)]
#[error("must be 3 to 255 letters, digits, dots, dashes and underscores")]
pub struct InvalidTableName;

impl FromStr for TableName {
    type Err = InvalidTableName;

    fn from_str(text: &str) -> Result<Self, InvalidTableName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let named = (3..=255).contains(&text.len()) && text.bytes().all(allowed);
        if named { Ok(Self(text.to_owned())) } else { Err(InvalidTableName) }
    }
}

impl TableName {
    /// From the variable `name`.
    pub fn read(env: &mut Env<'_>, name: &'static str) -> Option<Self> {
        env.required(name, "the name of a DynamoDB table")
    }
}

/// One table.
#[derive(Clone, Debug)]
pub struct Table {
    client: Client,
    name: String,
}

impl Table {
    /// The table `name`.
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        Self { client, name: name.into() }
    }

    /// As [`Table::new`], with a client of its own.
    pub fn open(config: &aws_config::SdkConfig, name: TableName) -> Self {
        Self::new(Client::new(config), name.0)
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads one item, consistently.
    pub async fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, StoreError> {
        let request =
            self.client.get_item().table_name(&self.name).set_key(Some(key.attributes())).consistent_read(true);
        let output = request.send().await.map_err(|error| self.unavailable(error))?;
        output.item.map(from_item).transpose()
    }

    /// Reads an item with TransactGetItems; if another transaction is writing
    /// it, retries until that has finished.
    ///
    /// A plain read waits for no transaction, even if it is consistent: of two
    /// items of one transaction it may find the first with its new content and
    /// the second with its old content
    /// ([isolation levels](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html#transaction-isolation)).
    /// So code that has seen the effect of a transaction, and asks for its
    /// cause, reads with this method. It needs the permission
    /// `dynamodb:GetItem`, and costs as much as two plain reads.
    pub async fn transact_get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, StoreError> {
        let get = Get::builder().table_name(&self.name).set_key(Some(key.attributes())).build()?;
        let request = self.client.transact_get_items().transact_items(TransactGetItem::builder().get(get).build());
        let send = || async { request.clone().send().await };
        match send.retry(conflict_backoff()).when(|error| Outcome::of_read(error).is_contended_or_throttled()).await {
            Ok(output) => {
                output.responses.unwrap_or_default().into_iter().find_map(|r| r.item).map(from_item).transpose()
            }
            Err(error) => match Outcome::of_read(&error) {
                Outcome::Contended => Err(StoreError::contended(&self.name, error)),
                Outcome::Throttled => Err(StoreError::throttled(&self.name, error)),
                _ => Err(self.unavailable(error)),
            },
        }
    }

    /// Reads the items of `keys`, at most 100, consistently and in any order;
    /// without those that don't exist.
    pub async fn get_all<T: DeserializeOwned>(
        &self,
        keys: impl IntoIterator<Item = Key>,
    ) -> Result<Vec<T>, StoreError> {
        let mut found = Vec::new();
        let mut keys: Vec<Item> = keys.into_iter().map(|key| key.attributes()).collect();
        for attempt in 0..BATCH_TRIES {
            if keys.is_empty() {
                break;
            }
            if attempt > 0 {
                tokio::time::sleep(BATCH_PAUSE * 2_u32.pow(attempt - 1)).await;
            }
            let wanted = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true);
            let request = self.client.batch_get_item().request_items(&self.name, wanted.build()?);
            let output = request.send().await.map_err(|error| self.unavailable(error))?;
            found.extend(output.responses.unwrap_or_default().into_values().flatten());
            let unprocessed = output.unprocessed_keys.unwrap_or_default().into_values();
            keys = unprocessed.flat_map(|rest| rest.keys).collect();
        }
        if !keys.is_empty() {
            return Err(StoreError::throttled(&self.name, "a batch was left unfinished, several times"));
        }
        found.into_iter().map(from_item).collect()
    }

    /// Puts a record.
    pub fn put<T: Serialize>(&self, record: &T) -> Result<ItemWrite, StoreError> {
        Ok(ItemWrite::new(Kind::Put(to_item(record)?)))
    }

    /// Puts a record where there is nothing.
    pub fn put_new<T: Serialize>(&self, record: &T) -> Result<ItemWrite, StoreError> {
        Ok(self.put(record)?.condition_expression("attribute_not_exists(pk)"))
    }

    /// The start of an update.
    pub fn update(&self, key: &Key) -> UpdateBuilder {
        UpdateBuilder { key: key.attributes() }
    }

    /// Deletes an item.
    pub fn delete(&self, key: &Key) -> ItemWrite {
        ItemWrite::new(Kind::Delete { key: key.attributes() })
    }

    /// Sends one write; repeats it while it only meets transactions.
    pub async fn send(&self, change: ItemWrite) -> Result<WriteOutcome, StoreError> {
        let ItemWrite { kind, condition, names, values } = change;
        let failed = condition.as_ref().map(|_| ReturnValuesOnConditionCheckFailure::AllOld);
        macro_rules! send {
            ($request:expr, $error:ident) => {{
                let request = $request
                    .table_name(&self.name)
                    .set_condition_expression(condition)
                    .set_expression_attribute_names(names)
                    .set_expression_attribute_values(values)
                    .set_return_values_on_condition_check_failure(failed);
                let send = || async { request.clone().send().await.map(|_| ()) };
                match send.retry(conflict_backoff()).when(is_conflict).await {
                    Ok(()) => Ok(WriteOutcome::Written),
                    Err(error) => match error.as_service_error() {
                        Some($error::ConditionalCheckFailedException(refusal)) => {
                            Ok(WriteOutcome::ConditionFailed(refusal.item.clone()))
                        }
                        _ => Err(self.unavailable(error)),
                    },
                }
            }};
        }
        match kind {
            Kind::Put(item) => send!(self.client.put_item().set_item(Some(item)), PutItemError),
            Kind::Update { key, expression } => {
                send!(self.client.update_item().set_key(Some(key)).update_expression(expression), UpdateItemError)
            }
            Kind::Delete { key } => send!(self.client.delete_item().set_key(Some(key)), DeleteItemError),
        }
    }

    /// Sends a conditional write that returns the item as it is now (an
    /// update), or as it was (a put or a deletion); `None` if the condition
    /// didn't hold, or where there was nothing.
    pub async fn send_returning<T: DeserializeOwned>(&self, change: ItemWrite) -> Result<Option<T>, StoreError> {
        let ItemWrite { kind, condition, names, values } = change;
        macro_rules! send {
            ($request:expr, $returned:ident, $error:ident) => {{
                let request = $request
                    .table_name(&self.name)
                    .set_condition_expression(condition)
                    .set_expression_attribute_names(names)
                    .set_expression_attribute_values(values)
                    .return_values(ReturnValue::$returned);
                let send = || async { request.clone().send().await };
                match send.retry(conflict_backoff()).when(is_conflict).await {
                    Ok(output) => output.attributes.map(from_item).transpose(),
                    Err(error) => match error.as_service_error() {
                        Some($error::ConditionalCheckFailedException(_)) => Ok(None),
                        _ => Err(self.unavailable(error)),
                    },
                }
            }};
        }
        match kind {
            Kind::Put(item) => send!(self.client.put_item().set_item(Some(item)), AllOld, PutItemError),
            Kind::Update { key, expression } => send!(
                self.client.update_item().set_key(Some(key)).update_expression(expression),
                AllNew,
                UpdateItemError
            ),
            Kind::Delete { key } => send!(self.client.delete_item().set_key(Some(key)), AllOld, DeleteItemError),
        }
    }

    /// Sends a transaction; repeats it while it only meets other transactions.
    ///
    /// `subject` is what it is about, and `others` what must be written with
    /// it: a reservation and the stock that it takes, say. While somebody
    /// writes the subject, others may already hold what comes of that; so what
    /// their conditions say counts only where the subject's condition held.
    ///
    /// The SDK gives each call a request token of its own, so that its own
    /// repeats after a lost reply change nothing more.
    pub async fn transact(
        &self,
        subject: ItemWrite,
        others: impl IntoIterator<Item = ItemWrite>,
    ) -> Result<TransactionOutcome, StoreError> {
        let subject = subject.in_transaction(&self.name, ReturnValuesOnConditionCheckFailure::AllOld)?;
        let others =
            others.into_iter().map(|other| other.in_transaction(&self.name, ReturnValuesOnConditionCheckFailure::None));
        let writes = std::iter::once(Ok(subject)).chain(others).collect::<Result<Vec<_>, _>>()?;
        let request = self.client.transact_write_items().set_transact_items(Some(writes));
        let send = || async { request.clone().send().await.map(|_| ()) };
        match send.retry(conflict_backoff()).when(|error| Outcome::of(error).is_contended_or_throttled()).await {
            Ok(()) => Ok(TransactionOutcome::Written),
            Err(error) => match Outcome::of(&error) {
                Outcome::SubjectConditionFailed(item) => Ok(TransactionOutcome::SubjectConditionFailed(item)),
                Outcome::OtherConditionFailed => Ok(TransactionOutcome::OtherConditionFailed),
                Outcome::Contended => Err(StoreError::contended(&self.name, error)),
                Outcome::Throttled => Err(StoreError::throttled(&self.name, error)),
                Outcome::Unknown => Err(self.unavailable(error)),
            },
        }
    }

    /// The start of a query.
    pub fn query(&self) -> QueryFluentBuilder {
        self.client.query().table_name(&self.name)
    }

    /// Reads one page of a partition of an index.
    ///
    /// Whether there is another page shows in the entry after this one's last.
    /// DynamoDB's own key of the last item it looked at says only that it has
    /// not looked further.
    pub async fn list<T: DeserializeOwned>(&self, list: List<'_>) -> Result<Page<T>, ListError> {
        let scope = format!("{}/{}", list.index, list.partition);
        let start = list.cursor.map(|cursor| cursor.decode::<Key>(&scope)).transpose()?;
        let mut start = start.map(|key| {
            let mut start = key.attributes();
            start.insert(list.partition_attribute.to_owned(), string(list.partition));
            start
        });
        let wanted = list.limit.get() as usize;
        let mut found = Vec::new();
        loop {
            let query = self
                .query()
                .index_name(list.index)
                .key_condition_expression("#partition = :partition")
                .expression_attribute_names("#partition", list.partition_attribute)
                .expression_attribute_values(":partition", string(list.partition))
                .scan_index_forward(!list.newest_first)
                .limit((wanted + 1 - found.len()) as i32)
                .set_exclusive_start_key(start);
            let output = query.send().await.map_err(|error| {
                // Of all that is asked here, only the position is not our own.
                // Who knows this code can forge one that is no key.
                let forged = list.cursor.is_some() && error.code() == Some("ValidationException");
                if forged { ListError::from(InvalidCursor) } else { self.unavailable(error).into() }
            })?;
            found.extend(output.items.unwrap_or_default());
            start = output.last_evaluated_key;
            // A query ends after a megabyte, too, however many it has found.
            if start.is_none() || found.len() > wanted {
                break;
            }
        }
        let mut next_cursor = None;
        if found.len() > wanted {
            found.truncate(wanted);
            let last = found.last().cloned().unwrap_or_default();
            let last: Key = from_item(last)?;
            next_cursor = Some(page::encode(&scope, &last).map_err(corrupt)?);
        }
        let items = found.into_iter().map(from_item).collect::<Result<_, _>>()?;
        Ok(Page { items, next_cursor })
    }

    /// Gives up on `work` when `deadline` has passed.
    pub async fn before<T>(
        &self,
        deadline: Deadline,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let timed = tokio::time::timeout_at(deadline.instant(), work).await;
        timed.unwrap_or_else(|_| Err(StoreError::unavailable(&self.name, "no time left")))
    }

    /// Wraps what the SDK said of a call that has no outcome.
    pub fn unavailable<E, R>(&self, error: SdkError<E, R>) -> StoreError
    where
        E: ProvideErrorMetadata,
        SdkError<E, R>: std::error::Error + Send + Sync + 'static,
    {
        let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
        match code.map_or(Outcome::Unknown, Outcome::of_code) {
            Outcome::Contended => StoreError::contended(&self.name, error),
            Outcome::Throttled => StoreError::throttled(&self.name, error),
            _ => StoreError::unavailable(&self.name, error),
        }
    }
}

fn conflict_backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(Duration::from_millis(200))
        .with_max_times(CONFLICT_RETRIES)
        .with_jitter()
}

fn is_conflict<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    error.code().is_some_and(|code| Outcome::of_code(code) == Outcome::Contended)
}

/// What an error says of the writes that were asked for.
#[derive(Debug, PartialEq)]
enum Outcome {
    SubjectConditionFailed(Option<Item>),
    OtherConditionFailed,
    /// Somebody else's transaction has an item.
    Contended,
    /// The table takes no more at the moment.
    Throttled,
    /// None of these.
    Unknown,
}

impl Outcome {
    fn is_contended_or_throttled(&self) -> bool {
        matches!(self, Self::Contended | Self::Throttled)
    }

    /// What the code of an error, or of a cancelled transaction's reason, says.
    /// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
    fn of_code(code: &str) -> Self {
        match code {
            "TransactionConflictException" | "TransactionInProgressException" | "TransactionConflict" => {
                Self::Contended
            }
            "ThrottlingException"
            | "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "ThrottlingError"
            | "ProvisionedThroughputExceeded" => Self::Throttled,
            _ => Self::Unknown,
        }
    }

    fn of_reason(reason: &CancellationReason) -> Self {
        Self::of_code(reason.code().unwrap_or_default())
    }

    /// Of a read of one item.
    fn of_read(error: &SdkError<TransactGetItemsError>) -> Self {
        match error.as_service_error() {
            Some(TransactGetItemsError::TransactionCanceledException(cancelled)) => {
                cancelled.cancellation_reasons().first().map_or(Self::Unknown, Self::of_reason)
            }
            _ => error.code().map_or(Self::Unknown, Self::of_code),
        }
    }

    /// What is said of the first write, the subject, decides. While somebody
    /// writes it, or it was not looked at for want of throughput, a failed
    /// condition of another decides nothing: that may be what comes of the
    /// subject. (It may be this very transaction, sent before and committed
    /// item by item.)
    fn of(error: &SdkError<TransactWriteItemsError>) -> Self {
        let reasons = match error.as_service_error() {
            Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => cancelled.cancellation_reasons(),
            _ => return error.code().map_or(Self::Unknown, Self::of_code),
        };
        let Some((subject, others)) = reasons.split_first() else { return Self::Unknown };
        match subject.code() {
            Some("ConditionalCheckFailed") => return Self::SubjectConditionFailed(subject.item.clone()),
            None | Some("None") => {}
            Some(code) => return Self::of_code(code),
        }
        if others.iter().any(|reason| reason.code() == Some("ConditionalCheckFailed")) {
            return Self::OtherConditionFailed;
        }
        let others = others.iter().filter(|reason| !matches!(reason.code(), None | Some("None"))).map(Self::of_reason);
        // Of several reasons the one that a repeat mends least.
        let rank = |outcome: &Self| match outcome {
            Self::Contended => 0,
            Self::Throttled => 1,
            _ => 2,
        };
        others.max_by_key(rank).unwrap_or(Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::{
        error::SdkError,
        operation::transact_write_items::TransactWriteItemsError,
        types::{AttributeValue, CancellationReason, error::TransactionCanceledException},
    };
    use aws_smithy_runtime_api::http::{Response, StatusCode};
    use aws_smithy_types::body::SdkBody;
    use serde::Deserialize;

    use super::{Outcome, from_item};
    use crate::telemetry::chain;

    fn cancelled(codes: &[&str]) -> SdkError<TransactWriteItemsError> {
        let reasons = codes.iter().map(|&code| CancellationReason::builder().code(code).build()).collect();
        let cancelled = TransactionCanceledException::builder().set_cancellation_reasons(Some(reasons)).build();
        let response = Response::new(StatusCode::try_from(400).unwrap(), SdkBody::empty());
        SdkError::service_error(TransactWriteItemsError::TransactionCanceledException(cancelled), response)
    }

    #[test]
    fn what_is_said_of_its_subject_decides_a_transaction() {
        const CONFLICT: &str = "TransactionConflict";
        const REFUSED: &str = "ConditionalCheckFailed";
        for (codes, outcome) in [
            (&[CONFLICT, "None"][..], Outcome::Contended),
            (&["None", CONFLICT], Outcome::Contended),
            (&[CONFLICT, REFUSED], Outcome::Contended),
            (&[CONFLICT, "None", REFUSED], Outcome::Contended),
            (&[REFUSED, CONFLICT], Outcome::SubjectConditionFailed(None)),
            (&[REFUSED, REFUSED], Outcome::SubjectConditionFailed(None)),
            (&["None", REFUSED], Outcome::OtherConditionFailed),
            (&["None", CONFLICT, REFUSED], Outcome::OtherConditionFailed),
            (&["None", "ThrottlingError", REFUSED], Outcome::OtherConditionFailed),
            (&["ThrottlingError", CONFLICT], Outcome::Throttled),
            (&["ProvisionedThroughputExceeded", REFUSED], Outcome::Throttled),
            (&["None", CONFLICT, "ThrottlingError"], Outcome::Throttled),
            (&["ValidationError", CONFLICT], Outcome::Unknown),
            (&["None", CONFLICT, "ItemCollectionSizeLimitExceeded"], Outcome::Unknown),
            (&["None", "None"], Outcome::Unknown),
            (&[], Outcome::Unknown),
        ] {
            assert_eq!(Outcome::of(&cancelled(codes)), outcome, "{codes:?}");
        }
    }

    #[test]
    fn what_a_record_holds_is_not_in_the_word_that_it_cannot_be_read() {
        #[derive(Debug, Deserialize)]
        struct Record {
            #[serde(flatten)]
            _rest: Rest,
        }
        #[derive(Debug, Deserialize)]
        struct Rest {
            #[serde(rename = "name")]
            _name: u32,
        }
        let name = AttributeValue::S("Ada \"the first\" Lovelace".into());
        let error = from_item::<Record>([("name".into(), name)].into()).unwrap_err();
        let said = chain(&error);
        assert!(said.contains("expected u32") && !said.contains("Ada") && !said.contains("Lovelace"), "{said}");
    }
}
