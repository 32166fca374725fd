//! How it is worded. The words are in `templates/`, one set an event type;
//! askama compiles them in, and escapes whatever it puts into HTML.

use askama::Template;

use crate::domain::{Notice, Notification, OrderCancelled, OrderCreated, Reason, Refund};

/// An e-mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    /// One line. Made of our words and an order's id, and of nothing that
    /// anybody typed.
    pub subject: String,
    /// For readers without HTML.
    pub text: String,
    /// For the others.
    pub html: String,
}

/// What to send about one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// For whoever has an e-mail address.
    pub email: Email,
    /// For whoever has a phone number: a short text in plain ASCII, which fits
    /// into one part (160 characters) however large the sums are.
    pub sms: String,
}

/// What a template may speak of.
struct Letter<'a, T> {
    /// The recipient's.
    name: &'a str,
    subject: &'a str,
    about: &'a T,
}

/// Declares a template: its file, and the type of event that it is about.
macro_rules! template {
    ($template:ident, $file:literal, $about:ty) => {
        #[derive(Template)]
        #[template(path = $file)]
        struct $template<'a> {
            letter: &'a Letter<'a, $about>,
        }
    };
}

template!(OrderCreatedText, "order_created.txt", OrderCreated);
template!(OrderCreatedHtml, "order_created.html", OrderCreated);
template!(OrderCreatedSms, "order_created.sms.txt", OrderCreated);
template!(OrderCancelledText, "order_cancelled.txt", OrderCancelled);
template!(OrderCancelledHtml, "order_cancelled.html", OrderCancelled);
template!(OrderCancelledSms, "order_cancelled.sms.txt", OrderCancelled);
template!(PaymentRefundedText, "payment_refunded.txt", Refund);
template!(PaymentRefundedHtml, "payment_refunded.html", Refund);
template!(PaymentRefundedSms, "payment_refunded.sms.txt", Refund);

/// Words what `notification` tells.
pub fn render(notification: &Notification) -> Result<Message, askama::Error> {
    let name = notification.recipient.name.expose();
    let subject = subject(&notification.notice);
    let (text, html, sms) = match &notification.notice {
        Notice::OrderCreated(about) => {
            let letter = &Letter { name, subject: &subject, about };
            let sms = OrderCreatedSms { letter }.render()?;
            (OrderCreatedText { letter }.render()?, OrderCreatedHtml { letter }.render()?, sms)
        }
        Notice::OrderCancelled(about) => {
            let letter = &Letter { name, subject: &subject, about };
            let sms = OrderCancelledSms { letter }.render()?;
            (OrderCancelledText { letter }.render()?, OrderCancelledHtml { letter }.render()?, sms)
        }
        Notice::PaymentRefunded(about) => {
            let letter = &Letter { name, subject: &subject, about };
            let sms = PaymentRefundedSms { letter }.render()?;
            (PaymentRefundedText { letter }.render()?, PaymentRefundedHtml { letter }.render()?, sms)
        }
    };
    Ok(Message { email: Email { subject, text, html }, sms })
}

fn subject(notice: &Notice) -> String {
    match notice {
        Notice::OrderCreated(order) => format!("Your order is confirmed ({})", order.order_id),
        Notice::OrderCancelled(order) if order.is_recalled() => format!("Your order is cancelled ({})", order.order_id),
        Notice::OrderCancelled(order) => format!("Your order could not be placed ({})", order.order_id),
        Notice::PaymentRefunded(payment) => format!("Your money is on its way back ({})", payment.order_id),
    }
}

/// What the templates say of a cancelled order.
impl OrderCancelled {
    /// Why, in a sentence.
    fn why(&self) -> &'static str {
        match self.reason {
            Reason::PaymentDeclined => "The payment was declined.",
            Reason::OutOfStock => "Something in it is out of stock.",
            Reason::UnknownProduct => "Something in it is not for sale.",
            Reason::MixedCurrencies => "Its prices are in several currencies, and one order can have only one.",
            Reason::UserInactive => "Your account is no longer active.",
            Reason::CustomerRequest => "You asked us to cancel it.",
            Reason::CancelledByShop => "We had to cancel it.",
            Reason::PriceChanged => "A price had changed since you saw it.",
            Reason::CaptureRefused => "The payment could not be completed.",
            Reason::TimedOut => "We could not process it in time.",
            Reason::Other => "We could not process it.",
        }
    }

    /// What becomes of the money, in a sentence or two.
    fn money(&self) -> &'static str {
        // Money is taken only after an order was confirmed, unless that is
        // just what was refused.
        if self.confirmed && self.reason != Reason::CaptureRefused {
            "If you have paid already, you get all of it back, and another e-mail when it is on its way."
        } else {
            "You have not been charged. If your bank shows a reserved sum, it will be released."
        }
    }
}

