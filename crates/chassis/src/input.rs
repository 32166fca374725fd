//! Reads a request: its path, its query and its body.
//!
//! One response names all errors of a request: members and parameters are read
//! one by one, by name, and [`Fields`] collects the errors.
//! `docs/adr/0008-requests-are-read-member-by-member.md` says why this code
//! uses no library.

use std::{convert::Infallible, fmt, ops::RangeInclusive, str::FromStr};

use axum::{
    body::HttpBody,
    extract::{FromRequest, FromRequestParts, Path, Request},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use rust_decimal::Decimal;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use utoipa::IntoParams;

use crate::{
    fields::Fields,
    http::{MAX_BODY, no_such_route},
    openapi::Problems,
    page::{self, Cursor, InvalidCursor, Limit},
    problem::Problem,
};

/// What happens to members and parameters of a request that the handler does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unknown {
    /// Unknown members are refused, so that no client relies on a member that
    /// has no effect.
    Refused,
    /// Unknown members are ignored: the caller is another service, which may
    /// already have a newer version.
    Ignored,
}

/// A client's request. A handler with this argument gets only valid requests.
/// `T` is a [`RequestPart`], or a tuple of parts. Members and parameters that no part
/// reads are refused.
#[derive(Clone, Copy, Debug)]
pub struct Input<T>(pub T);

/// A request of another service of the system. Members and parameters that no
/// part reads are ignored: the caller may have a later version.
#[derive(Clone, Copy, Debug)]
pub struct Message<T>(pub T);

impl<S: Send + Sync, T: RequestPart> FromRequest<S> for Input<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read_request(request, Unknown::Refused).await.map(Self)
    }
}

impl<S: Send + Sync, T: RequestPart> FromRequest<S> for Message<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read_request(request, Unknown::Ignored).await.map(Self)
    }
}

async fn read_request<T: RequestPart>(request: Request, unknown: Unknown) -> Result<T, Problem> {
    let (head, body) = request.into_parts();
    let mut body_text = None;
    if T::HAS_BODY && !(T::BODY_IS_OPTIONAL && body.is_end_stream()) {
        if !is_plain(&head.headers) {
            return Err(unsupported_content_encoding());
        }
        if !is_json(head.headers.get(header::CONTENT_TYPE)) {
            return Err(unsupported_media_type());
        }
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| unreadable(error.as_ref()))?;
        body_text = Some(body.to_bytes());
    }
    let query = serde_urlencoded::from_str(head.uri.query().unwrap_or_default()).map_err(Problem::internal)?;
    let mut reader =
        RequestReader { head, query, body: body_text, unknown, asked: Vec::new(), fields: Fields::default() };
    let read = T::read(&mut reader).await?;
    reader.reject_unknown_parameters();
    reader.fields.finish(read).map_err(Problem::invalid)
}

impl<T: Problems> Problems for Input<T> {
    fn problems() -> Vec<Problem> {
        T::problems().into_iter().chain([Problem::invalid_field("no_such_parameter", UNKNOWN_PARAMETER)]).collect()
    }
}

const UNKNOWN_PARAMETER: &str = "is no parameter of this route";
const UNKNOWN_MEMBER: &str = "is no member of this object";
const TWICE: &str = "must be given once";
const MISSING: &str = "must be given";

/// A request whose parts are being read.
#[derive(Debug)]
pub struct RequestReader {
    head: Parts,
    query: Vec<(String, String)>,
    body: Option<Bytes>,
    unknown: Unknown,
    /// The parameters that a part has read.
    asked: Vec<&'static str>,
    fields: Fields,
}

impl RequestReader {
    /// Returns the request without its body.
    pub fn head(&self) -> &Parts {
        &self.head
    }

    /// Returns the collection to which a part adds its errors.
    pub fn fields(&mut self) -> &mut Fields {
        &mut self.fields
    }

