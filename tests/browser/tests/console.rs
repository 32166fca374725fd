//! What people see and do at the console. The tests run one after the other: the weather that one
//! makes would disturb the others.

use browser_tests::{ARROW_UP, Browser, ENTER, SPACE, Scheme, in_browser};
use serde_json::{Value, json};

/// Adds a product to the catalogue. Returns its id.
async fn product(browser: &Browser, name: &str, description: &str) -> String {
    let body = json!({ "name": name, "description": description, "price": 12.5, "currency": "USD", "stock": 10_000 });
    let product = browser.request("POST", "/as/grace/products", &body).await;
    product["id"].as_str().expect("an id").to_owned()
}

/// Opens the shop with a product in the basket, and with a card and an event chosen.
async fn fill_basket(browser: &Browser, card: &str, meanwhile: &str) {
    browser.open("/#/shop").await;
    let teapot = product(browser, "Teapot", "Short and stout.").await;
    // The catalogue is read when the view is opened.
    browser.open("/#/books").await;
    browser.open("/#/shop").await;
    let quantity = format!("#quantity-{teapot}");
    browser.wait_for("h3", "Teapot").await;
    browser.click(&quantity).await;
    browser.press(ARROW_UP).await;
    browser.press(ARROW_UP).await;
    browser.wait_for(".basket .lines", "2 × Teapot").await;
    browser.click(&format!("input[name=card][value={card}]")).await;
    browser.click(&format!("input[name=meanwhile][value={meanwhile}]")).await;
}

async fn order(browser: &Browser, card: &str, meanwhile: &str) {
    fill_basket(browser, card, meanwhile).await;
    browser.click("#place-order").await;
    browser.wait_for("h2", "The saga").await;
}

async fn clear_weather(browser: &Browser) {
    browser.request("DELETE", "/api/weather", &Value::Null).await;
}

#[tokio::test]
async fn an_order_runs_to_done_and_the_customer_gets_an_email_and_a_text_message() {
    in_browser(async |browser| {
        fill_basket(browser, "tok_accepted", "nothing").await;
        browser.check("the shop with a full basket").await;
        browser.picture("shop").await;
        browser.click("#place-order").await;
        browser.wait_for(".states .badge", "Done").await;
        browser.wait_for(".messages iframe", "").await;
        browser.wait_for(".messages h3", "Text message").await;
        browser.check("an order that is done").await;
        browser.picture("order-done").await;
        for step in [".phase.before .step", ".phase.pivot .step", ".phase.after .step"] {
            assert!(browser.shows(&format!("{step}.done"), "done").await, "{step}");
        }
        assert!(!browser.shows(".phase.back .step:not(.waiting)", "").await, "no compensation has run");
    })
    .await;
}

#[tokio::test]
async fn a_declined_card_takes_the_order_the_way_back() {
    in_browser(async |browser| {
        order(browser, "tok_declined", "nothing").await;
        browser.wait_for(".states .badge", "Cancelled").await;
        browser.wait_for(".phase.back .step.done", "undoes").await;
        browser.check("a cancelled order").await;
        browser.picture("order-cancelled").await;
        assert!(!browser.shows(".phase.after .step.done", "").await, "no step after the pivot has run");
    })
    .await;
}

#[tokio::test]
async fn an_order_waits_for_dead_payments_and_is_done_when_they_live_again() {
    in_browser(async |browser| {
        order(browser, "tok_accepted", "payments_dead").await;
        browser.wait_for(".states .badge", "Pending").await;
        browser.wait_for(".phase.before .step .error", "").await;
        browser.check("an order that waits").await;
        browser.picture("order-waits").await;
        browser.open("/#/weather").await;
        browser.wait_for(".active", "Payments are dead").await;
        browser.check("weather that is active").await;
        browser.picture("weather").await;
        browser.click("#clear-all").await;
        browser.wait_for("p", "The sun shines.").await;
        browser.open("/#/orders").await;
        browser.wait_for("tbody tr:first-child .badge", "Done").await;
        browser.check("the orders").await;
        browser.picture("orders").await;
    })
    .await;
}

