//! Creates and lists the products of the demo.

use serde_json::Value;

use crate::{
    demo_users::{Passwords, Person},
    prelude::*,
};

const CATALOGUE: &str = include_str!("../data/catalogue.json");

/// Adds the products of the catalogue, if the shop has no products.
pub fn add_products(stack: &Stack, passwords: &Passwords) -> Result<()> {
    let step = Step::begin("Catalogue: xtask/data/catalogue.json");
    if !products(stack)?.is_empty() {
        step.done("exists already");
        return Ok(());
    }
    let catalogue: Vec<Value> = serde_json::from_str(CATALOGUE).context("the catalogue is no list of products")?;
    let authorization = format!("Bearer {}", passwords.sign_in(stack, Person::ADMIN)?);
    for product in &catalogue {
        let response = stack.send("POST", "/products", &[("authorization", &authorization)], Some(product))?;
        response.success().with_context(|| format!("the product {} could not be added", product["name"]))?;
    }
    step.done(format!("{} products", catalogue.len()));
    Ok(())
}

/// Returns the first page of products.
pub fn products(stack: &Stack) -> Result<Vec<Value>> {
    let list = stack.send("GET", "/products", &[], None)?.success()?;
    Ok(list["items"].as_array().context("GET /products has no items")?.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_catalogue_is_a_list_of_products_with_exact_prices() {
        let catalogue: Vec<Value> = serde_json::from_str(CATALOGUE).expect("a list");
        assert!(catalogue.iter().all(|product| product["name"].is_string() && product["price"].is_number()));
        assert!(catalogue.iter().any(|product| product["price"] == json!(19.99)));
    }
}