    fn reject_unknown_parameters(&mut self) {
        if self.unknown == Unknown::Ignored {
            return;
        }
        for name in unknown_names(self.query.iter().map(|(name, _)| name.as_str()), &self.asked) {
            match name {
                "" => self.fields.reject("query", "has a parameter without a name"),
                name => self.fields.reject(name, UNKNOWN_PARAMETER),
            }
        }
    }
}

/// Returns the names that are not `known`, each name once.
fn unknown_names<'n>(names: impl Iterator<Item = &'n str>, known: &[&'static str]) -> Vec<&'n str> {
    let mut unknown: Vec<&str> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    unknown.extend(names.filter(|name| !known.contains(name) && seen.insert(*name)));
    unknown
}

/// A part of a request that a handler reads.
pub trait RequestPart: Sized + Send {
    /// Whether the part is read from the request's body.
    const HAS_BODY: bool = false;
    /// Whether a request without a body is valid, too.
    const BODY_IS_OPTIONAL: bool = false;

    /// Reads the part. Returns `None` if errors were added to [`RequestReader::fields`].
    /// Returns a problem if the request is refused at once, without the errors of
    /// other parts.
    fn read(reader: &mut RequestReader) -> impl Future<Output = Result<Option<Self>, Problem>> + Send;
}

macro_rules! parts {
    ($($part:ident $value:ident),+) => {
        impl<$($part: RequestPart),+> RequestPart for ($($part,)+) {
            const HAS_BODY: bool = $($part::HAS_BODY)||+;
            const BODY_IS_OPTIONAL: bool = $($part::BODY_IS_OPTIONAL)||+;

            async fn read(reader: &mut RequestReader) -> Result<Option<Self>, Problem> {
                $(let $value = $part::read(reader).await?;)+
                Ok((|| Some(($($value?,)+)))())
            }
        }
    };
}

parts!(A a, B b);
parts!(A a, B b, C c);

/// A request without a parameter in its path, without a query and without a body.
impl RequestPart for () {
    async fn read(_: &mut RequestReader) -> Result<Option<Self>, Problem> {
        Ok(Some(()))
    }
}

impl Problems for () {
    fn problems() -> Vec<Problem> {
        Vec::new()
    }
}

/// The parameter `{id}` of the route.
#[derive(Clone, Copy, Debug)]
pub struct Id<T>(pub T);

impl<T: FromStr<Err: fmt::Display> + Send> RequestPart for Id<T> {
    async fn read(reader: &mut RequestReader) -> Result<Option<Self>, Problem> {
        let id = Path::<String>::from_request_parts(&mut reader.head, &()).await;
        let id = id.map_err(|_| "must be readable text".to_owned());
        let id = id.and_then(|Path(text)| text.parse().map_err(|error: T::Err| error.to_string()));
        Ok(reader.fields.check("id", id).map(Self))
    }
}

impl<T: FromStr<Err: fmt::Display>> Problems for Id<T> {
    fn problems() -> Vec<Problem> {
        let unparsed = "1".parse::<T>().err().map(|error| Problem::invalid_field("id", error));
        // If the path contains characters that no path can have, no route matches it.
        unparsed.into_iter().chain([no_such_route()]).collect()
    }
}

/// The parameters of the query.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

/// A type that is read from a query.
pub trait ReadQuery: Sized {
    /// Reads the parameters. Returns `None` if a parameter is missing or invalid,
    /// but only after it has read all parameters: a parameter that is not read
    /// counts as unknown.
    fn read(parameters: &mut Parameters<'_>) -> Option<Self>;
}

/// The parameters of a list: which page is wanted.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// The maximum number of entries on the page.
    #[param(inline, required = false)]
    pub limit: Limit,
    /// The `next_cursor` of the previous page.
    #[param(value_type = Cursor, required = false)]
    pub cursor: Option<Cursor>,
}

impl ReadQuery for Paging {
    fn read(parameters: &mut Parameters<'_>) -> Option<Self> {
        Some(Self { limit: parameters.optional("limit").unwrap_or_default(), cursor: parameters.cursor() })
    }
}

impl<T: ReadQuery + Send> RequestPart for Query<T> {
    async fn read(reader: &mut RequestReader) -> Result<Option<Self>, Problem> {
        let RequestReader { query, asked, fields, .. } = reader;
        Ok(T::read(&mut Parameters { query, asked, fields }).map(Self))
    }
}

impl<T> Problems for Query<T> {
    fn problems() -> Vec<Problem> {
        Vec::new()
    }
}

/// The parameters of a query, which are read by name.
#[derive(Debug)]
pub struct Parameters<'a> {
    query: &'a [(String, String)],
    asked: &'a mut Vec<&'static str>,
    fields: &'a mut Fields,
}

