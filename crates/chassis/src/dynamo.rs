//! Access to the tables in DynamoDB, and the interpretation of DynamoDB's
//! responses.
//!
//! A failed condition, a conflict with another transaction, a throttled
//! request, and a missing response are four different outcomes. This module
//! returns a different value for each of these outcomes, so that a repository
//! can't mistake one outcome for another.

use std::{collections::HashMap, str::FromStr, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    error::{BuildError, ProvideErrorMetadata, SdkError},
    operation::{
        delete_item::DeleteItemError,
        put_item::PutItemError,
        query::builders::QueryFluentBuilder,
        transact_get_items::TransactGetItemsError,
        transact_write_items::{TransactWriteItemsError, builders::TransactWriteItemsFluentBuilder},
        update_item::UpdateItemError,
    },
    types::{
        AttributeValue, CancellationReason, Delete, Get, KeysAndAttributes, Put, ReturnValue,
        ReturnValuesOnConditionCheckFailure, TransactGetItem, TransactWriteItem, Update,
    },
};
use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    page::{self, Cursor, InvalidCursor, Limit, ListError, Page},
    store::{SaveOutcome, StoreError},
};

/// An item in the form of the SDK.
pub type Item = HashMap<String, AttributeValue>;

/// The maximum number of repeats of a request that conflicts with a
/// transaction.
const CONFLICT_RETRIES: usize = 6;

/// The maximum number of requests for one batch of keys. DynamoDB may return
/// only a part of a batch; the missing keys are then requested again.
const BATCH_TRIES: u32 = 6;
/// The pause before the second request for a batch of keys. The pause doubles
/// before each further request.
const BATCH_PAUSE: Duration = Duration::from_millis(20);

/// The error for a record or a cursor that can't be written or read.
fn corrupt(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::corrupt("DynamoDB", source)
}

/// Makes a page of at most `wanted` entries. One entry more than that shows that another
/// page follows; `encode` writes its cursor from the key of the page's last entry.
fn page_of<T: DeserializeOwned>(
    mut found: Vec<Item>,
    wanted: usize,
    encode: impl FnOnce(&Key) -> Result<String, serde_json::Error>,
) -> Result<Page<T>, ListError> {
    let mut next_cursor = None;
    if found.len() > wanted {
        found.truncate(wanted);
        let last: Key = from_item(found.last().cloned().unwrap_or_default())?;
        next_cursor = Some(encode(&last).map_err(corrupt)?);
    }
    let items = found.into_iter().map(from_item).collect::<Result<_, _>>()?;
    Ok(Page { items, next_cursor })
}

impl From<BuildError> for StoreError {
    /// Converts the SDK's error for a request that lacks a field. Such a
    /// request was never sent.
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
    /// The write may have happened all the same: if the response to a write is
    /// lost, the SDK sends the write again, and then the condition may fail
    /// because the first attempt has changed the item. A caller that must know
    /// compares the stored item with the item that it wanted to write.
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

/// The result of [`Table::transact`], which writes a subject and other items in
/// one transaction. Contention with other transactions is not among these
/// results, but is the error [`StoreError::Contended`].
#[derive(Debug, PartialEq)]
#[must_use]
pub enum TransactionOutcome {
    /// All items are written.
    Written,
    /// Nothing is written, because the condition of the subject's write failed.
    /// Holds the subject's stored item, if there is one.
    SubjectConditionFailed(Option<Item>),
    /// Nothing is written. The condition of the subject's write held, but the
    /// condition of another item's write failed.
    OtherConditionFailed,
}

/// The result of [`Table::transact_once`], which tries a transaction once.
#[derive(Debug)]
#[must_use]
pub enum AttemptOutcome {
    /// All items are written.
    Written,
    /// Nothing is written, because the condition of the subject's write failed.
    /// Holds the subject's stored item, if there is one.
    SubjectConditionFailed(Option<Item>),
    /// Nothing is written. The condition of the subject's write held, but the
    /// conditions of the writes at these positions among the other writes
    /// failed.
    OtherConditionsFailed(Vec<usize>),
    /// Nothing is written, because of contention or throttling.
    Contended {
        /// The positions among the other writes of the writes that met
        /// contention or were throttled. Empty if the subject's write did, or if
        /// DynamoDB doesn't say which write did.
        others: Vec<usize>,
        /// The error to return if the caller does not try again.
        error: StoreError,
    },
}

/// A put, an update or a deletion of one item, which is sent alone or in a
/// transaction. The methods have the same names as in the SDK's builders.
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

