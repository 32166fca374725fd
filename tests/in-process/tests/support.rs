//! Tests of what administrators use to help a customer: they find the customer, the orders and the messages, and every
//! action of an administrator leaves a record of who did it, when and why.

use std::{collections::BTreeSet, time::Duration};

use http::StatusCode;
use in_process_tests::{Answer, Caller, World, shop::order_request};
use serde_json::{Value, json};

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

mod a_customer {
    use super::*;

    async fn find(world: &World, email: &str) -> Value {
        let email = email.replace('+', "%2B");
        world.get(&Caller::admin(), &format!("/users?email={email}")).await.expect(StatusCode::OK)
    }

    #[tokio::test]
    async fn is_found_by_the_e_mail_address_in_upper_and_lower_case() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        world.customer("Bob").await;
        for email in ["ada@example.com", "Ada@Example.COM"] {
            let found = find(&world, email).await;
            assert_eq!(ids(&found), [ada.id().to_string()], "{email}");
            assert_eq!(found["items"][0]["phone"], ada.phone());
        }
        assert!(ids(&find(&world, "nobody@example.com").await).is_empty());
    }

    #[tokio::test]
    async fn is_found_by_the_new_address_only_after_a_change_of_the_address() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let moved = ada.with_later_token(60).with_claim("email", "ada+new@example.com");
        let body = json!({ "email": "ada+new@example.com" });
        world.patch(&moved, &format!("/users/{}", ada.id()), body).await.expect(StatusCode::OK);
        assert!(ids(&find(&world, "ada@example.com").await).is_empty());
        assert_eq!(ids(&find(&world, "ada+new@example.com").await), [ada.id().to_string()]);
    }

    #[tokio::test]
    async fn is_not_found_once_erased() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        world.delete(&ada, &format!("/users/{}", ada.id())).await.expect(StatusCode::NO_CONTENT);
        assert!(ids(&find(&world, "ada@example.com").await).is_empty());
    }

    #[tokio::test]
    async fn is_found_by_administrators_only_and_by_a_whole_address_only() {
        let world = World::start().await;
        let ada = world.customer("Ada").await;
        let path = "/users?email=ada@example.com";
        world.get(&ada, path).await.expect_problem(403, "forbidden");
        world.get(&Caller::anonymous(), path).await.expect_problem(401, "unauthenticated");
        world.get(&Caller::function("orders"), path).await.expect_problem(403, "forbidden");
        world.get(&Caller::admin(), "/users").await.expect_bad_fields(&["email"]);
        world.get(&Caller::admin(), "/users?email=ada").await.expect_bad_fields(&["email"]);
    }
}

mod the_open_orders {
    use super::*;

    /// Places orders of several customers that stay open, because the payments service is down.
    async fn with_open_orders(count: usize) -> (World, Vec<String>) {
        let world = World::start_in_test_time().await;
        let teapot = world.product("19.99", 100).await;
        let customers = [world.customer("Ada").await, world.customer("Bob").await];
        world.cloud.take_down("payments.internal");
        let mut placed = Vec::new();
        for n in 0..count {
            let body = order_request(&[(&teapot, 1)], "tok_accepted");
            let order = world.place(&customers[n % 2], body, &format!("key-{n}")).await.expect(StatusCode::ACCEPTED);
            placed.push(order["id"].as_str().unwrap().to_owned());
        }
        (world, placed)
    }

