//! The body of `POST /orders`: the parser returns a complete order, or a problem
//! document that names each invalid field.

use chassis::id::UserId;
use futures::FutureExt;
use http::header;
use http_body_util::BodyExt;
use orders::{domain::MAX_LINES, requests::read_order};
use serde_json::{Value, json};

const CALLER: &str = "user_0195a8e0-0000-7000-8000-000000000001";

pub(crate) fn check(body: &[u8]) {
    let caller: UserId = CALLER.parse().expect("an id");
    match read_order(body, caller) {
        Ok(purchase) => {
            let lines = purchase.lines.as_slice();
            assert!((1..=MAX_LINES).contains(&lines.len()));
            assert!(
                lines.windows(2).all(|pair| pair[0].product_id < pair[1].product_id),
                "two lines have the same product"
            );
            // The parsed order, written as a request, is parsed to the same order.
            let again =
                json!({ "user_id": CALLER, "items": purchase.lines, "payment_method": purchase.payment_method });
            let again = read_order(again.to_string().as_bytes(), caller).expect("the same order");
            assert_eq!((again.lines, again.payment_method), (purchase.lines, purchase.payment_method));
        }
        Err(problem) => {
            let response = problem.respond("the-request");
            assert!([400, 422].contains(&response.status().as_u16()), "{}", response.status());
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
            let status = response.status().as_u16();
            let body = response.into_body().collect().now_or_never().expect("at once").expect("a body").to_bytes();
            let document: Value = serde_json::from_slice(&body).expect("a document in JSON");
            assert_eq!(document["status"], status);
            let errors = document["errors"].as_array().map_or(&[][..], Vec::as_slice);
            assert_eq!(document["code"] == "invalid_request", !errors.is_empty(), "{document}");
            for error in errors {
                for member in ["field", "detail"] {
                    assert!(error[member].as_str().is_some_and(|text| !text.is_empty()), "{document}");
                }
            }
        }
    }
}
