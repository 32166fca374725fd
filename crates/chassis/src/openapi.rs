//! The parts of the OpenAPI document (version 3.1) that all services share:
//! values in JSON, pages, and problems.
//!
//! No problem is described by hand. Each type that can refuse a request returns
//! a sample of each of its problems. The document shows the status, the code, the
//! headers and the members of the samples.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    marker::PhantomData,
};

use http::{HeaderValue, StatusCode, header};
use serde_json::Value;
use utoipa::{
    IntoResponses, Modify, PartialSchema, ToSchema,
    openapi::{
        ArrayBuilder, ContentBuilder, KnownFormat, Object, ObjectBuilder, OpenApi, Ref, RefOr, Response,
        ResponseBuilder, Schema, SchemaFormat, Type,
        example::ExampleBuilder,
        extensions::Extensions,
        header::{Header, HeaderBuilder},
        schema::{AdditionalProperties, SchemaType},
    },
};

use crate::{
    contact::{Email, MAX_EMAIL, PHONE, Phone},
    id,
    money::{Amount, Currency, MAX_MINOR_UNITS},
    page::{Cursor, DEFAULT_LIMIT, Limit, MAX_LIMIT, Page},
    problem::{self, Document, Problem},
    text,
    trace::TraceContext,
};

/// The id of the request in the examples.
const SAMPLE_REQUEST: &str = "5c8f2b1e-7d43-4f0a-9b1c-2e6d8a90c3f7";

/// The UUID of all ids in examples.
pub const SAMPLE_ID: uuid::Uuid = uuid::Uuid::from_u128(0x0195a8e0_52c4_7d1a_b3f6_8c2d4e6f7a90);
/// The document's name for the ID token that proves a person's identity.
pub const ID_TOKEN: &str = "IdToken";

#[doc(hidden)]
pub use utoipa;

/// Implements the name and the schema of a type in the document.
#[macro_export]
macro_rules! schema {
    ($type:ty, $name:expr, $schema:expr) => {
        impl $crate::openapi::utoipa::PartialSchema for $type {
            fn schema() -> $crate::openapi::utoipa::openapi::RefOr<$crate::openapi::utoipa::openapi::Schema> {
                $crate::openapi::utoipa::openapi::Schema::from($schema).into()
            }
        }

        impl $crate::openapi::utoipa::ToSchema for $type {
            fn name() -> ::std::borrow::Cow<'static, str> {
                $name.into()
            }
        }
    };
}

/// The schema of an id type.
#[doc(hidden)]
#[macro_export]
macro_rules! id_schema {
    ($name:ident, $prefix:literal) => {
        $crate::schema!($name, stringify!($name), $crate::openapi::id($prefix));
    };
}

/// Returns the schema of a text that matches `pattern`.
pub fn text(pattern: impl Into<String>, example: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).examples([example])
}

/// Returns the schema of an id: `prefix`, and a UUID.
pub fn id(prefix: &str) -> ObjectBuilder {
    text(id::pattern(prefix), &format!("{prefix}_{SAMPLE_ID}"))
}

/// Returns the schema of the texts that [`text::line`] accepts.
pub fn line(max: usize, example: &str, about: &str) -> ObjectBuilder {
    let about = format!("{about} {}", text::BEYOND_THE_PATTERN);
    text(text::LINE, example).min_length(Some(1)).max_length(Some(max)).description(Some(about))
}

/// Returns the schema of the texts that [`text::paragraph`] accepts.
pub fn paragraph(max: usize, example: &str, about: &str) -> ObjectBuilder {
    let about = format!("{about} {}", text::BEYOND_THE_PATTERN);
    text(text::PARAGRAPH, example).min_length(Some(1)).max_length(Some(max)).description(Some(about))
}

/// Returns the schema of a whole number from `least` to `most`.
pub fn whole(least: i64, most: i64) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(least)).maximum(Some(most))
}

/// Returns the schema of an amount of money from `least` to `most` minor units,
/// in a currency with two decimals. An amount in a currency with fewer decimals
/// fits the schema, too.
///
/// Only the description says that two decimals are the maximum. `multipleOf:
/// 0.01` would be correct, but validators divide floating-point numbers, and so
/// would refuse 19.99.
pub fn amount(least: u64, most: u64) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Number)
        .minimum(Some(least as f64 / 100.0))
        .maximum(Some(most))
        .examples([19.99])
}

/// Returns the schema of a text that is one of `words`.
pub fn one_of(words: impl IntoIterator<Item = impl Into<String>>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words.into_iter().map(Into::into)))
}

schema!(
    Amount,
    "Amount",
    amount(0, MAX_MINOR_UNITS)
        .description(Some("Money, exact, with as many decimals as the currency has. Written without an exponent."))
);

schema!(
    Currency,
    "Currency",
    one_of(Currency::all().map(Currency::code))
        .description(Some("ISO 4217. Those that people pay with and that have at most two decimals."))
);

