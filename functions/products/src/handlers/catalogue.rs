//! The routes that add, read, list and change products.

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use chassis::{
    audit::{Author, Reason},
    caller::Admin,
    id::UserId,
    idempotency::{IdempotencyKey, Key},
    input::{Body, Id, Input, Object, Paging, Query, ReadBody, text, verbatim, whole},
    money::{Amount, Currency},
    openapi::{self, Location, ProblemResponses, Problems},
    page::Page,
    problem::Problem,
    schema,
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::{
    domain::{
        Description, Details, Name, NewProduct, Price, Product, ProductId, ProductVersion, ShardCount, StockedProduct,
        Units,
    },
    openapi::{Changing, Creating, Listing, ListingRecords, Reading},
    service::{ProductChange, Products},
};

#[derive(Debug, ToSchema)]
#[schema(as = NewProduct)]
pub(super) struct NewProductRequest {
    name: Name,
    description: Description,
    price: Price,
    /// The currency of the price. The default is USD.
    // This field exists only for the OpenAPI schema: `read` puts the currency into `price`.
    #[schema(value_type = Option<Currency>)]
    currency: (),
    stock: Units,
    /// Why the product is added, for the record of its versions.
    reason: Option<Reason>,
}

impl ReadBody for NewProductRequest {
    type Context = ();

    fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
        let (name, description) = (body.required("name", text), body.required("description", text));
        let amount = body.required("price", verbatim);
        let currency = body.optional_or("currency", Currency::default(), text);
        let price = amount.and_then(|amount| match currency {
            Some(currency) => body.check("price", Price::new(amount, currency)),
            None => body.check("price", Price::check_in_any_currency(amount)).and(None),
        });
        let (stock, reason) = (body.required("stock", whole), body.optional("reason", text));
        Some(Self { name: name?, description: description?, price: price?, currency: (), stock: stock?, reason })
    }
}

#[derive(Debug, ToSchema)]
#[schema(as = ProductChange)]
pub(super) struct ProductChangeRequest {
    name: Option<Name>,
    description: Option<Description>,
    /// The new price. Without a `currency`, the price is in the product's present currency.
    #[schema(value_type = Option<Price>)]
    price: Option<Amount>,
    /// The currency of the new price. A currency without a price is refused.
    currency: Option<Currency>,
    stock_shards: Option<ShardCount>,
    /// Why the product is changed, for the record of its versions.
    reason: Option<Reason>,
}

impl ReadBody for ProductChangeRequest {
    type Context = ();

    fn read(body: &mut Object<'_, '_>, (): &()) -> Option<Self> {
        let (name, description) = (body.optional("name", text), body.optional("description", text));
        let (price, currency) = (body.optional("price", verbatim), body.optional("currency", text));
        let (stock_shards, reason) = (body.optional("stock_shards", whole), body.optional("reason", text));
        if body.is_given("currency") && !body.is_given("price") {
            let detail = "must come with a price, because the same number in another currency is a different price";
            body.reject("currency", detail);
        }
        if let Some(amount) = price {
            let checked = match currency {
                Some(currency) => Price::new(amount, currency).map(|_| ()),
                // The price is in the product's present currency, which is not known here. After the service has read
                // the product, it checks the price again, in that currency.
                None => Price::check_in_any_currency(amount),
            };
            body.check("price", checked);
        }
        Some(Self { name, description, price, currency, stock_shards, reason })
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
    /// The number of units that can be ordered, without the units that orders have reserved.
    stock: u64,
    stock_shards: ShardCount,
    created_at: Timestamp,
    /// The time of the last change of the details. A sale does not change this time.
    updated_at: Timestamp,
}

type ProductPage = Page<ProductDocument>;

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the header in the OpenAPI document; `Key` reads it")]
struct CreateHeaders {
    /// A key that you choose for this request, with or without double quotes. For seven days, a repeated request with
    /// the same key adds nothing and gets the first response. **Without a key, a repeated request may add a second
    /// product.**
    #[param(rename = "Idempotency-Key", inline, value_type = IdempotencyKey, required = false)]
    idempotency_key: Option<IdempotencyKey>,
}

impl From<StockedProduct> for ProductDocument {
    fn from(StockedProduct { product, available: stock }: StockedProduct) -> Self {
        let Product { id, details, stock_shards, created_at, updated_at, .. } = product;
        let Details { name, description, price } = details;
        let (price, currency) = (price.money().amount(), price.money().currency());
        Self { id, name, description, price, currency, stock, stock_shards, created_at, updated_at }
    }
}

/// Returns a response with the product's document and its ETag. The ETag is the version of the details, without the
/// stock: it serves to detect conflicting changes of the details. A cache could not use the ETag to detect an outdated
/// stock, but responses are never cached (`Cache-Control: no-store`).
fn with_etag(stocked: StockedProduct) -> Result<Response, Problem> {
    let tag = HeaderValue::from_str(&etag(stocked.product.version)).map_err(Problem::internal)?;
    Ok(([(header::ETAG, tag)], Json(ProductDocument::from(stocked))).into_response())
}

/// The schema of the header `ETag`.
struct ETag;

schema!(
    ETag,
    "ETag",
    openapi::text("^\"[0-9]+\"$", "\"1\"").description(Some("The version of the product's details."))
);

fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// The entity tags in the header `If-Match`: the versions that a change may be based on (RFC 9110, section 13.1.1). A
/// request without the header is answered with 428.
#[derive(Debug)]
pub(super) struct IfMatch(Vec<String>);

impl IfMatch {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(header::IF_MATCH).iter();
        // The ETags of this service contain no comma. A tag that contains a comma is therefore unknown, and its parts
        // match no version. Empty elements of a list don't count (RFC 9110, section 5.6.1.2), so a header that has only
        // empty elements counts as absent.
        let tags = values.flat_map(|value| value.to_str().unwrap_or("?").split(',')).map(str::trim);
        let tags: Vec<_> = tags.filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
        if tags.is_empty() { None } else { Some(Self(tags)) }
    }