#[cfg(test)]
mod tests {
    use chassis::{
        id::UserId,
        money::{Currency, MAX_MINOR_UNITS, Money},
    };
    use strum::VariantArray;

    use super::{Message, render};
    use crate::domain::{Line, Notice, Notification, OrderCancelled, OrderCreated, OrderId, Reason, Recipient, Refund};

    fn order_id() -> OrderId {
        "ord_0195a8e0-0000-7000-8000-000000000001".parse().unwrap()
    }

    fn usd(minor: u64) -> Money {
        Money::from_minor(minor, Currency::USD).unwrap()
    }

    fn line(name: &str, quantity: u32, unit_price: u64, total: u64) -> Line {
        Line {
            name: name.parse().unwrap(),
            quantity: quantity.try_into().unwrap(),
            unit_price: usd(unit_price),
            total: usd(total),
        }
    }

    fn to(name: &str, notice: Notice) -> Message {
        let recipient = Recipient {
            name: name.parse().unwrap(),
            email: "ada@example.com".parse().ok(),
            phone: "+15555550100".parse().ok(),
        };
        let user_id = UserId::generate();
        render(&Notification { event_id: "e-1".parse().unwrap(), user_id, recipient, notice }).unwrap()
    }

    fn created() -> Notice {
        let lines = vec![line("Rope, 10 m", 3, 1999, 5997), line("Knot", 1, 5, 5)];
        Notice::OrderCreated(OrderCreated { order_id: order_id(), lines, total: usd(6002), paid: true })
    }

    fn cancelled(reason: Reason, confirmed: bool, total: Option<Money>) -> Notice {
        Notice::OrderCancelled(OrderCancelled { order_id: order_id(), reason, confirmed, total })
    }

    fn refund(minor: u64) -> Refund {
        Refund { order_id: order_id(), amount: usd(minor) }
    }

    /// One of each, with the largest sums there are.
    fn all() -> Vec<Notice> {
        let most = usd(MAX_MINOR_UNITS);
        let lines = vec![line("Rope", u32::MAX, MAX_MINOR_UNITS, MAX_MINOR_UNITS)];
        let mut all = vec![
            Notice::OrderCreated(OrderCreated { order_id: order_id(), lines: lines.clone(), total: most, paid: true }),
            Notice::OrderCreated(OrderCreated { order_id: order_id(), lines, total: most, paid: false }),
            Notice::PaymentRefunded(refund(MAX_MINOR_UNITS)),
        ];
        for &reason in Reason::VARIANTS {
            all.extend([cancelled(reason, true, Some(most)), cancelled(reason, false, None)]);
        }
        all
    }

    #[test]
    fn three_times_19_99_is_59_97_in_text_and_html() {
        let message = to("Ada", created());
        let text = "Hello Ada,\n\nThank you for your order. It is confirmed:\n\n\
            3 x Rope, 10 m\n    19.99 USD each, 59.97 USD in total\n\n\
            1 x Knot\n    0.05 USD each, 0.05 USD in total\n\n\
            Order total: 60.02 USD\n\nWe have received your payment of 60.02 USD.\n\n\
            Holdfast\nOrder ord_0195a8e0-0000-7000-8000-000000000001";
        assert_eq!(message.email.text, text);
        for cell in [">3</td>", ">19.99 USD</td>", ">59.97 USD</td>", ">60.02 USD</td>", ">Rope, 10 m</td>"] {
            assert!(message.email.html.contains(cell), "{cell} in {}", message.email.html);
        }
        assert_eq!(
            message.sms,
            "Holdfast: your order for 60.02 USD is confirmed and paid. ord_0195a8e0-0000-7000-8000-000000000001"
        );
    }