    /// Writes the item only if `condition` holds.
    pub fn condition_expression(mut self, condition: impl Into<String>) -> Self {
        self.condition = Some(condition.into());
        self
    }

    /// Defines the placeholder `name` for an attribute's name.
    pub fn expression_attribute_names(mut self, name: impl Into<String>, attribute: impl Into<String>) -> Self {
        self.names.get_or_insert_default().insert(name.into(), attribute.into());
        self
    }

    /// Defines the placeholder `name` for a value.
    pub fn expression_attribute_values(mut self, name: impl Into<String>, value: AttributeValue) -> Self {
        self.values.get_or_insert_default().insert(name.into(), value);
        self
    }

    /// Converts the write to a part of a transaction on `table`. `failed` says
    /// whether DynamoDB returns the stored item if the condition fails.
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

/// An update whose expression is still missing.
#[derive(Clone, Debug)]
#[must_use]
pub struct UpdateBuilder {
    key: Item,
}

impl UpdateBuilder {
    /// Completes the update with the expression that says what it changes.
    pub fn update_expression(self, expression: impl Into<String>) -> ItemWrite {
        ItemWrite::new(Kind::Update { key: self.key, expression: expression.into() })
    }
}

/// The primary key of an item. In every table of this project, the primary key
/// consists of the attributes `pk` and `sk`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The partition key.
    pub pk: String,
    /// The sort key.
    pub sk: String,
}

impl Key {
    /// Returns the key with the partition key `pk` and the sort key `sk`.
    pub fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        Self { pk: pk.into(), sk: sk.into() }
    }

    /// Returns the key in the form of the SDK.
    pub fn attributes(&self) -> Item {
        HashMap::from([("pk".into(), string(&self.pk)), ("sk".into(), string(&self.sk))])
    }
}

/// Returns a string attribute.
pub fn string(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

/// Returns a number attribute.
pub fn number(number: impl std::fmt::Display) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Serialises a value as an attribute.
pub fn attribute<T: Serialize>(value: &T) -> Result<AttributeValue, StoreError> {
    serde_dynamo::aws_sdk_dynamodb_1::to_attribute_value(value).map_err(corrupt)
}

/// Serialises a record as an item.
pub fn to_item<T: Serialize>(record: &T) -> Result<Item, StoreError> {
    serde_dynamo::aws_sdk_dynamodb_1::to_item(record).map_err(corrupt)
}

/// Deserialises an item as a record.
pub fn from_item<T: DeserializeOwned>(item: Item) -> Result<T, StoreError> {
    serde_dynamo::aws_sdk_dynamodb_1::from_item(item)
        .map_err(|error: serde_dynamo::Error| corrupt(without_quotations(&error.to_string())))
}

/// Removes the quoted texts from an error message of serde: serde quotes values
/// of the record, and these may be personal data. In a quoted text, serde puts
/// a backslash before each quotation mark, as Rust does.
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

/// The parameters of [`Table::list`], which reads one page of one partition of
/// an index. The index's sort key must be `pk`, because a cursor contains only
/// the attributes of a [`Key`].
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    /// The index's name.
    pub index: &'a str,
    /// The name of the index's partition key attribute.
    pub partition_attribute: &'a str,
    /// The value of the index's partition key: the partition that is read. It
    /// must come from the caller's rights, and never from a cursor, which a
    /// client can forge.
    pub partition: &'a str,
    /// Whether the list is sorted in descending order of the index's sort key.
    pub newest_first: bool,
    /// The maximum number of entries of the page.
    pub limit: Limit,
    /// The cursor that came with the previous page; `None` for the first page.
    pub cursor: Option<&'a Cursor>,
}

