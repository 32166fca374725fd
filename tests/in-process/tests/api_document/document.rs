//! What the services say of themselves, put together.

use std::collections::BTreeMap;

use chassis::{fields::FieldError, http::MAX_BODY, openapi::ID_TOKEN, problem};
use serde_json::Value;
use utoipa::openapi::{
    Components, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Response, ServerBuilder,
    extensions::Extensions,
    header::HeaderBuilder,
    info::LicenseBuilder,
    link::Link,
    path::Operation,
    schema::{ObjectBuilder, Type},
    security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    server::ServerVariableBuilder,
    tag::TagBuilder,
};

const HEAD: &str = "# Written by `make openapi` from the code. Not to be edited: a test compares the two.\n";
const REQUEST_ID: &str = "x-request-id";

/// What holds for every operation.
const DESCRIPTION: &str = "\
Users, products, orders and payments of a shop, each a service of its own.

**Who you are** is proved by an ID token of the shop's Cognito user pool (an access token is not taken). Members of \
the group `admin` are administrators. What belongs to somebody else is 404, not 403: whether it exists is nobody's \
business.

**Bodies** are JSON objects of at most {MAX_BODY} bytes. Unknown members and parameters are refused. Money is a number \
with at most the decimals of its currency; times are RFC 3339 in UTC; ids are a prefix and a UUID in lower case.

**Errors** are problem documents (RFC 9457) with a stable `code`, the request's id as `instance`, and an entry for \
each bad field. A path or method that does not exist is 404 `no_such_route`. Whatever can't even be read as HTTP is \
refused by the gateway with `refused`.

**Repeating** a request is safe but for two, which take an `Idempotency-Key`: without one, an order that is sent twice \
may be placed twice, and a product that is sent twice is two products. Where an answer may be repeated, and in how many \
seconds, `Retry-After` says.

**Lists** come in pages. Follow `next_cursor` until there is none.

Whatever the services answer says `Cache-Control: no-store`. `Location` is relative to the request's address.";

/// What can be done with what an operation has made, and where it says the id.
const NEXT: [(&str, &str, &str); 9] = [
    ("createProduct", "getProduct", "id"),
    ("createProduct", "changeProduct", "id"),
    ("createProduct", "adjustStock", "id"),
    ("createUser", "getUser", "id"),
    ("createUser", "changeUser", "id"),
    ("createUser", "deactivateUser", "id"),
    ("placeOrder", "getOrder", "id"),
    ("placeOrder", "cancelOrder", "id"),
    ("placeOrder", "getPayment", "payment_id"),
];

/// The document, as it is committed.
pub fn yaml() -> String {
    HEAD.to_owned() + &serde_yaml_ng::to_string(&document()).expect("the document can be written as YAML")
}

/// What each service says of itself.
pub fn parts() -> [OpenApi; 5] {
    [
        products::handlers::api(),
        orders::handlers::api(),
        payments::handlers::api(),
        users::handlers::api(),
        notifications::handlers::api(),
    ]
}

/// The whole.
pub fn document() -> OpenApi {
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("An ID token of the shop's Cognito user pool."))
        .build();
    let request_id = HeaderBuilder::new()
        .description(Some("The request's id. Missing only where the gateway itself refused the request."))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build();
    let components = Components::builder()
        .schema_from::<problem::Document<'static>>()
        .schema_from::<FieldError>()
        .header(REQUEST_ID, request_id)
        .security_scheme(ID_TOKEN, SecurityScheme::Http(token))
        .build();
    let tags = [
        ("Products", "What is sold, at which price, and how much of it is there."),
        ("Orders", "From the basket to the end, one way or the other."),
        ("Payments", "One for each order."),
        ("Users", "Profiles of the people who order."),
        ("Health", "Whether the services are there."),
    ];
    let tags = tags.map(|(name, description)| TagBuilder::new().name(name).description(Some(description)).build());
    let license = LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).identifier(Some(env!("CARGO_PKG_LICENSE")));
    let whole = OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Holdfast")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(DESCRIPTION.replace("{MAX_BODY}", &MAX_BODY.to_string())))
                .license(Some(license.build())),
        )
        .servers(Some([
            ServerBuilder::new()
                .url("https://{api}.execute-api.{region}.amazonaws.com/v1")
                .description(Some("On AWS: the stack's output `PublicApiUrl`."))
                .parameter("api", ServerVariableBuilder::new().default_value("abcde12345"))
                .parameter("region", ServerVariableBuilder::new().default_value("us-east-1"))
                .build(),
            ServerBuilder::new()
                .url("http://localhost:{port}/_aws/execute-api/{api}/v1")
                .description(Some("On this machine: `make up` writes it to `.local/stack.json`."))
                .parameter("port", ServerVariableBuilder::new().default_value("4566"))
                .parameter("api", ServerVariableBuilder::new().default_value("abcde12345"))
                .build(),
        ]))
        .components(Some(components))
        .security(Some([SecurityRequirement::new(ID_TOKEN, [""; 0])]))
        .tags(Some(tags))
        .build();
    let mut whole = parts().into_iter().fold(whole, OpenApi::merge_from);
    whole.paths.paths.sort_by_key(|path, _| path.starts_with("/health"));
    for response in responses(&mut whole) {
        complete(response);
    }
    for operation in operations(&mut whole) {
        link(operation);
    }
    share_responses(&mut whole);
    whole
}

