//! What is sold: adding, reading and changing products.

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use chassis::{
    caller::Admin,
    idempotency::{IdempotencyKey, Key},
    input::{Body, Id, Input, Object, Parameters, Query, ReadBody, ReadQuery, text, verbatim, whole},
    money::{Amount, Currency},
    openapi::{self, Location, ProblemResponses, Problems},
    page::{Cursor, Limit, Page},
    problem::Problem,
    schema,
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::{
    domain::{Addition, Description, Details, Name, Price, Product, ProductId, Units},
    openapi::{Changing, Creating, Listing, Reading},
    service::{Change, Products},
};

/// What `POST /products` asks for.
#[derive(Debug, ToSchema)]
pub(crate) struct NewProduct {
    name: Name,
    description: Description,
    price: Price,
    /// `USD` if left out.
    // The price has it already.
    #[schema(value_type = Option<Currency>)]
    currency: (),
    stock: Units,
}

impl ReadBody for NewProduct {
    type Context = ();

    fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
        let (name, description) = (body.required("name", text), body.required("description", text));
        let amount = body.required("price", verbatim);
        let currency = body.optional_or("currency", Currency::default(), text);
        let price = amount.and_then(|amount| match currency {
            Some(currency) => body.check("price", Price::new(amount, currency)),
            None => body.check("price", Price::is_possible(amount)).and(None),
        });
        let stock = body.required("stock", whole);
        Some(Self { name: name?, description: description?, price: price?, currency: (), stock: stock? })
    }
}

/// What `PATCH /products/{id}` asks for.
#[derive(Debug, ToSchema)]
pub(crate) struct ProductChange {
    name: Option<Name>,
    description: Option<Description>,
    /// In the present currency, unless it comes with another.
    #[schema(value_type = Option<Price>)]
    price: Option<Amount>,
    /// Only together with a price.
    currency: Option<Currency>,
}

impl ReadBody for ProductChange {
    type Context = ();

    fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
        let (name, description) = (body.optional("name", text), body.optional("description", text));
        let (price, currency) = (body.optional("price", verbatim), body.optional("currency", text));
        if body.is_given("currency") && !body.is_given("price") {
            let detail = "must come with a price: the same number of another currency is another price";
            body.refuse("currency", detail);
        }
        if let Some(amount) = price {
            let is_price = match currency {
                Some(currency) => Price::new(amount, currency).map(|_| ()),
                // The product's present currency will say more.
                None => Price::is_possible(amount),
            };
            body.check("price", is_price);
        }
        Some(Self { name, description, price, currency })
    }
}

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// How many products to list at most.
    #[param(inline, required = false)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    #[param(value_type = Cursor, required = false)]
    cursor: Option<Cursor>,
}

impl ReadQuery for Paging {
    fn read(parameters: &mut Parameters<'_>) -> Option<Self> {
        Some(Self { limit: parameters.optional("limit").unwrap_or_default(), cursor: parameters.cursor() })
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Product)]
pub(super) struct ProductDocument {
    id: ProductId,
    name: Name,
    description: Description,
    #[schema(value_type = Price)]
    price: Amount,
    currency: Currency,
    /// What can be ordered; what orders have reserved is theirs already.
    stock: u64,
    created_at: Timestamp,
    /// When the details were changed last. Sales don't count.
    updated_at: Timestamp,
}

type ProductPage = Page<ProductDocument>;

/// The headers that matter to whoever adds a product.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the key is read as a part of the request; this is what the document says of it")]
struct CreateHeaders {
    /// Your name for this request, in double quotes or without. A repeat under the same key adds nothing, and gets the
    /// same answer, for seven days. **Without one, repeating a request may add the product twice.**
    #[param(rename = "Idempotency-Key", inline, value_type = IdempotencyKey, required = false)]
    idempotency_key: Option<IdempotencyKey>,
}

impl From<Product> for ProductDocument {
    fn from(product: Product) -> Self {
        let Product { id, details, stock, created_at, updated_at, .. } = product;
        let (Details { name, description, price }, stock) = (details, stock.available);
        let (price, currency) = (price.money().amount(), price.money().currency());
        Self { id, name, description, price, currency, stock, created_at, updated_at }
    }
}

/// The document with its ETag: the version of the details, which is what a
/// change is checked against. Stock is not part of it, so it is no validator
/// for caching the whole; answers are never stored anyway.
fn tagged(product: Product) -> Result<Response, Problem> {
    let tag = HeaderValue::from_str(&etag(product.version)).map_err(Problem::internal)?;
    Ok(([(header::ETAG, tag)], Json(ProductDocument::from(product))).into_response())
}

/// As the API's document calls it.
struct ETag;

schema!(
    ETag,
    "ETag",
    openapi::text("^\"[0-9]+\"$", "\"1\"").description(Some("The version of the product's details."))
);

fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// `If-Match`: the versions that a change may start from
/// (RFC 9110, section 13.1.1). As a handler's argument: 428 without one.
#[derive(Debug)]
pub(super) struct IfMatch(Vec<String>);