impl Parameters<'_> {
    /// Reads a parameter that may be missing.
    pub fn optional<T: FromStr<Err: fmt::Display>>(&mut self, name: &'static str) -> Option<T> {
        self.asked.push(name);
        let mut values = self.query.iter().filter(|(other, _)| other == name);
        let (_, text) = values.next()?;
        let value = if values.next().is_some() {
            Err(TWICE.to_owned())
        } else {
            text.parse().map_err(|error: T::Err| error.to_string())
        };
        self.fields.check(name, value)
    }

    /// Reads a parameter that must be given.
    pub fn required<T: FromStr<Err: fmt::Display>>(&mut self, name: &'static str) -> Option<T> {
        if !self.query.iter().any(|(other, _)| other == name) {
            self.asked.push(name);
            self.fields.reject(name, MISSING);
            return None;
        }
        self.optional(name)
    }

    /// Reads the parameter `cursor` of a list. A later check refuses an invalid
    /// cursor with the code `invalid_cursor`. If the request has other errors,
    /// the request is refused before that check; so an unreadable cursor is then
    /// added to these errors.
    pub fn cursor(&mut self) -> Option<page::Cursor> {
        let cursor: page::Cursor = self.optional("cursor")?;
        if !cursor.is_readable() {
            self.fields.append_if_rejected("cursor", InvalidCursor);
        }
        Some(cursor)
    }
}

/// A parameter whose value is true or false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag(pub bool);

impl FromStr for Flag {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| "must be true or false")
    }
}

/// The body, which is a JSON object.
#[derive(Clone, Copy, Debug)]
pub struct Body<T>(pub T);

/// A type that is read from a body.
pub trait ReadBody: Sized {
    /// The context for validating the body: for example the caller, or `()`.
    type Context: FromRequestParts<(), Rejection: Into<Problem>> + Send + Sync;

    /// Reads the members. Returns `None` if a member is missing or invalid, but
    /// only after it has read all members: a member that is not read counts as
    /// unknown.
    fn read(body: &mut Object<'_, '_>, context: &Self::Context) -> Option<Self>;
}

impl<T: ReadBody + Send> RequestPart for Body<T> {
    const HAS_BODY: bool = true;

    async fn read(reader: &mut RequestReader) -> Result<Option<Self>, Problem> {
        let context = T::Context::from_request_parts(&mut reader.head, &()).await.map_err(Into::into)?;
        let body = reader.body.take().unwrap_or_default();
        let read = read_body(&body, reader.unknown, &mut reader.fields, |body| T::read(body, &context))?;
        Ok(read.map(Self))
    }
}

/// A body that may be missing.
#[derive(Clone, Copy, Debug)]
pub struct OptionalBody<T>(pub Option<T>);

impl<T: ReadBody + Send> RequestPart for OptionalBody<T> {
    const HAS_BODY: bool = true;
    const BODY_IS_OPTIONAL: bool = true;

    async fn read(reader: &mut RequestReader) -> Result<Option<Self>, Problem> {
        if reader.body.is_none() {
            return Ok(Some(Self(None)));
        }
        Ok(Body::read(reader).await?.map(|Body(body)| Self(Some(body))))
    }
}