/// The operations of all paths.
fn operations(document: &mut OpenApi) -> impl Iterator<Item = &mut Operation> {
    document.paths.paths.values_mut().flat_map(|path| {
        [&mut path.get, &mut path.post, &mut path.patch, &mut path.delete].into_iter().filter_map(Option::as_mut)
    })
}

fn responses(document: &mut OpenApi) -> impl Iterator<Item = (&str, &mut RefOr<Response>)> {
    operations(document).flat_map(|operation| {
        operation.responses.responses.iter_mut().map(|(status, response)| (status.as_str(), response))
    })
}

/// Adds what is true of every response.
fn complete((status, response): (&str, &mut RefOr<Response>)) {
    let RefOr::T(response) = response else { return };
    // Whatever a success says in a header, it always says.
    for header in response.headers.values_mut().filter(|_| status.starts_with('2')) {
        if let RefOr::T(header) = header {
            header.extensions = Some(Extensions::from_iter([("required", true)]));
        }
    }
    let request_id = Ref::new(format!("#/components/headers/{REQUEST_ID}"));
    response.headers.insert(REQUEST_ID.to_owned(), RefOr::Ref(request_id));
}

/// Says how to go on from what was made.
fn link(operation: &mut Operation) {
    let from = operation.operation_id.clone().unwrap_or_default();
    let Some(RefOr::T(made)) = operation.responses.responses.get_mut("201") else { return };
    for (_, next, member) in NEXT.into_iter().filter(|(operation, _, _)| *operation == from) {
        let mut link = Link::builder().operation_id(next).parameter("id", format!("$response.body#/{member}"));
        if next == "changeProduct" {
            link = link.parameter("If-Match", "$response.header.etag");
        }
        made.links.insert(next.to_owned(), link.build().into());
    }
}

/// Writes a response that many operations have only once, under the name of
/// its problem.
fn share_responses(document: &mut OpenApi) {
    let mut shared = BTreeMap::<String, Vec<Response>>::new();
    for (_, response) in responses(document) {
        if let RefOr::T(response) = response
            && let Some(name) = name_of(response)
        {
            shared.entry(name).or_default().push(response.clone());
        }
    }
    // Under one name there is only what means the same everywhere.
    shared.retain(|_, same| same.len() > 1 && same.windows(2).all(|pair| pair[0] == pair[1]));
    for (_, response) in responses(document) {
        if let RefOr::T(full) = response
            && let Some(name) = name_of(full).filter(|name| shared.contains_key(name))
        {
            *response = RefOr::Ref(Ref::from_response_name(name));
        }
    }
    let components = document.components.get_or_insert_default();
    components.responses.extend(shared.into_iter().filter_map(|(name, mut same)| Some((name, same.pop()?.into()))));
}

/// The codes of a response's problems: `Forbidden`, `MalformedJsonUnreadableBody`.
fn name_of(response: &Response) -> Option<String> {
    let response = serde_json::to_value(response).ok()?;
    let problem = &response["content"][problem::CONTENT_TYPE]["schema"];
    let codes = problem["properties"]["code"]["enum"].as_array()?;
    let words = codes.iter().filter_map(Value::as_str).flat_map(|code| code.split('_'));
    Some(words.map(|word| word[..1].to_uppercase() + &word[1..]).collect())
}