/// A filter of a list. DynamoDB applies it after it has read an entry, so the
/// entries that don't match cost as much as the entries that match.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    /// The name of the filter in cursors: a cursor of one filter is refused for
    /// another filter.
    pub name: &'a str,
    /// The filter expression.
    pub expression: &'a str,
    /// A placeholder of the expression, and the string that it stands for.
    pub value: Option<(&'a str, &'a str)>,
}

impl List<'_> {
    /// The name of the list in its cursors.
    fn scope(&self, filter: Option<Filter<'_>>) -> String {
        let Self { index, partition, .. } = self;
        filter.map_or_else(|| format!("{index}/{partition}"), |filter| format!("{index}/{partition}/{}", filter.name))
    }

    /// Returns the cursor with which the page after the entry `key` begins.
    pub fn cursor_after(&self, filter: Option<Filter<'_>>, key: &Key) -> Result<String, StoreError> {
        page::encode(&self.scope(filter), key).map_err(corrupt)
    }
}

/// The parameters of [`Table::list_section`], which reads one page of a section
/// of a partition: the items whose sort keys begin with `prefix`, in the order of
/// these keys.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// The partition key. It must come from the caller's rights, and never from
    /// a cursor, which a client can forge.
    pub partition: &'a str,
    /// The beginning of the sort keys.
    pub prefix: &'a str,
    /// The maximum number of entries of the page.
    pub limit: Limit,
    /// The cursor that came with the previous page; `None` for the first page.
    pub cursor: Option<&'a Cursor>,
}

impl Section<'_> {
    /// The name of the section in its cursors.
    fn scope(&self) -> String {
        format!("{}/{}", self.partition, self.prefix)
    }

    /// Returns the sort key after which the page begins.
    fn start(&self) -> Result<Option<String>, InvalidCursor> {
        let Some(cursor) = self.cursor else { return Ok(None) };
        let sort_key: String = cursor.decode(&self.scope())?;
        if sort_key.starts_with(self.prefix) { Ok(Some(sort_key)) } else { Err(InvalidCursor) }
    }
}

/// The name of a table, read from a function's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName(String);

/// The error for a text that is not the name of a table.
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
    /// The expected value of a variable that holds a table's name, in words.
    pub const EXPECTED: &str = "the name of a DynamoDB table";
}

/// A table in DynamoDB.
#[derive(Clone, Debug)]
pub struct Table {
    client: Client,
    name: String,
}

