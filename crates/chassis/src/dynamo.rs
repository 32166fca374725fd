//! What DynamoDB's answers mean.
//!
//! A condition that failed, a conflict with another transaction, and a table
//! that doesn't answer are three different things; this module keeps them
//! apart, so that a repository can't mistake one for another.

use std::{collections::HashMap, str::FromStr, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    error::{BuildError, ProvideErrorMetadata, SdkError},
    operation::{
        put_item::builders::PutItemFluentBuilder, query::builders::QueryFluentBuilder,
        transact_get_items::TransactGetItemsError, transact_write_items::TransactWriteItemsError,
        update_item::builders::UpdateItemFluentBuilder,
    },
    types::{
        AttributeValue, CancellationReason, Get, ReturnValuesOnConditionCheckFailure, TransactGetItem,
        TransactWriteItem,
    },
};
use backon::{ExponentialBuilder, Retryable};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    config::Env,
    deadline::Deadline,
    page::{self, Cursor, InvalidCursor, Limit, ListError, Page},
    store::StoreError,
};

/// An item as the SDK has it.
pub type Item = HashMap<String, AttributeValue>;

/// How often a write that met somebody else's transaction is tried again.
const CONFLICT_RETRIES: usize = 6;

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

/// How a conditional write ended.
#[derive(Debug, PartialEq)]
#[must_use]
pub enum Write {
    /// Done.
    Done,
    /// The condition didn't hold; the item that stood in the way, if any.
    ///
    /// Not proof that *this* write didn't happen: the SDK may have repeated
    /// it after a lost reply. Whoever cares compares the item with what it
    /// wanted to write.
    Refused(Option<Item>),
}

/// How a transaction ended.
#[derive(Debug, PartialEq)]
#[must_use]
pub enum Transaction {
    /// All of it.
    Done,
    /// None of it. For each write, in order, whether its condition failed.
    Refused(Vec<Verdict>),
}