impl<T> Problems for OptionalBody<T> {
    fn problems() -> Vec<Problem> {
        Body::<T>::problems()
    }
}

impl From<Infallible> for Problem {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl<T> Problems for Body<T> {
    fn problems() -> Vec<Problem> {
        let refused = ["[]", "{"].into_iter().filter_map(|body| {
            let mut fields = Fields::default();
            let read = read_body(body.as_bytes(), Unknown::Refused, &mut fields, |_| Some(()));
            read.and_then(|read| fields.finish(read).map_err(Problem::invalid)).err()
        });
        let unread = [unsupported_media_type(), unsupported_content_encoding(), payload_too_large(), unreadable_body()];
        refused.chain(unread).collect()
    }
}

/// Reads a body as [`Input`] does, for tests.
///
/// # Errors
///
/// If the body is not valid, returns the problem with which the route answers.
pub fn parse<T: ReadBody>(body: &[u8], context: &T::Context) -> Result<T, Problem> {
    let mut fields = Fields::default();
    let read = read_body(body, Unknown::Refused, &mut fields, |body| T::read(body, context))?;
    fields.finish(read).map_err(Problem::invalid)
}

fn read_body<T>(
    body: &[u8],
    unknown: Unknown,
    fields: &mut Fields,
    read: impl FnOnce(&mut Object<'_, '_>) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let body = std::str::from_utf8(body).map_err(|error| malformed(&error))?;
    let value: &RawValue = serde_json::from_str(body).map_err(|error| malformed(&error))?;
    let place = Place { path: String::new(), value, unknown, fields };
    if !place.value.get().starts_with('{') {
        return Ok(place.reject("must be an object"));
    }
    let Members(members) = serde_json::from_str(value.get()).map_err(|error| malformed(&error))?;
    Ok(place.members(members, read))
}

/// A value of the body, and its path.
#[derive(Debug)]
pub struct Place<'f, 'b> {
    path: String,
    value: &'b RawValue,
    unknown: Unknown,
    fields: &'f mut Fields,
}

impl<'b> Place<'_, 'b> {
    /// Adds an error for this value.
    pub fn reject<T>(self, detail: impl ToString) -> Option<T> {
        let field = if self.path.is_empty() { "body" } else { &self.path };
        self.fields.reject(field, detail);
        None
    }

    fn members<T>(
        self,
        members: Vec<(String, &'b RawValue)>,
        read: impl FnOnce(&mut Object<'_, 'b>) -> Option<T>,
    ) -> Option<T> {
        let Self { path, unknown, fields, .. } = self;
        let mut object = Object { path, members, asked: Vec::new(), unknown, fields };
        let value = read(&mut object);
        object.reject_unknown_members();
        value
    }
}

/// An object, whose members are read by name.
#[derive(Debug)]
pub struct Object<'f, 'b> {
    path: String,
    members: Vec<(String, &'b RawValue)>,
    asked: Vec<&'static str>,
    unknown: Unknown,
    fields: &'f mut Fields,
}

impl<'b> Object<'_, 'b> {
    /// Reads a member that must be given.
    pub fn required<T>(&mut self, name: &'static str, read: impl FnOnce(Place<'_, 'b>) -> Option<T>) -> Option<T> {
        match self.take(name)? {
            Some(value) => read(self.place(name, value)),
            None => {
                self.reject(name, MISSING);
                None
            }
        }
    }

    /// Reads a member that may be missing or null.
    pub fn optional<T>(&mut self, name: &'static str, read: impl FnOnce(Place<'_, 'b>) -> Option<T>) -> Option<T> {
        let value = self.take(name)?.filter(|value| value.get() != "null")?;
        read(self.place(name, value))
    }

    /// Reads a member that is `default` if it is missing or null.
    pub fn optional_or<T>(
        &mut self,
        name: &'static str,
        default: T,
        read: impl FnOnce(Place<'_, 'b>) -> Option<T>,
    ) -> Option<T> {
        match self.take(name)?.filter(|value| value.get() != "null") {
            Some(value) => read(self.place(name, value)),
            None => Some(default),
        }
    }