impl Table {
    /// Opens the table `name`.
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        Self { client, name: name.into() }
    }

    /// Opens the table `name` with a client of its own.
    pub fn open(config: &aws_config::SdkConfig, name: TableName) -> Self {
        Self::new(Client::new(config), name.0)
    }

    /// Returns the table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads an item with a consistent read.
    pub async fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, StoreError> {
        let request =
            self.client.get_item().table_name(&self.name).set_key(Some(key.attributes())).consistent_read(true);
        let output = request.send().await.map_err(|error| self.unavailable(error))?;
        output.item.map(from_item).transpose()
    }

    /// Reads an item with TransactGetItems; if another transaction is writing
    /// it, retries until that has finished.
    ///
    /// A plain read, even a consistent one, doesn't wait for a running
    /// transaction. If a transaction writes two items, plain reads may find the
    /// new content of one item and the old content of the other item
    /// ([isolation levels](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html#transaction-isolation)).
    /// So code that has seen one item's new content, and now needs another item
    /// of the same transaction, reads the other item with this method. The
    /// method needs the permission `dynamodb:GetItem`, and costs as much as two
    /// plain reads.
    pub async fn transact_get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, StoreError> {
        let items = self.transact_get_items(std::slice::from_ref(key)).await?;
        items.into_iter().flatten().next().map(from_item).transpose()
    }

    /// Reads the items with the given keys, at most 100, with TransactGetItems:
    /// all items are read at one moment, at which no transaction is writing
    /// any of them. Returns for each key its item, in the order of the keys;
    /// `None` if there is no such item.
    pub async fn transact_get_items(&self, keys: &[Key]) -> Result<Vec<Option<Item>>, StoreError> {
        let get = |key: &Key| {
            let get = Get::builder().table_name(&self.name).set_key(Some(key.attributes())).build()?;
            Ok(TransactGetItem::builder().get(get).build())
        };
        let gets = keys.iter().map(get).collect::<Result<Vec<_>, StoreError>>()?;
        let request = self.client.transact_get_items().set_transact_items(Some(gets));
        let send = || async { request.clone().send().await };
        match send.retry(conflict_backoff()).when(|error| Outcome::of_read(error).is_contended_or_throttled()).await {
            Ok(output) => Ok(output.responses.unwrap_or_default().into_iter().map(|response| response.item).collect()),
            Err(error) => match Outcome::of_read(&error) {
                Outcome::Contended => Err(StoreError::contended(&self.name, error)),
                Outcome::Throttled => Err(StoreError::throttled(&self.name, error)),
                _ => Err(self.unavailable(error)),
            },
        }
    }

    /// Reads the items with the given keys, at most 100, with consistent reads.
    /// The items are returned in any order. A key without an item is skipped.
    pub async fn get_all<T: DeserializeOwned>(
        &self,
        keys: impl IntoIterator<Item = Key>,
    ) -> Result<Vec<T>, StoreError> {
        self.get_items(keys, true).await?.into_iter().map(from_item).collect()
    }

    /// Reads the items with the given keys, at most 100. The items are returned
    /// in any order. A key without an item is skipped. An inconsistent read
    /// costs half as much as a consistent one, and may return an item as it was
    /// a moment ago.
    pub async fn get_items(
        &self,
        keys: impl IntoIterator<Item = Key>,
        consistent: bool,
    ) -> Result<Vec<Item>, StoreError> {
        let mut found = Vec::new();
        let mut keys: Vec<Item> = keys.into_iter().map(|key| key.attributes()).collect();
        for attempt in 0..BATCH_TRIES {
            if keys.is_empty() {
                break;
            }
            if attempt > 0 {
                tokio::time::sleep(BATCH_PAUSE * 2_u32.pow(attempt - 1)).await;
            }
            let wanted = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(consistent);
            let request = self.client.batch_get_item().request_items(&self.name, wanted.build()?);
            let output = request.send().await.map_err(|error| self.unavailable(error))?;
            found.extend(output.responses.unwrap_or_default().into_values().flatten());
            let unprocessed = output.unprocessed_keys.unwrap_or_default().into_values();
            keys = unprocessed.flat_map(|rest| rest.keys).collect();
        }
        if !keys.is_empty() {
            return Err(StoreError::throttled(&self.name, "a batch was left unfinished several times"));
        }
        Ok(found)
    }

    /// Returns a write that stores `record`, and replaces a stored item with
    /// the same key.
    pub fn put<T: Serialize>(&self, record: &T) -> Result<ItemWrite, StoreError> {
        Ok(ItemWrite::new(Kind::Put(to_item(record)?)))
    }

    /// Returns a write that stores `record`, and fails if an item with the same
    /// key is stored.
    pub fn put_new<T: Serialize>(&self, record: &T) -> Result<ItemWrite, StoreError> {
        Ok(self.put(record)?.condition_expression("attribute_not_exists(pk)"))
    }

    /// Starts an update of the item with `key`.
    pub fn update(&self, key: &Key) -> UpdateBuilder {
        UpdateBuilder { key: key.attributes() }
    }

    /// Returns a deletion of the item with `key`.
    pub fn delete(&self, key: &Key) -> ItemWrite {
        ItemWrite::new(Kind::Delete { key: key.attributes() })
    }

    /// Sends one write. If a transaction is writing the item, repeats the
    /// write.
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

    /// Sends a conditional write, and returns an item: the new item after an
    /// update, the replaced item after a put, the deleted item after a
    /// deletion. Returns `None` if the condition failed, or if there was no
    /// item to replace or to delete.
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

    /// Writes `subject` and `others` in one transaction. If the transaction
    /// conflicts with other transactions, repeats it.
    ///
    /// The subject is the item that the request is about, and the other items
    /// must change together with it: for example, the subject is a reservation,
    /// and the other items are the stock of its products. If a condition of the
    /// other writes fails, this counts only if the subject's condition held:
    /// while another transaction writes the subject, the other items may
    /// already show the effects of that transaction.
    ///
    /// If a response is lost, the SDK sends the transaction again with the same
    /// request token. DynamoDB recognises the token, and doesn't write twice.
    pub async fn transact(
        &self,
        subject: ItemWrite,
        others: impl IntoIterator<Item = ItemWrite>,
    ) -> Result<TransactionOutcome, StoreError> {
        let request = self.transaction(subject, others)?;
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

    /// Writes `subject` and `others` in one transaction, like
    /// [`Table::transact`], but tries only once, and says which of the other
    /// writes failed. For a caller that can write other items instead.
    pub async fn transact_once(
        &self,
        subject: ItemWrite,
        others: impl IntoIterator<Item = ItemWrite>,
    ) -> Result<AttemptOutcome, StoreError> {
        let Err(error) = self.transaction(subject, others)?.send().await else { return Ok(AttemptOutcome::Written) };
        Ok(match Outcome::of(&error) {
            Outcome::SubjectConditionFailed(item) => AttemptOutcome::SubjectConditionFailed(item),
            Outcome::OtherConditionFailed => AttemptOutcome::OtherConditionsFailed(others_with(&error, is_refused)),
            outcome @ (Outcome::Contended | Outcome::Throttled) => {
                let is_contended = |reason: &CancellationReason| Outcome::of_reason(reason).is_contended_or_throttled();
                let others = others_with(&error, is_contended);
                let error = match outcome {
                    Outcome::Throttled => StoreError::throttled(&self.name, error),
                    _ => StoreError::contended(&self.name, error),
                };
                AttemptOutcome::Contended { others, error }
            }
            Outcome::Unknown => return Err(self.unavailable(error)),
        })
    }

    fn transaction(
        &self,
        subject: ItemWrite,
        others: impl IntoIterator<Item = ItemWrite>,
    ) -> Result<TransactWriteItemsFluentBuilder, StoreError> {
        let subject = subject.in_transaction(&self.name, ReturnValuesOnConditionCheckFailure::AllOld)?;
        let others =
            others.into_iter().map(|other| other.in_transaction(&self.name, ReturnValuesOnConditionCheckFailure::None));
        let writes = std::iter::once(Ok(subject)).chain(others).collect::<Result<Vec<_>, _>>()?;
        Ok(self.client.transact_write_items().set_transact_items(Some(writes)))
    }

    /// Starts a query of the table.
    pub fn query(&self) -> QueryFluentBuilder {
        self.client.query().table_name(&self.name)
    }

    /// Reads one page of a partition of an index.
    ///
    /// Asks DynamoDB for one entry more than the page can hold. If there is
    /// such an entry, there is another page. `LastEvaluatedKey` alone doesn't
    /// prove that there is another page: DynamoDB also returns it if no entry
    /// follows.
    pub async fn list<T: DeserializeOwned>(&self, list: List<'_>) -> Result<Page<T>, ListError> {
        self.list_filtered(list, None).await
    }

    /// Reads one page of a partition of an index, and skips the entries that
    /// the filter doesn't match.
    ///
    /// The page is full, or it is the last one, however many entries don't
    /// match. If few entries match, each query reads four times as many entries
    /// as the query before it, up to a megabyte. So the number of queries stays
    /// small, and the list never reads many more entries than it must.
    pub async fn list_filtered<T: DeserializeOwned>(
        &self,
        list: List<'_>,
        filter: Option<Filter<'_>>,
    ) -> Result<Page<T>, ListError> {
        let scope = list.scope(filter);
        let start = list.cursor.map(|cursor| cursor.decode::<Key>(&scope)).transpose()?;
        let mut start = start.map(|key| {
            let mut start = key.attributes();
            start.insert(list.partition_attribute.to_owned(), string(list.partition));
            start
        });
        let wanted = list.limit.get() as usize;
        let mut found = Vec::new();
        let mut reach = wanted + 1;
        loop {
            let limit = if filter.is_some() { reach } else { wanted + 1 - found.len() };
            let mut query = self
                .query()
                .index_name(list.index)
                .key_condition_expression("#partition = :partition")
                .expression_attribute_names("#partition", list.partition_attribute)
                .expression_attribute_values(":partition", string(list.partition))
                .scan_index_forward(!list.newest_first)
                .limit(i32::try_from(limit).unwrap_or(i32::MAX))
                .set_exclusive_start_key(start);
            if let Some(filter) = filter {
                query = query.filter_expression(filter.expression);
                if let Some((name, value)) = filter.value {
                    query = query.expression_attribute_values(name, string(value));
                }
            }
            reach = reach.saturating_mul(4);
            let output = query.send().await.map_err(|error| {
                // Only the start position of the query comes from the client,
                // in the cursor. So if DynamoDB refuses the query as invalid,
                // the client has forged a cursor whose position is not a key.
                let forged = list.cursor.is_some() && error.code() == Some("ValidationException");
                if forged { ListError::from(InvalidCursor) } else { self.unavailable(error).into() }
            })?;
            found.extend(output.items.unwrap_or_default());
            start = output.last_evaluated_key;
            // DynamoDB also ends a query after a megabyte. So a query may
            // return fewer entries than it was asked for, although there are
            // more.
            if start.is_none() || found.len() > wanted {
                break;
            }
        }
        page_of(found, wanted, |last| page::encode(&scope, last))
    }

    /// Reads one page of a section of a partition.
    pub async fn list_section<T: DeserializeOwned>(&self, section: Section<'_>) -> Result<Page<T>, ListError> {
        let start = section.start()?;
        let mut start = start.map(|sort_key| Key::new(section.partition, sort_key).attributes());
        let wanted = section.limit.get() as usize;
        let mut found: Vec<Item> = Vec::new();
        loop {
            // One entry more than the page has shows whether another page follows.
            let missing = wanted + 1 - found.len();
            let query = self
                .query()
                .key_condition_expression("pk = :partition AND begins_with(sk, :prefix)")
                .expression_attribute_values(":partition", string(section.partition))
                .expression_attribute_values(":prefix", string(section.prefix))
                .limit(i32::try_from(missing).unwrap_or(i32::MAX))
                .set_exclusive_start_key(start);
            let output = query.send().await.map_err(|error| self.unavailable(error))?;
            found.extend(output.items.unwrap_or_default());
            start = output.last_evaluated_key;
            if start.is_none() || found.len() > wanted {
                break;
            }
        }
        page_of(found, wanted, |last| page::encode(&section.scope(), &last.sk))
    }

    /// Converts the error of a request to a store error: contention and
    /// throttling to their own variants, all other errors to
    /// [`StoreError::Unavailable`].
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

/// The pauses before the repeats of a request that meets contention. There are
/// as many repeats as pauses.
pub fn contention_pauses() -> impl Iterator<Item = Duration> + Send {
    conflict_backoff().build()
}

fn conflict_backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(Duration::from_millis(200))
        .with_max_times(CONFLICT_RETRIES)
        .with_jitter()
}