#[tokio::test]
async fn an_order_whose_payments_service_is_killed_in_the_middle_is_done_and_paid_once() {
    in_browser(async |browser| {
        order(browser, "tok_accepted", "kill_halfway").await;
        browser.wait_for(".states .badge", "Done").await;
        browser.wait_for(".messages h3", "Text message").await;
        browser.wait_for(".trace", "the function was stopped").await;
        browser.check("an order that was recovered").await;
        browser.picture("order-recovered").await;
        // The picture of docs/console.md and of the README.
        browser.resize(1280, 900).await;
        browser.run("scrollTo(0, 0)", vec![]).await;
        browser.picture_of_window("console").await;
        browser.prefer(Scheme::Dark).await;
        browser.check("an order that was recovered, in the dark").await;
        browser.picture("order-recovered-dark").await;
        clear_weather(browser).await;
        browser.open("/#/books").await;
        browser.wait_for("td", "balances").await;
        assert!(!browser.shows("td", "does not balance").await, "every sum is right");
    })
    .await;
}

#[tokio::test]
async fn the_books_balance_after_a_storm() {
    in_browser(async |browser| {
        browser.open("/#/weather").await;
        browser.click("#storm-button").await;
        browser.wait_for("#storm-button", "Stop").await;
        browser.wait_for(".numbers", "Placed").await;
        browser.wait_for("p.states", "The storm is on").await;
        browser.check("a storm").await;
        browser.picture("storm").await;
        browser.wait_for("p.states", "The storm is over.").await;
        browser.wait_for(".notice.good", "The books balance.").await;
        browser.picture("storm-over").await;
        browser.open("/#/books").await;
        browser.wait_for(".notice.good", "The books balance.").await;
        browser.check("the books").await;
        browser.picture("books").await;
    })
    .await;
}

#[tokio::test]
async fn an_order_is_placed_with_the_keyboard_alone() {
    in_browser(async |browser| {
        browser.open("/#/shop").await;
        product(browser, "Teapot", "Short and stout.").await;
        browser.open("/#/orders").await;
        browser.wait_for("h1", "Orders").await;
        browser.tab_to("nav a[href='#/shop']").await;
        browser.press(ENTER).await;
        browser.wait_for("h3", "Teapot").await;
        browser.tab_to("input[type=number]").await;
        browser.press(ARROW_UP).await;
        browser.tab_to("input[name=card]").await;
        browser.press(SPACE).await;
        browser.tab_to("#place-order").await;
        browser.press(ENTER).await;
        browser.wait_for("h2", "The saga").await;
        browser.wait_for("#announcer", "The order is").await;
        browser.tab_to("summary").await;
        browser.press(ENTER).await;
        browser.wait_for("details[open]", "tombstone").await;
    })
    .await;
}