    /// Returns whether a member is given and not null, whether or not it is
    /// valid.
    pub fn is_given(&self, name: &str) -> bool {
        self.members.iter().any(|(other, value)| other == name && value.get() != "null")
    }

    /// Adds an error for a member.
    pub fn reject(&mut self, name: &str, detail: impl ToString) {
        let path = self.path_of(name);
        self.fields.reject(&path, detail);
    }

    /// Returns the parsed value of a member, or adds the error and returns
    /// `None`.
    pub fn check<T, E: fmt::Display>(&mut self, name: &str, parsed: Result<T, E>) -> Option<T> {
        let path = self.path_of(name);
        self.fields.check(&path, parsed)
    }

    /// Returns the member's value, or `Some(None)` if the member is missing. Adds
    /// an error and returns `None` if the member is given twice.
    fn take(&mut self, name: &'static str) -> Option<Option<&'b RawValue>> {
        self.asked.push(name);
        let mut values = self.members.iter().filter(|(other, _)| other == name).map(|(_, value)| *value);
        let value = values.next();
        if values.next().is_some() {
            self.reject(name, TWICE);
            return None;
        }
        Some(value)
    }

    fn place(&mut self, name: &str, value: &'b RawValue) -> Place<'_, 'b> {
        Place { path: self.path_of(name), value, unknown: self.unknown, fields: self.fields }
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn reject_unknown_members(&mut self) {
        if self.unknown == Unknown::Ignored {
            return;
        }
        for name in unknown_names(self.members.iter().map(|(name, _)| name.as_str()), &self.asked) {
            if name.is_empty() {
                let path = if self.path.is_empty() { "body" } else { &self.path };
                self.fields.reject(path, "has a member without a name");
            } else {
                let path = self.path_of(name);
                self.fields.reject(&path, UNKNOWN_MEMBER);
            }
        }
    }
}

/// The members of an object in the order of the text, including repeated
/// members.
struct Members<'b>(Vec<(String, &'b RawValue)>);

impl<'b> Deserialize<'b> for Members<'b> {
    fn deserialize<D: Deserializer<'b>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'b> Visitor<'b> for Collect {
            type Value = Members<'b>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'b>>(self, mut object: A) -> Result<Members<'b>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = object.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

/// Reads an object.
pub fn object<'b, T>(place: Place<'_, 'b>, read: impl FnOnce(&mut Object<'_, 'b>) -> Option<T>) -> Option<T> {
    if !place.value.get().starts_with('{') {
        return place.reject("must be an object");
    }
    match serde_json::from_str(place.value.get()) {
        Ok(Members(members)) => place.members(members, read),
        Err(_) => place.reject("has a member whose name is no text"),
    }
}

/// Reads a list whose number of entries is in `length`. An entry that is not
/// valid is `None`, so that the other entries are validated, too.
pub fn list<'b, T>(
    place: Place<'_, 'b>,
    length: RangeInclusive<usize>,
    mut read: impl FnMut(Place<'_, 'b>) -> Option<T>,
) -> Option<Vec<Option<T>>> {
    let Ok(entries) = serde_json::from_str::<Vec<&RawValue>>(place.value.get()) else {
        return place.reject("must be a list");
    };
    // The entries of a list that is too long are not read: they could have
    // thousands of errors.
    if !length.contains(&entries.len()) {
        return place.reject(format_args!("must have from {} to {} entries", length.start(), length.end()));
    }
    let Place { path, unknown, fields, .. } = place;
    let entries = entries.into_iter().enumerate();
    Some(entries.map(|(n, value)| read(Place { path: format!("{path}[{n}]"), value, unknown, fields })).collect())
}