/// The positions among the other writes of a transaction of the writes whose
/// reason satisfies `selects`. Empty if the subject's reason satisfies it.
fn others_with(error: &SdkError<TransactWriteItemsError>, selects: impl Fn(&CancellationReason) -> bool) -> Vec<usize> {
    let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error() else {
        return Vec::new();
    };
    match cancelled.cancellation_reasons().split_first() {
        Some((subject, others)) if !selects(subject) => {
            others.iter().enumerate().filter(|(_, reason)| selects(reason)).map(|(position, _)| position).collect()
        }
        _ => Vec::new(),
    }
}

fn is_refused(reason: &CancellationReason) -> bool {
    reason.code() == Some("ConditionalCheckFailed")
}

fn is_conflict<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    error.code().is_some_and(|code| Outcome::of_code(code) == Outcome::Contended)
}

/// The outcome of a failed request, as far as the error says it.
#[derive(Debug, PartialEq)]
enum Outcome {
    SubjectConditionFailed(Option<Item>),
    OtherConditionFailed,
    /// Another transaction is writing an item of this request.
    Contended,
    /// The table, or the AWS account, has reached the limit of its throughput.
    Throttled,
    /// The error doesn't say what the outcome is.
    Unknown,
}

impl Outcome {
    fn is_contended_or_throttled(&self) -> bool {
        matches!(self, Self::Contended | Self::Throttled)
    }

