//! The shop in which the sections about one order place their orders.

use chassis::clock::Clock;
use in_process_tests::{Caller, World};
use jiff::Timestamp;

/// A shop with a customer and with some products.
pub struct Fixture {
    pub world: World,
    pub clock: Clock,
    pub customer: Caller,
    pub products: Vec<String>,
}

impl Fixture {
    /// Starts a shop with as many products as an order has lines.
    pub async fn start(lines: usize) -> Self {
        let clock = Clock::tokio(Timestamp::now());
        let world = World::start_at(clock.clone()).await;
        let customer = world.customer("Ada").await;
        let mut products = Vec::new();
        for _ in 0..lines {
            products.push(world.product("19.99", 100).await);
        }
        world.read_switches().await;
        Self { world, clock, customer, products }
    }
}
