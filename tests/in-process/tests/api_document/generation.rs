//! Generates the OpenAPI document. Each service's code describes a part of it.

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

const HEAD: &str =
    "# `make openapi` generates this file from the code. Do not edit it: a test compares it with the code.\n";
const REQUEST_ID: &str = "x-request-id";

/// The description of the whole API.
const DESCRIPTION: &str = "\
The users, products, orders and payments of a shop. Each is a service of its own.

**Authentication** needs an ID token of the shop's Cognito user pool. An access token is refused. Members of the group \
`admin` are administrators. A resource of another person is answered with 404, not 403, so that nobody can find out \
whether it exists.

**Bodies** are JSON objects of at most {MAX_BODY} bytes. Unknown members and parameters are refused. An amount of money \
is a number with at most the decimals of its currency; a time is in RFC 3339 and UTC; an id is a prefix and a UUID in \
lower case.

**Errors** are problem documents (RFC 9457) with a stable `code`, the request's id as `instance`, and an entry for \
each invalid field. A path or method that does not exist is answered with 404 `no_such_route`. The gateway refuses a \
request that is not valid HTTP, with the code `refused`.

**Repeating** a request is safe, except for the two requests that accept an `Idempotency-Key`. Without a key, an order \
that is sent twice may be placed twice, and a product that is sent twice is added twice. If a request may be repeated \
after an error, the header `Retry-After` says after how many seconds.

**Lists** are returned in pages. Follow `next_cursor` until a page has none.

Every answer of a service has `Cache-Control: no-store`. `Location` is relative to the request's address.";

/// Links between operations. Each row names an operation that creates a resource, an
/// operation on the created resource, and the member of the first operation's response
/// that contains the id for the second operation.
const LINKS: [(&str, &str, &str); 9] = [
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

/// The text of the committed document.
pub fn yaml() -> String {
    HEAD.to_owned() + &serde_yaml_ng::to_string(&document()).expect("the document can be written as YAML")
}

/// The parts of the document that the services describe.
pub fn parts() -> [OpenApi; 5] {
    [
        products::handlers::api(),
        orders::handlers::api(),
        payments::handlers::api(),
        users::handlers::api(),
        notifications::handlers::api(),
    ]
}

/// The whole document.
pub fn document() -> OpenApi {
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("An ID token of the shop's Cognito user pool."))
        .build();
    let request_id = HeaderBuilder::new()
        .description(Some("The request's id. It is missing only if the gateway itself refused the request."))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build();
    let components = Components::builder()
        .schema_from::<problem::Document<'static>>()
        .schema_from::<FieldError>()
        .header(REQUEST_ID, request_id)
        .security_scheme(ID_TOKEN, SecurityScheme::Http(token))
        .build();
    let tags = [
        ("Products", "The catalogue: products with their prices and stock."),
        ("Orders", "Orders, from placing to completion or cancellation."),
        ("Payments", "The payment of each order."),
        ("Users", "The profiles of customers."),
        ("Health", "The health of the services."),
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

/// Adds the header `x-request-id`, and marks the headers of a successful response as
/// required.
fn complete((status, response): (&str, &mut RefOr<Response>)) {
    let RefOr::T(response) = response else { return };
    // Every successful response has all headers that are documented for it.
    for header in response.headers.values_mut().filter(|_| status.starts_with('2')) {
        if let RefOr::T(header) = header {
            header.extensions = Some(Extensions::from_iter([("required", true)]));
        }
    }
    let request_id = Ref::new(format!("#/components/headers/{REQUEST_ID}"));
    response.headers.insert(REQUEST_ID.to_owned(), RefOr::Ref(request_id));
}

/// Adds links from an operation that creates a resource to the operations on the
/// resource.
fn link(operation: &mut Operation) {
    let from = operation.operation_id.clone().unwrap_or_default();
    let Some(RefOr::T(created)) = operation.responses.responses.get_mut("201") else { return };
    for (_, next, member) in LINKS.into_iter().filter(|(operation, _, _)| *operation == from) {
        let mut link = Link::builder().operation_id(next).parameter("id", format!("$response.body#/{member}"));
        if next == "changeProduct" {
            link = link.parameter("If-Match", "$response.header.etag");
        }
        created.links.insert(next.to_owned(), link.build().into());
    }
}

/// Moves each problem response that several operations have in common into the shared
/// components.
fn share_responses(document: &mut OpenApi) {
    let mut shared = BTreeMap::<String, Vec<Response>>::new();
    for (_, response) in responses(document) {
        if let RefOr::T(response) = response
            && let Some(name) = name_of(response)
        {
            shared.entry(name).or_default().push(response.clone());
        }
    }
    // Responses with the same name that differ are not shared.
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

/// The name of a problem response, which is made of all codes that the response can
/// have: `Forbidden`, or `MalformedJsonUnreadableBody`. `None` for other responses.
fn name_of(response: &Response) -> Option<String> {
    let response = serde_json::to_value(response).ok()?;
    let problem = &response["content"][problem::CONTENT_TYPE]["schema"];
    let codes = problem["properties"]["code"]["enum"].as_array()?;
    let words = codes.iter().filter_map(Value::as_str).flat_map(|code| code.split('_'));
    Some(words.map(|word| word[..1].to_uppercase() + &word[1..]).collect())
}