    /// Returns the outcome for a code, which comes from an error, or from a
    /// reason why a transaction was cancelled.
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

    /// Returns the outcome of a failed TransactGetItems request.
    fn of_read(error: &SdkError<TransactGetItemsError>) -> Self {
        match error.as_service_error() {
            Some(TransactGetItemsError::TransactionCanceledException(cancelled)) => {
                Self::worst_of(cancelled.cancellation_reasons())
            }
            _ => error.code().map_or(Self::Unknown, Self::of_code),
        }
    }

    /// Returns the outcome of a failed transaction. The error has one reason
    /// for each write, and the subject's write is the first.
    ///
    /// The subject's reason decides. If another transaction is writing the
    /// subject, or if the write of the subject was throttled, a failed
    /// condition of another write decides nothing: the condition may have
    /// failed because of the transaction that is writing the subject. (This can
    /// even be an earlier attempt of the same transaction, which DynamoDB is
    /// committing item by item.)
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
        if others.iter().any(is_refused) {
            return Self::OtherConditionFailed;
        }
        Self::worst_of(others)
    }

    /// Returns the outcome for several reasons. If there is more than one, the
    /// reason with the highest rank is returned: a repeat is least likely to
    /// help against it.
    fn worst_of(reasons: &[CancellationReason]) -> Self {
        let rank = |outcome: &Self| match outcome {
            Self::Contended => 0,
            Self::Throttled => 1,
            _ => 2,
        };
        let reasons = reasons.iter().filter(|reason| !matches!(reason.code(), None | Some("None")));
        reasons.map(Self::of_reason).max_by_key(rank).unwrap_or(Self::Unknown)
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

    use super::{Outcome, from_item, is_refused, others_with};
    use crate::telemetry::chain;

    fn cancelled(codes: &[&str]) -> SdkError<TransactWriteItemsError> {
        let reasons = codes.iter().map(|&code| CancellationReason::builder().code(code).build()).collect();
        let cancelled = TransactionCanceledException::builder().set_cancellation_reasons(Some(reasons)).build();
        let response = Response::new(StatusCode::try_from(400).unwrap(), SdkBody::empty());
        SdkError::service_error(TransactWriteItemsError::TransactionCanceledException(cancelled), response)
    }

    #[test]
    fn the_reason_for_the_subject_decides_the_outcome_of_a_transaction() {
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
    fn a_failed_attempt_says_which_of_the_other_writes_failed_unless_the_subject_failed() {
        let contended = |reason: &CancellationReason| reason.code() == Some("TransactionConflict");
        for (codes, refused, conflicting) in [
            (&["None", "ConditionalCheckFailed", "None", "ConditionalCheckFailed"][..], vec![0, 2], vec![]),
            (&["None", "TransactionConflict", "ConditionalCheckFailed"], vec![1], vec![0]),
            (&["TransactionConflict", "TransactionConflict"], vec![], vec![]),
        ] {
            let error = cancelled(codes);
            assert_eq!(others_with(&error, is_refused), refused, "{codes:?}");
            assert_eq!(others_with(&error, contended), conflicting, "{codes:?}");
        }
    }

    #[test]
    fn the_error_for_an_unreadable_record_does_not_quote_the_record() {
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