/// Reads a text and parses it.
pub fn text<T: FromStr<Err: fmt::Display>>(place: Place<'_, '_>) -> Option<T> {
    if !place.value.get().starts_with('"') {
        return place.reject("must be a text");
    }
    match serde_json::from_str::<String>(place.value.get()).map(|text| text.parse()) {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => place.reject(error),
        Err(_) => place.reject("must be a text of Unicode characters"),
    }
}

/// Parses a value from its characters in the body. So a number is not converted to
/// a floating-point number first.
pub fn verbatim<T: FromStr<Err: fmt::Display>>(place: Place<'_, '_>) -> Option<T> {
    match place.value.get().parse() {
        Ok(value) => Some(value),
        Err(error) => place.reject(error),
    }
}

/// Reads a whole number in any spelling. `3.0` is accepted, too: it is a whole
/// number in JSON Schema and in languages that have only one type of number.
pub fn whole<T: TryFrom<i64, Error: fmt::Display>>(place: Place<'_, '_>) -> Option<T> {
    let Some(number) = whole_number(place.value.get()) else { return place.reject("must be a whole number") };
    match T::try_from(number) {
        Ok(value) => Some(value),
        Err(error) => place.reject(error),
    }
}

/// Returns the number, or the nearest number that an `i64` can hold, because no
/// valid number is so large. Returns `None` if the text is not a whole number.
fn whole_number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.starts_with(|c: char| c.is_ascii_digit()) && digits.bytes().all(|b| b.is_ascii_digit()) {
        let nearest = if text == digits { i64::MAX } else { i64::MIN };
        return Some(text.parse().unwrap_or(nearest));
    }
    // If the text is not a number, parsing fails.
    let number = if text.contains(['e', 'E']) { Decimal::from_scientific(text) } else { Decimal::from_str_exact(text) };
    let number = number.ok()?.normalize();
    let whole = (number.scale() == 0).then(|| number.mantissa())?;
    Some(i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX }))
}

/// Reads true or false.
pub fn flag(place: Place<'_, '_>) -> Option<bool> {
    verbatim(place).map(|Flag(flag)| flag)
}

fn malformed(error: &dyn fmt::Display) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed_json", format!("The body is not a JSON document: {error}."))
}

fn unreadable(error: &(dyn std::error::Error + 'static)) -> Problem {
    if error.is::<LengthLimitError>() { payload_too_large() } else { unreadable_body() }
}

fn unsupported_media_type() -> Problem {
    let detail = "Send the body as `Content-Type: application/json`.";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
}

/// 415 with a header that names the accepted encoding (RFC 9110, section
/// 15.5.16; RFC 7694).
fn unsupported_content_encoding() -> Problem {
    let detail = "Send the body as it is, without a `Content-Encoding`.";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_encoding", detail)
        .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))
}

fn payload_too_large() -> Problem {
    let detail = format!("The body must be at most {MAX_BODY} bytes.");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
}

fn unreadable_body() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "unreadable_body", "The body could not be read.")
}

/// Returns whether the body has no content encoding. `identity` means no
/// encoding.
fn is_plain(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(header::CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("unreadable"));
    let mut codings = codings.flat_map(|value| value.split(',')).map(str::trim);
    codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case("identity"))
}