schema!(
    Email,
    "Email",
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Email)))
        .max_length(Some(MAX_EMAIL))
        .description(Some("An e-mail address; capitals count as small letters."))
        .examples(["ada@example.com"])
);

schema!(
    Phone,
    "Phone",
    text(PHONE, "+15555550100").description(Some("A phone number in international form (ITU-T E.164)."))
);

schema!(
    TraceContext,
    "TraceContext",
    text("^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .description(Some("The trace of the request that led to the event (W3C Trace Context)."))
);

schema!(Limit, "Limit", whole(1, MAX_LIMIT.into()).default(Some(DEFAULT_LIMIT.into())));

/// The value of a `Location` header.
#[derive(Clone, Copy, Debug)]
pub struct Location;

schema!(
    Location,
    "Location",
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::Custom("uri-reference".into())))
        .description(Some("The address of the resource, relative to the request's own address."))
);

schema!(
    Cursor,
    "Cursor",
    text("^[A-Za-z0-9_-]+$", "eyJ2IjoxLCJsaXN0IjoiYS1saXN0IiwiYWZ0ZXIiOiJhbi1lbnRyeSJ9").description(Some(
        "An opaque text. It is valid for the list that returned it, with the same caller and filters."
    ))
);

impl<T: ToSchema> PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        let items = ArrayBuilder::new().items(Ref::from_schema_name(T::name())).max_items(Some(MAX_LIMIT as usize));
        ObjectBuilder::new()
            .property("items", items)
            .required("items")
            .property("next_cursor", described("Cursor", "The cursor of the next page. The last page has none."))
            .into()
    }
}

impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Page", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.extend([(T::name().into(), T::schema()), (Cursor::name().into(), Cursor::schema())]);
        T::schemas(schemas);
    }
}

/// Marks all objects in request bodies as closed, so that they allow no unknown
/// members: [`input`](crate::input) refuses unknown members.
#[derive(Clone, Copy, Debug)]
pub struct OnlyKnownMembers;

impl Modify for OnlyKnownMembers {
    fn modify(&self, api: &mut OpenApi) {
        let mut requested = BTreeSet::new();
        for path in api.paths.paths.values() {
            let operations = [&path.post, &path.put, &path.patch, &path.delete].into_iter().flatten();
            for body in operations.filter_map(|operation| operation.request_body.as_ref()) {
                find_names(&serde_json::to_value(body).unwrap_or_default(), &mut requested);
            }
        }
        let schemas = &mut api.components.get_or_insert_default().schemas;
        let mut closed = BTreeSet::new();
        while let Some(name) = requested.pop_first() {
            let Some(RefOr::T(schema)) = schemas.get_mut(&name) else { continue };
            if !closed.insert(name) {
                continue;
            }
            find_names(&serde_json::to_value(&*schema).unwrap_or_default(), &mut requested);
            if let Schema::Object(object) = schema
                && !object.properties.is_empty()
            {
                object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
            }
        }
    }
}

/// Collects the names of the schemas to which a part of the document refers.
fn find_names(part: &Value, found: &mut BTreeSet<String>) {
    match part {
        Value::Object(members) => {
            let reference = members.get("$ref").and_then(Value::as_str);
            found.extend(reference.and_then(|to| to.strip_prefix("#/components/schemas/")).map(str::to_owned));
            members.values().for_each(|part| find_names(part, found));
        }
        Value::Array(parts) => parts.iter().for_each(|part| find_names(part, found)),
        _ => {}
    }
}

/// Returns a reference to a schema, with a description for this use.
fn described(name: &str, description: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::builder().ref_location_from_schema_name(name).description(Some(description)).build())
}

/// A type that may refuse a request: a handler's argument, or the operation
/// itself.
pub trait Problems {
    /// Returns a sample of each problem.
    fn problems() -> Vec<Problem>;
}

/// Declares types for the problems of an operation itself, which none of its
/// arguments causes.
#[macro_export]
macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident: [$($problem:expr),+ $(,)?];)+) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl $crate::openapi::Problems for $name {
            fn problems() -> Vec<$crate::problem::Problem> {
                vec![$($problem.into()),+]
            }
        }
    )+};
}

macro_rules! all_of {
    ($($part:ident),+) => {
        impl<$($part: Problems),+> Problems for ($($part,)+) {
            fn problems() -> Vec<Problem> {
                [$($part::problems()),+].into_iter().flatten().collect()
            }
        }
    };
}

all_of!(A);
all_of!(A, B);
all_of!(A, B, C);
all_of!(A, B, C, D);
all_of!(A, B, C, D, E);

/// The problems that the HTTP edge and the gateway may answer to any request.
struct AnyRequest;

impl Problems for AnyRequest {
    fn problems() -> Vec<Problem> {
        let too_many = "Too many requests at once. Try again in a moment.";
        let no_answer = "No answer; whether the request took effect is not known.";
        vec![
            Problem::internal("a sample"),
            Problem::unavailable("a sample"),
            Problem::throttled("a sample"),
            // The gateway answers with the following two problems.
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", too_many)
                .with_header(header::RETRY_AFTER, HeaderValue::from_static("1")),
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", no_answer),
        ]
    }
}