/// What a refused transaction says of one of its writes.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// This one was not the reason.
    Passed,
    /// Its condition failed; the item that stood in the way, if any (and if
    /// the write asked for it).
    ConditionFailed(Option<Item>),
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

    /// The SDK's client, for the calls that have no helper here.
    pub fn client(&self) -> &Client {
        &self.client
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

    /// Reads one item as no transaction has it in hand: waits for one that is
    /// writing it.
    ///
    /// A plain read, however consistent, waits for nobody: of two items of one
    /// transaction it may find the one as it will be, and the other as it was
    /// ([isolation levels](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html#transaction-isolation)).
    /// Whoever has seen an effect, and asks whether its cause is there, reads
    /// like this. Needs `dynamodb:GetItem`, and costs two plain reads.
    pub async fn get_settled<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, StoreError> {
        let get = Get::builder().table_name(&self.name).set_key(Some(key.attributes())).build()?;
        let request = self.client.transact_get_items().transact_items(TransactGetItem::builder().get(get).build());
        let send = || async { request.clone().send().await };
        match send.retry(conflict_backoff()).when(is_in_hand).await {
            Ok(output) => {
                output.responses.unwrap_or_default().into_iter().find_map(|r| r.item).map(from_item).transpose()
            }
            Err(error) if is_in_hand(&error) => Err(self.contended()),
            Err(error) => Err(self.unavailable(error)),
        }
    }

    /// The start of a put.
    pub fn put<T: Serialize>(&self, record: &T) -> Result<PutItemFluentBuilder, StoreError> {
        Ok(self.client.put_item().table_name(&self.name).set_item(Some(to_item(record)?)))
    }

    /// The start of an update.
    pub fn update(&self, key: &Key) -> UpdateItemFluentBuilder {
        self.client.update_item().table_name(&self.name).set_key(Some(key.attributes()))
    }

    /// Sends a conditional put.
    pub async fn send_put(&self, put: PutItemFluentBuilder) -> Result<Write, StoreError> {
        let put = put.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let send = || async { put.clone().send().await.map(|_| ()) };
        self.judge_write(send.retry(conflict_backoff()).when(is_conflict).await, |error| {
            error.is_conditional_check_failed_exception().then(|| match error {
                aws_sdk_dynamodb::operation::put_item::PutItemError::ConditionalCheckFailedException(refusal) => {
                    refusal.item.clone()
                }
                _ => None,
            })
        })
    }

    /// Sends a conditional update.
    pub async fn send_update(&self, update: UpdateItemFluentBuilder) -> Result<Write, StoreError> {
        let update = update.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let send = || async { update.clone().send().await.map(|_| ()) };
        self.judge_write(send.retry(conflict_backoff()).when(is_conflict).await, |error| {
            error.is_conditional_check_failed_exception().then(|| match error {
                aws_sdk_dynamodb::operation::update_item::UpdateItemError::ConditionalCheckFailedException(refusal) => {
                    refusal.item.clone()
                }
                _ => None,
            })
        })
    }

    /// Sends a conditional update that returns the item as it is now; `None`
    /// if the condition didn't hold.
    pub async fn update_returning<T: DeserializeOwned>(
        &self,
        update: UpdateItemFluentBuilder,
    ) -> Result<Option<T>, StoreError> {
        let send = || async { update.clone().send().await };
        match send.retry(conflict_backoff()).when(is_conflict).await {
            Ok(output) => output.attributes.map(from_item).transpose(),
            Err(error) if is_conflict(&error) => Err(self.contended()),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) => {
                Ok(None)
            }
            Err(error) => Err(self.unavailable(error)),
        }
    }

    fn judge_write<E>(
        &self,
        result: Result<(), SdkError<E>>,
        refusal: impl FnOnce(&E) -> Option<Option<Item>>,
    ) -> Result<Write, StoreError>
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        match result {
            Ok(()) => Ok(Write::Done),
            Err(error) if is_conflict(&error) => Err(self.contended()),
            Err(error) => match error.as_service_error().and_then(refusal) {
                Some(item) => Ok(Write::Refused(item)),
                None => Err(self.unavailable(error)),
            },
        }
    }

    /// Sends a transaction; repeats it while it only meets other transactions.
    ///
    /// The SDK gives each call a request token of its own, so that its own
    /// repeats after a lost reply change nothing more.
    pub async fn transact(&self, writes: Vec<TransactWriteItem>) -> Result<Transaction, StoreError> {
        let request = self.client.transact_write_items().set_transact_items(Some(writes));
        let send = || async { request.clone().send().await.map(|_| ()) };
        let result = send.retry(conflict_backoff()).when(is_undecided).await;
        match result {
            Ok(()) => Ok(Transaction::Done),
            Err(error) if is_undecided(&error) => Err(self.contended()),
            Err(error) => match verdicts(&error) {
                Some(verdicts) => Ok(Transaction::Refused(verdicts)),
                None => Err(self.unavailable(error)),
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

    /// Wraps what the SDK said.
    pub fn unavailable<E, R>(&self, error: SdkError<E, R>) -> StoreError
    where
        SdkError<E, R>: std::error::Error + Send + Sync + 'static,
    {
        StoreError::unavailable(&self.name, error)
    }

    fn contended(&self) -> StoreError {
        StoreError::unavailable(&self.name, "still in conflict with other transactions after several tries")
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
    error.code() == Some("TransactionConflictException")
}

/// Somebody else's transaction has this item.
fn met_another(reason: &CancellationReason) -> bool {
    reason.code() == Some("TransactionConflict")
}

/// A read that met a transaction.
fn is_in_hand(error: &SdkError<TransactGetItemsError>) -> bool {
    match error.as_service_error() {
        Some(TransactGetItemsError::TransactionCanceledException(cancelled)) => {
            cancelled.cancellation_reasons().iter().any(met_another)
        }
        _ => false,
    }
}

fn reasons(error: &SdkError<TransactWriteItemsError>) -> Option<&[CancellationReason]> {
    match error.as_service_error()? {
        TransactWriteItemsError::TransactionCanceledException(cancelled) => Some(cancelled.cancellation_reasons()),
        _ => None,
    }
}

/// Cancelled for conflicts, and decided by nothing else: worth the same try
/// again. A failed condition beside a conflict is a refusal, unless it is the
/// first write that has the conflict: that one is about what the transaction
/// is for, and while somebody writes it, others may already hold what comes of
/// it. (It may be this very transaction, sent before and committed item by item.)
fn is_undecided(error: &SdkError<TransactWriteItemsError>) -> bool {
    let Some(reasons) = reasons(error) else { return is_conflict(error) };
    let decides = |reason: &CancellationReason| reason.code() != Some("None") && !met_another(reason);
    match reasons {
        [first, ..] if met_another(first) => true,
        all => all.iter().any(met_another) && !all.iter().any(decides),
    }
}

fn verdicts(error: &SdkError<TransactWriteItemsError>) -> Option<Vec<Verdict>> {
    let reasons = reasons(error)?;
    // Cancelled for throttling, say, is no refusal: not of the first write, and so of none, since what the others say
    // is read in the light of it.
    if !matches!(reasons.first()?.code(), Some("None" | "ConditionalCheckFailed")) {
        return None;
    }
    let verdicts: Vec<_> = reasons
        .iter()
        .map(|reason| match reason.code() {
            Some("ConditionalCheckFailed") => Verdict::ConditionFailed(reason.item.clone()),
            _ => Verdict::Passed,
        })
        .collect();
    verdicts.iter().any(|verdict| *verdict != Verdict::Passed).then_some(verdicts)
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

    use super::{Verdict, from_item, is_undecided, verdicts};
    use crate::telemetry::chain;

    fn cancelled(codes: &[&str]) -> SdkError<TransactWriteItemsError> {
        let reasons = codes.iter().map(|&code| CancellationReason::builder().code(code).build()).collect();
        let cancelled = TransactionCanceledException::builder().set_cancellation_reasons(Some(reasons)).build();
        let response = Response::new(StatusCode::try_from(400).unwrap(), SdkBody::empty());
        SdkError::service_error(TransactWriteItemsError::TransactionCanceledException(cancelled), response)
    }

    #[test]
    fn a_transaction_that_met_another_is_decided_by_what_its_first_write_says() {
        const CONFLICT: &str = "TransactionConflict";
        const REFUSED: &str = "ConditionalCheckFailed";
        for codes in [&[CONFLICT, "None"][..], &["None", CONFLICT], &[CONFLICT, REFUSED], &[CONFLICT, "None", REFUSED]]
        {
            assert!(is_undecided(&cancelled(codes)), "{codes:?}");
        }
        for codes in [&[REFUSED, CONFLICT][..], &["None", REFUSED], &["None", CONFLICT, REFUSED]] {
            let error = cancelled(codes);
            assert!(!is_undecided(&error), "{codes:?}");
            let refused =
                verdicts(&error).unwrap().iter().map(|verdict| *verdict != Verdict::Passed).collect::<Vec<_>>();
            assert_eq!(refused, codes.iter().map(|code| *code == REFUSED).collect::<Vec<_>>());
        }
        for other in [CONFLICT, REFUSED] {
            let throttled = cancelled(&["ThrottlingError", other]);
            assert!(!is_undecided(&throttled) && verdicts(&throttled).is_none(), "{other}");
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