#[tokio::test]
async fn every_view_fits_a_phone_in_light_and_in_dark() {
    in_browser(async |browser| {
        browser.resize(360, 780).await;
        browser.open("/#/orders").await;
        order(browser, "tok_accepted", "nothing").await;
        browser.wait_for(".messages h3", "Text message").await;
        let address = browser.run("return location.hash", vec![]).await;
        let order = format!("/{}", address.as_str().expect("an address"));
        for (path, heading) in [
            ("/#/shop", "Shop"),
            ("/#/orders", "Orders"),
            (order.as_str(), "Order"),
            ("/#/weather", "Weather"),
            ("/#/books", "Books"),
        ] {
            for (scheme, suffix) in [(Scheme::Light, ""), (Scheme::Dark, "-dark")] {
                browser.prefer(scheme).await;
                browser.open(path).await;
                browser.wait_for("h1", heading).await;
                browser.wait_for("main h2, main table", "").await;
                browser.check(&format!("{heading} on a phone{suffix}")).await;
                browser.picture(&format!("phone-{}{suffix}", heading.to_lowercase())).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_people_typed_is_shown_as_text_however_long_and_in_every_direction() {
    in_browser(async |browser| {
        let (markup, hebrew) = ("<img src=x onerror=alert(1)>", "קומקום תה");
        let long = "Teapotofanamethatneverends".repeat(3);
        browser.open("/#/books").await;
        for name in [markup, hebrew, &long] {
            product(browser, name, markup).await;
        }
        browser.resize(360, 780).await;
        browser.open("/#/shop").await;
        for name in [markup, hebrew, &long] {
            browser.wait_for("h3", name).await;
        }
        browser.check("a shop with strange names").await;
        browser.picture("phone-strange-names").await;
        let direction = browser
            .run(
                "return getComputedStyle([...document.querySelectorAll('h3')].find((it) => it.textContent === arguments[0])).direction",
                vec![json!(hebrew)],
            )
            .await;
        assert_eq!(direction, "rtl");
        assert!(!browser.shows("main img", "").await, "no name has become an element");
    })
    .await;
}

#[tokio::test]
async fn an_order_of_fifty_lines_fits_a_phone_and_shows_each_line() {
    in_browser(async |browser| {
        browser.open("/#/books").await;
        let mut items = Vec::new();
        for number in 1..=50 {
            let id = product(browser, &format!("Teapot number {number}"), "Short and stout.").await;
            items.push(json!({ "product_id": id, "quantity": number }));
        }
        let order = json!({ "items": items, "payment_method": "tok_accepted" });
        let order = browser.request("POST", "/as/ada/orders", &order).await;
        browser.resize(360, 780).await;
        browser.open(&format!("/#/orders/{}", order["id"].as_str().expect("an id"))).await;
        browser.wait_for(".messages h3", "Text message").await;
        browser.wait_for("tbody th", "Teapot number 50").await;
        let lines = "return [...document.querySelectorAll('tbody tr')].filter((row) => row.textContent.includes('Teapot number')).length";
        assert_eq!(browser.run(lines, vec![]).await, 50);
        browser.check("an order of fifty lines").await;
        browser.picture("phone-fifty-lines").await;
    })
    .await;
}

#[tokio::test]
async fn an_empty_shop_says_how_to_add_a_product() {
    in_browser(async |browser| {
        browser.answer("/api/products", &json!({ "products": [] })).await;
        browser.open("/#/shop").await;
        browser.wait_for("main", "The catalogue is empty. Use POST /products as Grace").await;
        assert!(browser.shows("#place-order:disabled", "").await, "nothing can be ordered");
        browser.check("an empty shop").await;
        browser.picture("shop-empty").await;
    })
    .await;
}

#[tokio::test]
async fn nothing_moves_for_those_who_do_not_want_it() {
    in_browser(async |browser| {
        // What the style sheet lets move is the mark of a step that runs.
        let running = "
            const step = document.createElement('li');
            step.className = 'step running';
            step.innerHTML = '<span class=\"mark\">◐</span>';
            document.querySelector('main').append(step);
            return document.getAnimations().length";
        browser.open("/#/books").await;
        browser.wait_for("h1", "Books").await;
        assert_ne!(browser.run(running, vec![]).await, 0);
        browser.prefer_reduced_motion().await;
        browser.open("/#/shop").await;
        browser.open("/#/books").await;
        browser.wait_for("h1", "Books").await;
        assert_eq!(browser.run(running, vec![]).await, 0);
    })
    .await;
}

#[tokio::test]
async fn the_orders_of_a_customer_are_found_and_an_unknown_order_says_what_to_do() {
    in_browser(async |browser| {
        order(browser, "tok_accepted", "nothing").await;
        let id = browser.run("return location.hash.slice('#/orders/'.length)", vec![]).await;
        browser.open("/#/orders").await;
        browser.click("#who").await;
        browser.press("nobody@example.com").await;
        browser.press(ENTER).await;
        browser.wait_for("main", "No order matches").await;
        browser.open("/#/shop").await;
        browser.open("/#/orders").await;
        browser.click("#who").await;
        browser.press(id.as_str().expect("an id")).await;
        browser.press(ENTER).await;
        browser.wait_for("h2", "The saga").await;
        browser.open("/#/orders/ord_00000000000000000000000000000000").await;
        browser.wait_for("main [role=alert]", "no such order").await;
        browser.check("an unknown order").await;
    })
    .await;
}

#[tokio::test]
async fn the_api_viewer_sends_a_request_as_grace() {
    in_browser(async |browser| {
        browser.open("/reference.html").await;
        browser.wait_for(".opblock-summary-path", "/open-orders").await;
        browser.check("the API viewer").await;
        browser.picture("api").await;
        browser.click("#person").await;
        browser.press("Grace").await;
        browser.press(ENTER).await;
        browser.click(".opblock-summary-path[data-path='/open-orders'] a, [data-path='/open-orders']").await;
        browser.click(".try-out__btn").await;
        browser.click(".execute").await;
        browser.wait_for(".live-responses-table .response-col_status", "200").await;
        browser.wait_for(".request-url", "/as/grace/open-orders").await;
        // The document's examples have cursors, which begin as a token does.
        for place in [".request-url", ".curl-command", ".live-responses-table"] {
            assert!(!browser.shows(place, "eyJ").await, "a token is in {place}");
        }
        browser.picture("api-answer").await;
    })
    .await;
}