/// The responses of an operation that is refused: the problems of any request,
/// and the problems of `T`.
#[derive(Clone, Copy, Debug)]
pub struct ProblemResponses<T>(PhantomData<T>);

impl<T: Problems> IntoResponses for ProblemResponses<T> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut by_status = BTreeMap::<StatusCode, Vec<Problem>>::new();
        for problem in T::problems().into_iter().chain(AnyRequest::problems()) {
            by_status.entry(problem.status()).or_default().push(problem);
        }
        by_status.into_iter().map(|(status, problems)| (status.as_str().to_owned(), response(&problems))).collect()
    }
}

/// Returns the response for these problems, which have one status.
fn response(problems: &[Problem]) -> RefOr<Response> {
    let mut codes = BTreeSet::new();
    let samples: Vec<_> = problems.iter().filter(|problem| codes.insert(problem.code())).collect();
    let status = samples.iter().map(|problem| problem.status().as_u16()).take(1);
    // Each refusal has the schema `Problem`, so that a client can handle all refusals
    // in one place. The members beside the reference (JSON Schema 2020-12, section
    // 8.2.3.1) restrict the codes. If they were combined with `allOf`, generators of
    // clients would make a class for each response.
    let problem = Ref::from_schema_name(Document::name()).ref_location;
    let mut own = ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .extensions(Some(Extensions::from_iter([("$ref", problem)])))
        .property("status", ObjectBuilder::new().schema_type(Type::Integer).enum_values(Some(status)))
        .property("code", one_of(samples.iter().map(|problem| problem.code())));
    for (name, value) in samples.iter().flat_map(|problem| problem.members()) {
        own = own.property(name, schema_of_sample(value));
    }
    // A problem that has only a code and a detail needs no example.
    let telling = samples.iter().filter(|problem| problem.has_errors() || !problem.members().is_empty());
    let examples =
        telling.map(|problem| (problem.code(), ExampleBuilder::new().value(Some(rendered(problem))).build()));
    let content = ContentBuilder::new().schema(Some(own)).examples_from_iter(examples).build();
    let words = |problem: &Problem| match problem.code() == "invalid_request" {
        true => "Not valid: each bad field has an entry in `errors`.".to_owned(),
        false => problem.detail().to_owned(),
    };
    let description = match samples.as_slice() {
        [problem] => words(problem),
        many => many.iter().map(|problem| format!("- `{}`: {}\n", problem.code(), words(problem))).collect(),
    };
    let response = ResponseBuilder::new().description(description).content(problem::CONTENT_TYPE, content);
    headers(problems).fold(response, |response, (name, header)| response.header(name, header)).build().into()
}

fn rendered(problem: &Problem) -> Value {
    serde_json::from_str(&problem.render(SAMPLE_REQUEST)).unwrap_or_default()
}

/// Returns the headers of these problems. A header is required if all problems
/// have it.
fn headers(problems: &[Problem]) -> impl Iterator<Item = (String, Header)> {
    let samples = problems.iter().flat_map(Problem::headers).map(|(name, value)| (name.as_str(), value));
    let samples: BTreeMap<_, _> = samples.collect();
    samples.into_iter().map(|(name, value)| {
        let everywhere = problems.iter().all(|problem| problem.headers().iter().any(|(other, _)| other == name));
        // On AWS, the gateway renames this header in a function's response, so the
        // header is not required.
        let renamed = name == header::WWW_AUTHENTICATE;
        let schema = match value.to_str().unwrap_or_default() {
            seconds if name == header::RETRY_AFTER => {
                let schema = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
                schema.description(Some("Seconds to wait before the next try.")).examples(seconds.parse::<u32>().ok())
            }
            text => one_of([text.to_owned()]),
        };
        let mut header = HeaderBuilder::new().schema(Some(schema)).build();
        // utoipa has no method for this member.
        header.extensions = (everywhere && !renamed).then(|| Extensions::from_iter([("required", true)]));
        (name.to_owned(), header)
    })
}

/// Returns the schema of values that have the shape of `value`.
fn schema_of_sample(value: &Value) -> Schema {
    let schema = |kind| ObjectBuilder::new().schema_type(kind);
    match value {
        Value::Array(items) => {
            ArrayBuilder::new().items(RefOr::T(schema_of_sample(items.first().unwrap_or(&Value::Null)))).into()
        }
        Value::Object(members) => members
            .iter()
            .fold(ObjectBuilder::new(), |object, (name, value)| {
                object.property(name, schema_of_sample(value)).required(name)
            })
            .into(),
        Value::Number(number) if number.is_f64() => schema(Type::Number).into(),
        Value::Number(_) => schema(Type::Integer).into(),
        Value::Bool(_) => schema(Type::Boolean).into(),
        Value::String(_) => schema(Type::String).into(),
        Value::Null => Object::default().into(),
    }
}
