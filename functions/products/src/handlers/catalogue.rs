//! What is sold: adding, reading and changing products.

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use chassis::{
    caller::Admin,
    fields::Fields,
    http::{Id, Json as Body, Query, whole},
    money::{Amount, Currency},
    openapi::{Cursor, Location, ProblemResponses, Problems, text},
    page::{Limit, Page},
    problem::Problem,
    schema,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    domain::{Description, Details, Name, Price, Product, ProductId, Units},
    openapi::{Changing, Creating, Listing, Reading},
    service::{Change, Products},
};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewProduct {
    #[schema(value_type = Name)]
    name: String,
    #[schema(value_type = Description)]
    description: String,
    #[schema(value_type = Price)]
    price: Amount,
    /// `USD` if left out.
    #[serde(default)]
    #[schema(value_type = Option<Currency>)]
    currency: Option<String>,
    #[serde(deserialize_with = "whole")]
    #[schema(value_type = Units)]
    stock: u64,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProductChange {
    #[serde(default)]
    #[schema(value_type = Option<Name>)]
    name: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<Description>)]
    description: Option<String>,
    /// In the present currency, unless it comes with another.
    #[serde(default)]
    #[schema(value_type = Option<Price>)]
    price: Option<Amount>,
    /// Only together with a price.
    #[serde(default)]
    #[schema(value_type = Option<Currency>)]
    currency: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Paging {
    /// How many products to list at most.
    #[serde(default)]
    #[param(inline)]
    limit: Limit,
    /// The `next_cursor` of the page before.
    #[serde(default)]
    #[param(value_type = Cursor)]
    cursor: Option<String>,
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

schema!(ETag, "ETag", text("^\"[0-9]+\"$", "\"1\"").description(Some("The version of the product's details.")));

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
        // whole nor in parts.
        let tags = values.flat_map(|value| value.to_str().unwrap_or_default().split(','));
        let tags: Vec<_> = tags.map(|tag| tag.trim().to_owned()).collect();
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
/// Whoever has no answer looks whether it is there before repeating: each request adds one.
#[utoipa::path(
    post,
    path = "/products",
    operation_id = "createProduct",
    tag = "Products",
    request_body = NewProduct,
    responses(
        (
            status = 201, body = ProductDocument, headers(("location" = inline(Location)), ("etag" = inline(ETag))),
            description = "The product.",
        ),
        ProblemResponses<(Creating, Admin, Body<NewProduct>)>,
    ),
)]
pub(super) async fn create(
    State(products): State<Products>,
    _: Admin,
    Body(body): Body<NewProduct>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let name = fields.take("name", body.name.parse::<Name>());
    let description = fields.take("description", body.description.parse::<Description>());
    let currency = fields.take("currency", body.currency.map_or(Ok(Currency::default()), |code| code.parse()));
    let price = currency.and_then(|currency| fields.take("price", Price::new(body.price, currency)));
    let units = fields.take("stock", Units::try_from(body.stock));
    let input = name.zip(description).zip(price).zip(units);
    let (((name, description), price), units) = fields.finish(input).map_err(Problem::invalid)?;
    let product = products.create(Details { name, description, price }, units).await?;
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
        ProblemResponses<(Listing, Query<Paging>)>,
    ),
    security(()),
)]
pub(super) async fn list(
    State(products): State<Products>,
    Query(paging): Query<Paging>,
) -> Result<Json<ProductPage>, Problem> {
    let page = products.list(paging.limit, paging.cursor.as_deref()).await?;
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
        ProblemResponses<(Reading, Id<ProductId>)>,
    ),
    security(()),
)]
pub(super) async fn read(State(products): State<Products>, Id(id): Id<ProductId>) -> Result<Response, Problem> {
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
        ProblemResponses<(Changing, Admin, Id<ProductId>, IfMatch, Body<ProductChange>)>,
    ),
)]
pub(super) async fn change(
    State(products): State<Products>,
    _: Admin,
    Id(id): Id<ProductId>,
    expected: IfMatch,
    Body(body): Body<ProductChange>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let name = body.name.and_then(|name| fields.take("name", name.parse()));
    let description = body.description.and_then(|description| fields.take("description", description.parse()));
    let currency = body.currency.and_then(|code| fields.take("currency", code.parse::<Currency>()));
    if currency.is_some() && body.price.is_none() {
        fields.refuse("currency", "must come with a price: the same number of another currency is another price");
    }
    let price = body.price.map(|amount| (amount, currency));
    let change = fields.finish(Some(Change { name, description, price })).map_err(Problem::invalid)?;
    tagged(products.change(id, |version| expected.includes(version), change).await?)
}