    /// Reads all pages. Returns the ids of each page.
    async fn pages(world: &World, limit: usize) -> Vec<Vec<String>> {
        let (mut pages, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/open-orders?limit={limit}{cursor}");
            let page = world.get(&Caller::admin(), &path).await.expect(StatusCode::OK);
            pages.push(ids(&page).into_iter().map(str::to_owned).collect());
            let Some(next) = page["next_cursor"].as_str() else { return pages };
            cursor = format!("&cursor={next}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_all_customers_are_listed_page_by_page_and_the_oldest_comes_first() {
        let (world, placed) = with_open_orders(7).await;
        let pages = pages(&world, 3).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
        assert_eq!(pages.concat(), placed);
    }

    #[tokio::test(start_paused = true)]
    async fn stay_in_the_order_of_their_age_when_the_worker_postpones_them() {
        let (world, placed) = with_open_orders(4).await;
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(60)).await;
            world.sweep().await;
        }
        let page = world.get(&Caller::admin(), "/open-orders").await.expect(StatusCode::OK);
        assert_eq!(ids(&page), placed);
        for order in page["items"].as_array().unwrap() {
            assert!(order["support"]["failures"].as_u64().unwrap() > 0, "{order}");
            assert_eq!(order["support"]["open_since"], order["created_at"]);
            assert!(order["support"]["next_check"].is_string(), "{order}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn are_no_longer_listed_once_they_are_finished() {
        let (world, placed) = with_open_orders(2).await;
        world.cloud.bring_back();
        world.pass_minutes(6).await;
        assert!(pages(&world, 10).await.concat().is_empty(), "{placed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn are_for_administrators_only_and_their_cursor_fits_no_other_list() {
        let (world, _) = with_open_orders(2).await;
        world.get(&Caller::named("Mallory"), "/open-orders").await.expect_problem(403, "forbidden");
        world.get(&Caller::anonymous(), "/open-orders").await.expect_problem(401, "unauthenticated");
        world.get(&Caller::service(), "/open-orders").await.expect_problem(403, "forbidden");
        let page = world.get(&Caller::admin(), "/open-orders?limit=1").await.expect(StatusCode::OK);
        let cursor = page["next_cursor"].as_str().unwrap();
        let answer = world.get(&Caller::admin(), &format!("/orders?cursor={cursor}")).await;
        answer.expect_problem(400, "invalid_cursor");
    }
}

mod one_order {
    use super::*;

    #[tokio::test]
    async fn shows_its_trace_and_its_payment_to_administrators_only() {
        let world = World::start().await;
        let (ada, teapot) = (world.customer("Ada").await, world.product("19.99", 10).await);
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let body = Some(order_request(&[(&teapot, 1)], "tok_declined"));
        let headers = [("traceparent", trace)];
        let refused = world.send_with(&ada, http::Method::POST, "/orders", body, &headers).await.json();
        let path = format!("/orders/{}", refused["order_id"].as_str().unwrap());

        let seen = world.get(&Caller::admin(), &path).await.expect(StatusCode::OK);
        assert_eq!(seen["support"]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        let payment = seen["support"]["payment_id"].as_str().unwrap();
        assert_eq!(payment, path.replace("/orders/ord_", "pay_"));
        let payment = world.get(&Caller::admin(), &format!("/payments/{payment}")).await.expect(StatusCode::OK);
        assert_eq!(payment["status"], "DECLINED");

        let own = world.get(&ada, &path).await.expect(StatusCode::OK);
        assert!(own["support"].is_null(), "{own}");
    }
}

/// A customer with an order that is `DONE`, whose messages are sent.
struct Served {
    world: World,
    ada: Caller,
    order: String,
}

impl Served {
    async fn with(token: &str) -> Self {
        let world = World::start().await;
        let (ada, teapot) = (world.customer("Ada").await, world.product("19.99", 10).await);
        let placed = world.place(&ada, order_request(&[(&teapot, 1)], token), "key").await.json();
        let order = placed["id"].as_str().or(placed["order_id"].as_str()).unwrap().to_owned();
        let served = Self { world, ada, order };
        served.deliver().await;
        served
    }

    async fn done() -> Self {
        Self::with("tok_accepted").await
    }

    async fn deliver(&self) {
        self.world.settle().await;
        assert_eq!(self.world.deliver_messages().await, json!({ "batchItemFailures": [] }));
    }

    /// The messages about the order, as an administrator sees them.
    async fn messages(&self) -> Vec<Value> {
        let path = format!("/messages?order_id={}", self.order);
        let page = self.world.get(&Caller::admin(), &path).await.expect(StatusCode::OK);
        page["items"].as_array().unwrap().clone()
    }

    async fn resend(&self, admin: &Caller, body: Value) -> Answer {
        self.world.post(admin, &format!("/orders/{}/resends", self.order), body).await
    }

    fn mails_to(&self, email: &str) -> usize {
        let mails = self.world.cloud.mails();
        mails.iter().filter(|mail| mail["Destination"]["ToAddresses"][0] == email).count()
    }
}

/// A request to send the confirmation of an order again.
fn again(id: &str) -> Value {
    json!({ "resend_id": id, "message": "OrderCreated", "reason": "Ticket 4711: it did not arrive." })
}

mod the_messages_of_an_order {
    use super::*;

    #[tokio::test]
    async fn are_listed_with_channel_time_and_result_and_without_personal_data() {
        let served = Served::done().await;
        let messages = served.messages().await;
        let mut channels: Vec<_> = messages.iter().map(|message| message["channel"].as_str().unwrap()).collect();
        channels.sort_unstable();
        assert_eq!(channels, ["EMAIL", "SMS"]);
        for message in &messages {
            assert_eq!(message["event_id"], format!("{}:OrderCreated", served.order));
            assert_eq!((&message["message"], &message["status"]), (&json!("OrderCreated"), &json!("SENT")));
            assert!(message["attempted_at"].is_string() && message["sent_at"].is_string(), "{message}");
            assert!(!message["provider_id"].as_str().unwrap().is_empty() && message["resend_of"].is_null());
        }
        let text = json!(messages).to_string();
        for personal in ["Ada", served.ada.email(), served.ada.phone()] {
            assert!(!text.contains(personal), "{text}");
        }
    }

    #[tokio::test]
    async fn are_those_of_this_order_only_and_of_all_its_events() {
        let served = Served::done().await;
        let other = Served { order: format!("ord_{}", uuid::Uuid::now_v7()), ..served };
        assert!(other.messages().await.is_empty());
        let served = Served { order: other.world.stored_order()["pk"]["S"].as_str().unwrap()[6..].to_owned(), ..other };
        let order = json!({ "id": served.order });
        served.world.cancel(&served.ada, &order).await.expect(StatusCode::OK);
        served.deliver().await;
        let kinds: BTreeSet<_> =
            served.messages().await.iter().map(|message| message["message"].as_str().unwrap().to_owned()).collect();
        assert_eq!(kinds, BTreeSet::from(["OrderCreated", "OrderCancelled", "PaymentRefunded"].map(str::to_owned)));
    }

    #[tokio::test]
    async fn show_why_a_provider_refused_the_recipient() {
        let world = World::start().await;
        world.cloud.refuse_texts("OptedOut");
        let (ada, teapot) = (world.customer("Ada").await, world.product("19.99", 10).await);
        let order = world.confirmed_order(&ada, &[(&teapot, 1)], "key").await["id"].as_str().unwrap().to_owned();
        let served = Served { world, ada, order };
        served.deliver().await;
        let messages = served.messages().await;
        let sms = messages.iter().find(|message| message["channel"] == "SMS").unwrap();
        assert_eq!((&sms["status"], &sms["refusal"]), (&json!("REFUSED"), &json!("OptedOut")));
    }

    #[tokio::test]
    async fn are_for_administrators_only() {
        let served = Served::done().await;
        let path = format!("/messages?order_id={}", served.order);
        served.world.get(&served.ada, &path).await.expect_problem(403, "forbidden");
        served.world.get(&Caller::anonymous(), &path).await.expect_problem(401, "unauthenticated");
        served.world.get(&Caller::service(), &path).await.expect_problem(403, "forbidden");
        served.world.get(&Caller::admin(), "/messages").await.expect_bad_fields(&["order_id"]);
    }
}

mod a_message_that_is_sent_again {
    use super::*;

    #[tokio::test]
    async fn has_an_event_of_its_own_and_the_order_still_has_one_order_created() {
        let served = Served::done().await;
        let resend = served.resend(&Caller::admin(), again("ticket-4711")).await.expect(StatusCode::ACCEPTED);
        assert_eq!(resend["resend_of"], format!("{}:OrderCreated", served.order));
        served.deliver().await;
        assert_eq!((served.mails_to(served.ada.email()), served.world.cloud.texts().len()), (2, 2));

        let sent: Vec<Value> =
            served.world.cloud.sent_messages().iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        let created: Vec<_> = sent.iter().filter(|event| event["type"] == "OrderCreated").collect();
        let again: Vec<_> = sent.iter().filter(|event| event["type"] == "ResendRequested").collect();
        assert_eq!((created.len(), again.len()), (1, 1));
        assert_eq!(again[0]["resendof"], created[0]["id"]);
        assert_ne!(again[0]["id"], created[0]["id"]);
        let resent: Vec<_> =
            served.messages().await.into_iter().filter(|message| message["resend_of"].is_string()).collect();
        assert_eq!(resent.len(), 2);
        for message in resent {
            assert_eq!((&message["resend_of"], &message["event_id"]), (&created[0]["id"], &again[0]["id"]));
            assert_eq!((&message["message"], &message["status"]), (&json!("OrderCreated"), &json!("SENT")));
        }
        // Both messages have the same words.
        let words = |mail: &Value| mail["Content"].clone();
        let mails = served.world.cloud.mails();
        assert_eq!(words(&mails[0]), words(&mails[1]));
    }

    #[tokio::test]
    async fn is_sent_once_however_often_it_is_requested_with_one_id() {
        let served = Served::done().await;
        let (grace, other) = (Caller::admin(), Caller::admin());
        let first = served.resend(&grace, again("a")).await.expect(StatusCode::ACCEPTED);
        for admin in [&grace, &other] {
            assert_eq!(served.resend(admin, again("a")).await.expect(StatusCode::ACCEPTED), first);
        }
        // One delivery holds the claim while the others of the same batch fail.
        served.world.deliver_messages().await;
        served.deliver().await;
        assert_eq!((served.mails_to(served.ada.email()), served.world.cloud.texts().len()), (2, 2));

        let mut differs = again("a");
        differs["reason"] = "Another reason.".into();
        served.resend(&grace, differs).await.expect_problem(409, "resend_mismatch");
        served.resend(&grace, again("b")).await.expect(StatusCode::ACCEPTED);
        served.deliver().await;
        assert_eq!(served.mails_to(served.ada.email()), 3);
    }

    #[tokio::test]
    async fn goes_to_the_address_that_the_profile_has_now() {
        let served = Served::done().await;
        let moved = served.ada.with_later_token(60).with_claim("email", "ada@example.org");
        let path = format!("/users/{}", served.ada.id());
        served.world.patch(&moved, &path, json!({ "email": "ada@example.org" })).await.expect(StatusCode::OK);
        served.resend(&Caller::admin(), again("a")).await.expect(StatusCode::ACCEPTED);
        served.deliver().await;
        assert_eq!((served.mails_to("ada@example.com"), served.mails_to("ada@example.org")), (1, 1));
    }

    #[tokio::test]
    async fn is_published_by_a_repeat_if_the_queue_did_not_answer() {
        let served = Served::done().await;
        served.world.cloud.take_down("sqs");
        served.resend(&Caller::admin(), again("a")).await.expect_problem(503, "unavailable");
        served.world.cloud.bring_back();
        served.resend(&Caller::admin(), again("a")).await.expect(StatusCode::ACCEPTED);
        served.deliver().await;
        assert_eq!(served.mails_to(served.ada.email()), 2);
    }

    #[tokio::test]
    async fn is_refused_for_an_erased_customer_before_and_after_the_order_knows_of_it() {
        let served = Served::done().await;
        let path = format!("/users/{}", served.ada.id());
        served.world.delete(&served.ada, &path).await.expect(StatusCode::NO_CONTENT);
        let admin = Caller::admin();
        assert!(served.world.stored_order()["is_erased"].is_null(), "the order knows already");
        served.resend(&admin, again("a")).await.expect_problem(409, "customer_erased");
        assert_eq!(served.world.deliver_user_events().await, 0);
        assert!(served.world.stored_order()["is_erased"].is_object());
        served.resend(&admin, again("a")).await.expect_problem(409, "customer_erased");
        served.deliver().await;
        assert_eq!(served.mails_to(served.ada.email()), 1);
        let page = served.world.get(&admin, &format!("/orders/{}/resends", served.order)).await;
        assert!(page.expect(StatusCode::OK)["items"].as_array().unwrap().is_empty(), "{}", page.text);
    }

    #[tokio::test]
    async fn says_what_is_true_now() {
        let served = Served::done().await;
        let cancelled = json!({ "resend_id": "c", "message": "OrderCancelled", "reason": "Asked for." });
        let problem = served.resend(&Caller::admin(), cancelled.clone()).await.expect_problem(409, "message_outdated");
        assert_eq!(problem["current"], "OrderCreated");
        served.world.cancel(&served.ada, &json!({ "id": served.order })).await.expect(StatusCode::OK);
        served.deliver().await;
        served.resend(&Caller::admin(), again("a")).await.expect_problem(409, "message_outdated");
        served.resend(&Caller::admin(), cancelled).await.expect(StatusCode::ACCEPTED);
        served.deliver().await;
        let mails = served.world.cloud.mails();
        let subject = mails.last().unwrap()["Content"]["Simple"]["Subject"]["Data"].as_str().unwrap().to_owned();
        assert_eq!(subject, format!("Your order is cancelled ({})", served.order));
    }

    #[tokio::test]
    async fn may_be_the_message_of_a_refusal_that_only_the_response_has_reported() {
        let served = Served::with("tok_declined").await;
        assert_eq!(served.mails_to(served.ada.email()), 0);
        let body = json!({ "resend_id": "a", "message": "OrderCancelled", "reason": "The customer asks why." });
        served.resend(&Caller::admin(), body).await.expect(StatusCode::ACCEPTED);
        served.deliver().await;
        assert_eq!(served.mails_to(served.ada.email()), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn is_never_about_an_open_order() {
        let world = World::start_in_test_time().await;
        let (ada, teapot) = (world.customer("Ada").await, world.product("19.99", 10).await);
        world.cloud.take_down("payments.internal");
        let placed = world.place(&ada, order_request(&[(&teapot, 1)], "tok_accepted"), "key").await;
        let order = placed.expect(StatusCode::ACCEPTED)["id"].as_str().unwrap().to_owned();
        let served = Served { world, ada, order };
        served.resend(&Caller::admin(), again("a")).await.expect_problem(409, "message_outdated");
    }

    #[tokio::test]
    async fn is_recorded_with_who_requested_it_when_and_why() {
        let served = Served::done().await;
        let grace = Caller::admin();
        for id in ["a", "b", "c"] {
            served.resend(&grace, again(id)).await.expect(StatusCode::ACCEPTED);
        }
        let path = format!("/orders/{}/resends?limit=2", served.order);
        let page = served.world.get(&grace, &path).await.expect(StatusCode::OK);
        let next = format!("{path}&cursor={}", page["next_cursor"].as_str().unwrap());
        let rest = served.world.get(&grace, &next).await.expect(StatusCode::OK);
        let resends = [page["items"].as_array().unwrap().as_slice(), rest["items"].as_array().unwrap()].concat();
        assert_eq!(
            resends.iter().map(|resend| resend["resend_id"].as_str().unwrap()).collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
        for resend in &resends {
            assert_eq!(resend["requested_by"], grace.id().to_string());
            assert_eq!(resend["reason"], "Ticket 4711: it did not arrive.");
            assert!(resend["requested_at"].is_string() && !resend.to_string().contains(grace.email()), "{resend}");
        }
    }

    #[tokio::test]
    async fn is_for_administrators_only_and_needs_an_id_and_a_reason() {
        let served = Served::done().await;
        served.resend(&served.ada, again("a")).await.expect_problem(403, "forbidden");
        let path = format!("/orders/{}/resends", served.order);
        served.world.get(&served.ada, &path).await.expect_problem(403, "forbidden");
        let admin = Caller::admin();
        served.resend(&admin, json!({})).await.expect_bad_fields(&["resend_id", "message", "reason"]);
        let bad = json!({ "resend_id": "a:b", "message": "UserErased", "reason": " " });
        served.resend(&admin, bad).await.expect_bad_fields(&["resend_id", "message", "reason"]);
        let unknown = Served { order: format!("ord_{}", uuid::Uuid::now_v7()), ..served };
        unknown.resend(&admin, again("a")).await.expect_problem(404, "not_found");
    }
}

mod a_refused_order {
    use super::*;

    #[tokio::test]
    async fn shows_administrators_what_the_customer_was_told() {
        let world = World::start().await;
        let (ada, teapot) = (world.customer("Ada").await, world.product("19.99", 5).await);
        let declined = world.place(&ada, order_request(&[(&teapot, 1)], "tok_declined"), "declined").await;
        let short = world.place(&ada, order_request(&[(&teapot, 6)], "tok_accepted"), "short").await;
        for (answer, status, code) in [(declined, 402, "payment_declined"), (short, 409, "out_of_stock")] {
            let told = answer.expect_problem(status, code);
            let order = world.order(&Caller::admin(), &told["order_id"]).await;
            assert_eq!(order["support"]["refusal"], told);
            assert!(world.order(&ada, &told["order_id"]).await.get("support").is_none());
        }
    }
}

/// Every action of an administrator leaves a record, in the same write as the action.
mod the_audit_trail {
    use super::*;

    async fn items(world: &World, path: &str) -> Vec<Value> {
        let page = world.get(&Caller::admin(), path).await.expect(StatusCode::OK);
        page["items"].as_array().unwrap().clone()
    }

    #[tokio::test]
    async fn says_who_cancelled_another_persons_order_and_why_and_the_customer_does_not_see_it() {
        let served = Served::done().await;
        let (world, grace) = (&served.world, Caller::admin());
        let order = json!({ "id": served.order });
        world.cancel(&grace, &order).await.expect_bad_fields(&["reason"]);
        assert_eq!(world.orders_in_state("DONE"), 1);
        world.cancel_for_shop(&grace, &order, "The teapots leak.").await.expect(StatusCode::OK);
        // Another administrator cancels the order again, which changes nothing.
        world.cancel_for_shop(&Caller::admin(), &order, "Another reason.").await.expect(StatusCode::OK);

        let seen = world.order(&grace, &order["id"]).await;
        assert_eq!(seen["support"]["cancelled_by"], grace.id().to_string());
        assert_eq!(seen["support"]["explanation"], "The teapots leak.");
        assert_eq!(seen["history"][3]["reason"], "cancelled_by_shop");
        served.deliver().await;
        let own = world.order(&served.ada, &order["id"]).await.to_string();
        let mails = json!(world.cloud.mails()).to_string();
        assert!(!own.contains("teapots leak") && !mails.contains("teapots leak"));
        assert!(!own.contains(&grace.id().to_string()));
    }

    #[tokio::test]
    async fn says_that_a_customer_cancelled_and_a_customer_needs_no_reason() {
        let served = Served::done().await;
        let path = format!("/orders/{}/cancel", served.order);
        let answer = served.world.post(&served.ada, &path, json!({ "reason": "Too late." })).await;
        answer.expect_bad_fields(&["reason"]);
        served.world.post(&served.ada, &path, json!({})).await.expect(StatusCode::OK);
        let seen = served.world.order(&Caller::admin(), &json!(served.order)).await;
        assert_eq!(seen["support"]["cancelled_by"], served.ada.id().to_string());
        assert!(seen["support"]["explanation"].is_null(), "{seen}");
    }

    #[tokio::test]
    async fn lists_the_adjustments_of_a_product_with_who_made_them_and_why() {
        let (world, grace) = (World::start().await, Caller::admin());
        let teapot = world.product("19.99", 10).await;
        let path = format!("/products/{teapot}/stock-adjustments");
        for (id, delta) in [("b", -2), ("a", 5), ("c", 1)] {
            let body = json!({ "adjustment_id": id, "delta": delta, "reason": format!("Count {id}") });
            for admin in [&grace, &Caller::admin()] {
                world.post(admin, &path, body.clone()).await.expect(StatusCode::OK);
            }
        }
        let page = world.get(&grace, &format!("{path}?limit=2")).await.expect(StatusCode::OK);
        let next = format!("{path}?cursor={}", page["next_cursor"].as_str().unwrap());
        let all = [page["items"].as_array().unwrap().clone(), items(&world, &next).await].concat();
        let of = |name: &str| all.iter().map(|item| item[name].clone()).collect::<Vec<_>>();
        assert_eq!(of("adjustment_id"), ["a", "b", "c"]);
        assert_eq!(of("reason"), ["Count a", "Count b", "Count c"]);
        assert_eq!(of("delta"), [5, -2, 1]);
        assert_eq!(of("adjusted_by"), vec![json!(grace.id()); 3]);
        world.get(&Caller::named("Mallory"), &path).await.expect_problem(403, "forbidden");
        world.get(&Caller::service(), &path).await.expect_problem(403, "forbidden");
    }

    #[tokio::test]
    async fn lists_each_version_of_a_product_with_who_made_it_and_why() {
        let (world, grace, heidi) = (World::start().await, Caller::admin(), Caller::admin());
        let body = json!({ "name": "Mug", "description": "Blue.", "price": 5, "stock": 3, "reason": "New." });
        let mug = world.post(&grace, "/products", body).await.expect(StatusCode::CREATED);
        let path = format!("/products/{}", mug["id"].as_str().unwrap());
        let change = async |admin: &Caller, body: Value, tag: &str| {
            world.send_with(admin, http::Method::PATCH, &path, Some(body), &[("if-match", tag)]).await
        };
        change(&heidi, json!({ "price": 6, "reason": "Dearer clay." }), "\"1\"").await.expect(StatusCode::OK);
        // A change that is refused, and a change that changes nothing, leave no record.
        change(&heidi, json!({ "price": 7 }), "\"1\"").await.expect_problem(412, "precondition_failed");
        change(&grace, json!({ "price": 6, "reason": "The same." }), "*").await.expect(StatusCode::OK);
        change(&grace, json!({ "stock_shards": 2 }), "*").await.expect(StatusCode::OK);

        let versions = items(&world, &format!("{path}/versions")).await;
        let of = |name: &str| versions.iter().map(|version| version[name].clone()).collect::<Vec<_>>();
        assert_eq!(of("version"), [1, 2, 3]);
        assert_eq!(of("price"), [json!(5.0), json!(6.0), json!(6.0)]);
        assert_eq!(of("stock_shards"), [1, 1, 2]);
        assert_eq!(of("changed_by"), [json!(grace.id()), json!(heidi.id()), json!(grace.id())]);
        assert_eq!(of("reason"), [json!("New."), json!("Dearer clay."), Value::Null]);
        world.get(&Caller::named("Mallory"), &format!("{path}/versions")).await.expect_problem(403, "forbidden");
    }

    #[tokio::test]
    async fn a_product_that_is_added_once_under_a_key_has_one_first_version() {
        let (world, grace) = (World::start().await, Caller::admin());
        let body = json!({ "name": "Mug", "description": "Blue.", "price": 5, "stock": 3 });
        let key = [("idempotency-key", "k")];
        let add = async || world.send_with(&grace, http::Method::POST, "/products", Some(body.clone()), &key).await;
        let first = add().await.expect(StatusCode::CREATED);
        assert_eq!(add().await.expect(StatusCode::CREATED), first);
        let path = format!("/products/{}/versions", first["id"].as_str().unwrap());
        assert_eq!(items(&world, &path).await.len(), 1);
    }

    #[tokio::test]
    async fn says_who_changed_or_erased_another_persons_profile_and_why_and_outlives_the_erasure() {
        let (world, grace) = (World::start().await, Caller::admin());
        let ada = world.customer("Ada").await;
        let path = format!("/users/{}", ada.id());
        world.patch(&grace, &path, json!({ "name": "Adele" })).await.expect_bad_fields(&["reason"]);
        world.patch(&ada, &path, json!({ "name": "A.", "reason": "Mine." })).await.expect_bad_fields(&["reason"]);
        world.patch(&ada, &path, json!({ "name": "A." })).await.expect(StatusCode::OK);
        let renamed = json!({ "name": "Adele", "reason": "Ticket 7." });
        world.patch(&grace, &path, renamed.clone()).await.expect(StatusCode::OK);
        // The name is that already: nothing is changed, and nothing recorded.
        world.patch(&grace, &path, renamed).await.expect(StatusCode::OK);
        world.delete(&grace, &path).await.expect_bad_fields(&["reason"]);
        for _ in 0..2 {
            world.delete(&grace, &format!("{path}?reason=Ticket%208.")).await.expect(StatusCode::NO_CONTENT);
        }

        let actions = items(&world, &format!("{path}/actions")).await;
        let of = |name: &str| actions.iter().map(|action| action[name].clone()).collect::<Vec<_>>();
        assert_eq!(of("action"), ["CHANGED", "DEACTIVATED"]);
        assert_eq!(of("reason"), ["Ticket 7.", "Ticket 8."]);
        assert_eq!(of("acted_by"), vec![json!(grace.id()); 2]);
        assert!(!json!(actions).to_string().contains("Adele"));
        world.get(&ada, &format!("{path}/actions")).await.expect_problem(403, "forbidden");
    }

    #[tokio::test]
    async fn has_no_record_of_an_action_that_was_not_carried_out() {
        let (world, grace) = (World::start().await, Caller::admin());
        let ada = world.customer("Ada").await;
        let teapot = world.product("19.99", 10).await;
        let body = json!({ "adjustment_id": "b", "delta": -11, "reason": "Broken" });
        let path = format!("/products/{teapot}/stock-adjustments");
        world.post(&grace, &path, body).await.expect_problem(409, "insufficient_stock");
        assert!(items(&world, &path).await.is_empty());
        world.cloud.take_down("dynamodb");
        let renamed = json!({ "name": "Adele", "reason": "Ticket 7." });
        world.patch(&grace, &format!("/users/{}", ada.id()), renamed).await.expect_problem(503, "unavailable");
        world.cloud.bring_back();
        assert!(items(&world, &format!("/users/{}/actions", ada.id())).await.is_empty());
    }

    #[tokio::test]
    async fn cannot_be_edited_by_any_route() {
        // Every route below a list of records has only GET, and POST where the records come from.
        let template = in_process_tests::template::Template::read();
        let records = ["/actions", "/versions", "/stock-adjustments", "/resends"];
        let mut found = BTreeSet::new();
        for route in template.routes() {
            if let Some(list) = records.iter().find(|list| route.path.contains(**list)) {
                found.insert((*list, route.path.ends_with(list), route.method.to_owned()));
            }
        }
        let expected = [
            ("/actions", true, "GET"),
            ("/versions", true, "GET"),
            ("/stock-adjustments", true, "GET"),
            ("/stock-adjustments", true, "POST"),
            ("/resends", true, "GET"),
            ("/resends", true, "POST"),
        ];
        let expected = expected.map(|(list, ends, method)| (list, ends, method.to_owned()));
        assert_eq!(found, BTreeSet::from(expected));
    }
}