impl IfMatch {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(header::IF_MATCH).iter();
        // Our own tags have no comma in them; a stranger's matches neither
        // whole nor in parts. What is empty in a list doesn't count (RFC 9110,
        // section 5.6.1.2), and a header of nothing else is none.
        let tags = values.flat_map(|value| value.to_str().unwrap_or("?").split(',')).map(str::trim);
        let tags: Vec<_> = tags.filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
        if tags.is_empty() { None } else { Some(Self(tags)) }
    }

    fn includes(&self, version: u64) -> bool {
        self.0.iter().any(|tag| tag == "*" || *tag == etag(version))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.headers).ok_or_else(no_precondition)
    }
}

fn no_precondition() -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_REQUIRED,
        "precondition_required",
        "Send the ETag of the product as you read it: `If-Match: \"1\"`.",
    )
}

impl Problems for IfMatch {
    fn problems() -> Vec<Problem> {
        vec![no_precondition()]
    }
}

/// Add a product
///
/// For administrators.
///
/// Send an `Idempotency-Key`, and repeat the request under it until there is an answer other than 429, 500 or 503: it adds
/// one product, and each repeat is told how that one was added.
#[utoipa::path(
    post,
    path = "/products",
    operation_id = "createProduct",
    tag = "Products",
    params(CreateHeaders),
    request_body = NewProduct,
    responses(
        (
            status = 201, body = ProductDocument, headers(("location" = inline(Location)), ("etag" = inline(ETag))),
            description = "The product.",
        ),
        ProblemResponses<(Creating, Admin, Input<(Key, Body<NewProduct>)>)>,
    ),
)]
pub(super) async fn create(
    State(products): State<Products>,
    Admin(caller): Admin,
    Input((Key(key), Body(new))): Input<(Key, Body<NewProduct>)>,
) -> Result<Response, Problem> {
    let NewProduct { name, description, price, currency: (), stock: units } = new;
    let addition = Addition { details: Details { name, description, price }, units };
    let product = products.create(caller.user_id, addition, key).await?;
    let location = [(header::LOCATION, format!("products/{}", product.id))];
    Ok((StatusCode::CREATED, location, tagged(product)?).into_response())
}

/// List the catalogue
///
/// Oldest first, a page at a time. What is added while you turn the pages comes at the end.
#[utoipa::path(
    get,
    path = "/products",
    operation_id = "listProducts",
    tag = "Products",
    params(Paging),
    responses(
        (status = 200, description = "A page of products.", body = ProductPage),
        ProblemResponses<(Listing, Input<Query<Paging>>)>,
    ),
    security(()),
)]
pub(super) async fn list(
    State(products): State<Products>,
    Input(Query(paging)): Input<Query<Paging>>,
) -> Result<Json<ProductPage>, Problem> {
    let page = products.list(paging.limit, paging.cursor.as_ref()).await?;
    Ok(Json(page.map(ProductDocument::from)))
}

/// Read a product
///
/// The ETag stands for the details, which is what a change is checked against: sales move the stock, not the ETag.
#[utoipa::path(
    get,
    path = "/products/{id}",
    operation_id = "getProduct",
    tag = "Products",
    params(("id" = ProductId, Path)),
    responses(
        (status = 200, description = "The product.", body = ProductDocument, headers(("etag" = inline(ETag)))),
        ProblemResponses<(Reading, Input<Id<ProductId>>)>,
    ),
    security(()),
)]
pub(super) async fn read(
    State(products): State<Products>,
    Input(Id(id)): Input<Id<ProductId>>,
) -> Result<Response, Problem> {
    tagged(products.get(id).await?)
}

/// Change a product's details
///
/// For administrators. What is left out, or null, stays as it is. Orders placed before keep the price they were quoted.
#[utoipa::path(
    patch,
    path = "/products/{id}",
    operation_id = "changeProduct",
    tag = "Products",
    params(
        ("id" = ProductId, Path),
        (
            "If-Match" = String, Header, example = json!("\"1\""),
            description = "The ETag of the product as you read it, so that nobody's change is lost; `*` for any.",
        ),
    ),
    request_body = ProductChange,
    responses(
        (
            status = 200, body = ProductDocument, headers(("etag" = inline(ETag))),
            description = "The product as it stands now.",
        ),
        ProblemResponses<(Changing, Admin, IfMatch, Input<(Id<ProductId>, Body<ProductChange>)>)>,
    ),
)]
pub(super) async fn change(
    State(products): State<Products>,
    _: Admin,
    expected: IfMatch,
    Input((Id(id), Body(change))): Input<(Id<ProductId>, Body<ProductChange>)>,
) -> Result<Response, Problem> {
    let ProductChange { name, description, price, currency } = change;
    let change = Change { name, description, price: price.map(|amount| (amount, currency)) };
    tagged(products.change(id, |version| expected.includes(version), change).await?)
}