    fn matches(&self, version: u64) -> bool {
        self.0.iter().any(|tag| tag == "*" || *tag == etag(version))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.headers).ok_or_else(precondition_required)
    }
}

fn precondition_required() -> Problem {
    Problem::new(
        StatusCode::PRECONDITION_REQUIRED,
        "precondition_required",
        "Send the ETag of the product that you read, as in `If-Match: \"1\"`.",
    )
}

impl Problems for IfMatch {
    fn problems() -> Vec<Problem> {
        vec![precondition_required()]
    }
}

/// Add a product
///
/// For administrators.
///
/// Send an `Idempotency-Key`, and repeat the request with the same key until the status of the response is not 429, 500
/// or 503. However often you repeat the request, it adds one product.
#[utoipa::path(
    post,
    path = "/products",
    operation_id = "createProduct",
    tag = "Products",
    params(CreateHeaders),
    request_body = NewProductRequest,
    responses(
        (
            status = 201, body = ProductDocument, headers(("location" = inline(Location)), ("etag" = inline(ETag))),
            description = "The product.",
        ),
        ProblemResponses<(Creating, Admin, Input<(Key, Body<NewProductRequest>)>)>,
    ),
)]
pub(super) async fn create(
    State(products): State<Products>,
    Admin(caller): Admin,
    Input((Key(key), Body(new))): Input<(Key, Body<NewProductRequest>)>,
) -> Result<Response, Problem> {
    let NewProductRequest { name, description, price, currency: (), stock: units, reason } = new;
    let new = NewProduct { details: Details { name, description, price }, units, reason };
    let created = products.create(caller.user_id, new, key).await?;
    let location = [(header::LOCATION, format!("products/{}", created.product.id))];
    Ok((StatusCode::CREATED, location, with_etag(created)?).into_response())
}

/// List the catalogue
///
/// The oldest product comes first. A product that is added while you read the pages appears on the last page.
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
/// The ETag identifies the version of the product's details. To change the details, send the ETag as `If-Match`. A sale
/// changes the stock, but not the ETag.
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
    with_etag(products.get(id).await?)
}

/// Change a product
///
/// For administrators. A value whose member is absent or null stays as it is. Orders that were placed before the change
/// keep their prices. A product can be changed while it sells.
#[utoipa::path(
    patch,
    path = "/products/{id}",
    operation_id = "changeProduct",
    tag = "Products",
    params(
        ("id" = ProductId, Path),
        (
            "If-Match" = String, Header, example = json!("\"1\""),
            description = "The ETag of the product that you read, so that no change is lost. `*` matches any version.",
        ),
    ),
    request_body = ProductChangeRequest,
    responses(
        (
            status = 200, body = ProductDocument, headers(("etag" = inline(ETag))),
            description = "The changed product.",
        ),
        ProblemResponses<(Changing, Admin, IfMatch, Input<(Id<ProductId>, Body<ProductChangeRequest>)>)>,
    ),
)]
pub(super) async fn change(
    State(products): State<Products>,
    Admin(caller): Admin,
    expected: IfMatch,
    Input((Id(id), Body(change))): Input<(Id<ProductId>, Body<ProductChangeRequest>)>,
) -> Result<Response, Problem> {
    let ProductChangeRequest { name, description, price, currency, stock_shards, reason } = change;
    let change = ProductChange { name, description, price: price.map(|amount| (amount, currency)), stock_shards };
    let author = Author { id: caller.user_id, reason };
    with_etag(products.change(id, |version| expected.matches(version), change, &author).await?)
}

/// A version of a product's details: who has made it, when and why.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProductVersion)]
pub(super) struct VersionDocument {
    /// The number in the product's ETag. Version 1 is the product as it was added.
    version: u64,
    name: Name,
    description: Description,
    #[schema(value_type = Price)]
    price: Amount,
    currency: Currency,
    stock_shards: ShardCount,
    /// The administrator who has made the version.
    changed_by: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<Reason>,
    changed_at: Timestamp,
}

impl From<ProductVersion> for VersionDocument {
    fn from(version: ProductVersion) -> Self {
        let ProductVersion { version, details, stock_shards, changed_by, reason, changed_at } = version;
        let Details { name, description, price } = details;
        let (price, currency) = (price.money().amount(), price.money().currency());
        Self { version, name, description, price, currency, stock_shards, changed_by, reason, changed_at }
    }
}

type VersionPage = Page<VersionDocument>;

/// List the versions of a product
///
/// For administrators. Returns one page of what administrators have made of the product, the oldest version first. A
/// product that does not exist has no versions.
#[utoipa::path(
    get,
    path = "/products/{id}/versions",
    operation_id = "listProductVersions",
    tag = "Products",
    params(("id" = ProductId, Path), Paging),
    responses(
        (status = 200, description = "A page of versions.", body = VersionPage),
        ProblemResponses<(ListingRecords, Admin, Input<(Id<ProductId>, Query<Paging>)>)>,
    ),
)]
pub(super) async fn versions(
    State(products): State<Products>,
    _: Admin,
    Input((Id(id), Query(Paging { limit, cursor }))): Input<(Id<ProductId>, Query<Paging>)>,
) -> Result<Json<VersionPage>, Problem> {
    let page = products.versions(id, limit, cursor.as_ref()).await?;
    Ok(Json(page.map(VersionDocument::from)))
}