    #[test]
    fn an_order_that_is_recalled_before_its_capture_never_hears_that_it_is_paid() {
        let Notice::OrderCreated(order) = created() else { panic!("an order") };
        let message = to("Ada", Notice::OrderCreated(OrderCreated { paid: false, ..order }));
        for text in [&message.email.text, &message.email.html, &message.sms] {
            assert!(text.contains("confirmed") && !text.contains("paid") && !text.contains("payment"), "{text}");
        }
    }

    #[test]
    fn markup_in_names_stays_text() {
        let script = "<script>alert('x')</script> & \"co\"";
        let lines = vec![line(script, 1, 100, 100)];
        let order = OrderCreated { order_id: order_id(), lines, total: usd(100), paid: true };
        let email = to(script, Notice::OrderCreated(order)).email;
        assert!(!email.html.contains("<script") && !email.html.contains("</script"), "{}", email.html);
        assert_eq!(email.html.matches("&#60;script&#62;").count(), 2, "{}", email.html);
        assert_eq!(email.text.matches(script).count(), 2, "{}", email.text);
    }

    #[test]
    fn a_subject_is_one_line_and_has_nothing_in_it_that_anybody_typed() {
        for notice in all() {
            let subject = to("Typed Name", notice).email.subject;
            assert!(
                subject.is_ascii() && !subject.contains(char::is_control) && !subject.contains("Typed"),
                "{subject}"
            );
            assert!(subject.len() <= 78, "RFC 5322, 2.1.1: {subject}");
        }
    }

    #[test]
    fn every_text_message_fits_one_part() {
        for notice in all() {
            let sms = to("Ada", notice).sms;
            assert!(sms.is_ascii() && sms.len() <= 160 && !sms.contains(char::is_control), "{} {sms}", sms.len());
        }
    }

    #[test]
    fn each_message_says_hello_and_which_order() {
        for notice in all() {
            let message = to("Ada", notice);
            for text in [&message.email.text, &message.email.html] {
                assert!(text.contains("Hello Ada,") && text.contains(&order_id().to_string()), "{text}");
            }
            assert!(message.sms.contains(&order_id().to_string()));
        }
    }

    #[test]
    fn a_cancellation_says_why_and_what_becomes_of_the_money() {
        let declined = to("Ada", cancelled(Reason::PaymentDeclined, false, Some(usd(5997))));
        assert_eq!(
            declined.email.text,
            "Hello Ada,\n\nYour order for 59.97 USD could not be placed. The payment was declined.\n\n\
             You have not been charged. If your bank shows a reserved sum, it will be released.\n\n\
             Holdfast\nOrder ord_0195a8e0-0000-7000-8000-000000000001"
        );
        let requested = to("Ada", cancelled(Reason::CustomerRequest, true, None));
        assert!(requested.email.text.contains("Your order is cancelled. You asked us to cancel it."));
        assert!(requested.email.text.contains("you get all of it back"), "{}", requested.email.text);
        let refused = to("Ada", cancelled(Reason::CaptureRefused, true, None));
        assert!(refused.email.text.contains("You have not been charged."), "{}", refused.email.text);
    }

    #[test]
    fn a_cancellation_says_who_cancelled_the_order() {
        for confirmed in [true, false] {
            for (reason, why) in [
                (Reason::CustomerRequest, "Your order is cancelled. You asked us to cancel it."),
                (Reason::CancelledByShop, "Your order is cancelled. We had to cancel it."),
            ] {
                let message = to("Ada", cancelled(reason, confirmed, None));
                assert!(message.email.subject.starts_with("Your order is cancelled"), "{}", message.email.subject);
                assert!(message.email.text.contains(why), "{}", message.email.text);
                assert!(message.sms.contains(&why.replace("Your", "your")), "{}", message.sms);
            }
        }
    }

    #[test]
    fn money_that_moved_is_named_exactly() {
        let refunded = to("Ada", Notice::PaymentRefunded(refund(5997)));
        assert!(refunded.email.html.contains(">59.97 USD</strong>"), "{}", refunded.email.html);
        assert_eq!(
            refunded.sms,
            "Holdfast: we have returned 59.97 USD to where you paid from. ord_0195a8e0-0000-7000-8000-000000000001"
        );
    }

    #[test]
    fn yen_have_no_decimals() {
        let amount = Money::from_minor(1200, "JPY".parse().unwrap()).unwrap();
        let notice = Notice::PaymentRefunded(Refund { order_id: order_id(), amount });
        assert!(to("Ada", notice).email.text.contains("returned 1200 JPY to"));
    }
}