fn is_json(content_type: Option<&HeaderValue>) -> bool {
    let media_type = content_type.and_then(|value| value.to_str().ok()).and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use super::{ReadBody, list, object, parse, text, verbatim, whole, whole_number};
    use crate::{
        input::Object,
        money::{Amount, Currency},
    };

    #[derive(Debug)]
    struct Invoice {
        lines: Vec<(u32, String)>,
        total: Amount,
    }

    impl ReadBody for Invoice {
        type Context = ();

        fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
            let line = |line: &mut Object<'_, '_>| {
                let (count, what) = (line.required("count", whole), line.required("what", text));
                Some((count?, what?))
            };
            let lines = body.required("lines", |place| list(place, 1..=3, |place| object(place, line)));
            let total = body.required("total", verbatim);
            body.optional::<Currency>("currency", text);
            Some(Self { lines: lines?.into_iter().collect::<Option<_>>()?, total: total? })
        }
    }

    fn invoice(json: &str) -> Result<Invoice, Vec<String>> {
        parse(json.as_bytes(), &()).map_err(|problem| {
            let problem: serde_json::Value = serde_json::from_str(&problem.render("r-1")).unwrap();
            let errors = problem["errors"].as_array().cloned().unwrap_or_default();
            errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
        })
    }

    #[test]
    fn an_answer_names_every_error_with_its_path() {
        let json =
            r#"{"lines":[{"count":1,"what":2},{"count":"x","more":1},7],"total":"5","currency":"XAU","a":1,"a":2}"#;
        let wrong = ["lines[0].what", "lines[1].count", "lines[1].what", "lines[1].more", "lines[2]", "total"];
        assert_eq!(invoice(json).unwrap_err(), [&wrong[..], &["currency", "a"]].concat());
        assert_eq!(invoice("{}").unwrap_err(), ["lines", "total"]);
    }

    #[test]
    fn a_repeated_member_and_a_member_without_a_name_are_refused() {
        let json = r#"{"lines":[{"count":1,"count":1,"what":"x"}],"total":5,"total":5,"":1}"#;
        assert_eq!(invoice(json).unwrap_err(), ["lines[0].count", "total", "body"]);
        assert_eq!(invoice(r#"{"lines":[{"count":1,"what":"x","":1}],"total":5}"#).unwrap_err(), ["lines[0]"]);
        // The same name, spelled with an escape.
        assert_eq!(invoice(r#"{"lines":[],"total":5,"tot\u0061l":5}"#).unwrap_err(), ["lines", "total"]);
    }

    #[test]
    fn a_body_that_is_not_json_is_refused_without_field_errors() {
        for json in ["", "{", "{}{}", "{'a':1}", "{\"a\":01}", "{\"a\":\"\n\"}", "\u{feff}{}", "{\"\\ud800\":1}"] {
            assert!(invoice(json).unwrap_err().is_empty(), "{json}");
        }
        for json in ["[]", "7", "null", "\"x\""] {
            assert_eq!(invoice(json).unwrap_err(), ["body"], "{json}");
        }
    }

    #[test]
    fn a_deeply_nested_body_is_refused_without_a_stack_overflow() {
        let deep = ["[".repeat(30_000), "]".repeat(30_000)].concat();
        assert_eq!(invoice(&format!("{{\"lines\":{deep},\"total\":1,\"x\":{deep}}}")).unwrap_err(), ["lines[0]", "x"]);
    }

    #[test]
    fn null_counts_as_missing_for_an_optional_member() {
        assert!(invoice(r#"{"lines":[{"count":1,"what":"x"}],"total":5,"currency":null}"#).is_ok());
        assert_eq!(invoice(r#"{"lines":null,"total":null}"#).unwrap_err(), ["lines", "total"]);
    }

    #[test]
    fn money_keeps_its_digits() {
        let invoice = invoice(r#"{"lines":[{"count":3.0,"what":"x"}],"total":9007199254740.93}"#).unwrap();
        assert_eq!((invoice.lines[0].0, invoice.total.to_string().as_str()), (3, "9007199254740.93"));
    }

    #[test]
    fn a_whole_number_has_several_spellings() {
        for (text, number) in [("3", 3), ("3.0", 3), ("-2.00", -2), ("1e2", 100), ("1E+2", 100), ("-0", 0)] {
            assert_eq!(whole_number(text), Some(number), "{text}");
        }
        assert_eq!(whole_number("99999999999999999999999999999999"), Some(i64::MAX));
        assert_eq!(whole_number("-9223372036854775809"), Some(i64::MIN));
        for text in ["1.5", "3.00000000000000000001", "1e400", "\"3\"", "null", "true", "[]", "{}"] {
            assert_eq!(whole_number(text), None, "{text}");
        }
    }
}
