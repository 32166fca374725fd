//! Renders notifications as e-mails and text messages. The texts are files in the
//! folder `templates/`, with three files for each type of event. Askama compiles
//! the files into the program, and escapes all values that it inserts into HTML.

use askama::Template;

use crate::domain::{
    CancellationReason, Notification, NotificationContent, OrderCancelled, OrderCreated, PaymentRefunded,
};

/// An e-mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    /// The subject is one line of fixed words and the order's id. It contains no text that
    /// a person has typed.
    pub subject: String,
    /// The body for mail programs that do not show HTML.
    pub text: String,
    /// The body for all other mail programs.
    pub html: String,
}

/// A rendered notification, with a form for each channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub email: Email,
    /// The text message. The text is plain ASCII with at most 160 characters, even with the
    /// largest possible sums, so that SNS sends the message as one part.
    pub sms: String,
}

/// The values that a template can insert.
struct TemplateContext<'a, T> {
    /// The recipient's name.
    name: &'a str,
    subject: &'a str,
    content: &'a T,
}

/// Declares a template: the file in `templates/`, and the type of its content.
macro_rules! template {
    ($template:ident, $file:literal, $content:ty) => {
        #[derive(Template)]
        #[template(path = $file)]
        struct $template<'a> {
            context: &'a TemplateContext<'a, $content>,
        }
    };
}

template!(OrderCreatedText, "order_created.txt", OrderCreated);
template!(OrderCreatedHtml, "order_created.html", OrderCreated);
template!(OrderCreatedSms, "order_created.sms.txt", OrderCreated);
template!(OrderCancelledText, "order_cancelled.txt", OrderCancelled);
template!(OrderCancelledHtml, "order_cancelled.html", OrderCancelled);
template!(OrderCancelledSms, "order_cancelled.sms.txt", OrderCancelled);
template!(PaymentRefundedText, "payment_refunded.txt", PaymentRefunded);
template!(PaymentRefundedHtml, "payment_refunded.html", PaymentRefunded);
template!(PaymentRefundedSms, "payment_refunded.sms.txt", PaymentRefunded);

pub fn render(notification: &Notification) -> Result<Message, askama::Error> {
    let name = notification.recipient.name.expose();
    let subject = subject(&notification.content);
    let (text, html, sms) = match &notification.content {
        NotificationContent::OrderCreated(content) => {
            let context = &TemplateContext { name, subject: &subject, content };
            let sms = OrderCreatedSms { context }.render()?;
            (OrderCreatedText { context }.render()?, OrderCreatedHtml { context }.render()?, sms)
        }
        NotificationContent::OrderCancelled(content) => {
            let context = &TemplateContext { name, subject: &subject, content };
            let sms = OrderCancelledSms { context }.render()?;
            (OrderCancelledText { context }.render()?, OrderCancelledHtml { context }.render()?, sms)
        }
        NotificationContent::PaymentRefunded(content) => {
            let context = &TemplateContext { name, subject: &subject, content };
            let sms = PaymentRefundedSms { context }.render()?;
            (PaymentRefundedText { context }.render()?, PaymentRefundedHtml { context }.render()?, sms)
        }
    };
    Ok(Message { email: Email { subject, text, html }, sms })
}

fn subject(content: &NotificationContent) -> String {
    match content {
        NotificationContent::OrderCreated(order) => format!("Your order is confirmed ({})", order.order_id),
        NotificationContent::OrderCancelled(order) if order.was_placed() => {
            format!("Your order is cancelled ({})", order.order_id)
        }
        NotificationContent::OrderCancelled(order) => format!("Your order could not be placed ({})", order.order_id),
        NotificationContent::PaymentRefunded(payment) => {
            format!("Your money is on its way back ({})", payment.order_id)
        }
    }
}

impl OrderCancelled {
    /// Returns a sentence that says why the order was cancelled.
    fn reason_sentence(&self) -> &'static str {
        match self.reason {
            CancellationReason::PaymentDeclined => "The payment was declined.",
            CancellationReason::OutOfStock => "Something in it is out of stock.",
            CancellationReason::UnknownProduct => "Something in it is not for sale.",
            CancellationReason::MixedCurrencies => {
                "Its prices are in several currencies, and one order can have only one."
            }
            CancellationReason::UserInactive => "Your account is no longer active.",
            CancellationReason::CustomerRequest => "You asked us to cancel it.",
            CancellationReason::CancelledByShop => "We had to cancel it.",
            CancellationReason::PriceChanged => "A price had changed since you saw it.",
            CancellationReason::CaptureRefused => "The payment could not be completed.",
            CancellationReason::TimedOut => "We could not process it in time.",
            CancellationReason::Other => "We could not process it.",
        }
    }

    /// Returns one or two sentences about the customer's money.
    fn money_sentence(&self) -> &'static str {
        // A payment is captured only after its order was confirmed. The customer can
        // therefore have paid only for a confirmed order, and not if the provider refused
        // the capture.
        if self.confirmed && self.reason != CancellationReason::CaptureRefused {
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
    use crate::domain::{
        CancellationReason, Line, Notification, NotificationContent, OrderCancelled, OrderCreated, OrderId,
        PaymentRefunded, Recipient,
    };

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

    fn render_for(name: &str, content: NotificationContent) -> Message {
        let recipient = Recipient {
            name: name.parse().unwrap(),
            email: "ada@example.com".parse().ok(),
            phone: "+15555550100".parse().ok(),
        };
        let user_id = UserId::generate();
        render(&Notification { event_id: "e-1".parse().unwrap(), resend_of: None, user_id, recipient, content })
            .unwrap()
    }

    fn created() -> NotificationContent {
        let lines = vec![line("Rope, 10 m", 3, 1999, 5997), line("Knot", 1, 5, 5)];
        NotificationContent::OrderCreated(OrderCreated { order_id: order_id(), lines, total: usd(6002), paid: true })
    }

    fn cancelled(reason: CancellationReason, confirmed: bool, total: Option<Money>) -> NotificationContent {
        NotificationContent::OrderCancelled(OrderCancelled { order_id: order_id(), reason, confirmed, total })
    }

    fn refund(minor: u64) -> PaymentRefunded {
        PaymentRefunded { order_id: order_id(), amount: usd(minor) }
    }

    /// Notifications of all kinds, with the largest possible sums.
    fn all() -> Vec<NotificationContent> {
        let maximum = usd(MAX_MINOR_UNITS);
        let lines = vec![line("Rope", u32::MAX, MAX_MINOR_UNITS, MAX_MINOR_UNITS)];
        let mut all = vec![
            NotificationContent::OrderCreated(OrderCreated {
                order_id: order_id(),
                lines: lines.clone(),
                total: maximum,
                paid: true,
            }),
            NotificationContent::OrderCreated(OrderCreated {
                order_id: order_id(),
                lines,
                total: maximum,
                paid: false,
            }),
            NotificationContent::PaymentRefunded(refund(MAX_MINOR_UNITS)),
        ];
        for &reason in CancellationReason::VARIANTS {
            all.extend([cancelled(reason, true, Some(maximum)), cancelled(reason, false, None)]);
        }
        all
    }

    #[test]
    fn an_order_is_shown_with_exact_sums_in_text_and_html() {
        let message = render_for("Ada", created());
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
    fn a_confirmation_says_that_the_order_is_paid_only_if_the_payment_was_captured() {
        let NotificationContent::OrderCreated(order) = created() else { panic!("an order") };
        let message = render_for("Ada", NotificationContent::OrderCreated(OrderCreated { paid: false, ..order }));
        for text in [&message.email.text, &message.email.html, &message.sms] {
            assert!(text.contains("confirmed") && !text.contains("paid") && !text.contains("payment"), "{text}");
        }
    }

    #[test]
    fn markup_in_names_is_escaped() {
        let script = "<script>alert('x')</script> & \"co\"";
        let lines = vec![line(script, 1, 100, 100)];
        let order = OrderCreated { order_id: order_id(), lines, total: usd(100), paid: true };
        let email = render_for(script, NotificationContent::OrderCreated(order)).email;
        assert!(!email.html.contains("<script") && !email.html.contains("</script"), "{}", email.html);
        assert_eq!(email.html.matches("&#60;script&#62;").count(), 2, "{}", email.html);
        assert_eq!(email.text.matches(script).count(), 2, "{}", email.text);
    }

    #[test]
    fn a_subject_is_one_short_line_and_contains_no_text_that_a_person_typed() {
        for content in all() {
            let subject = render_for("Typed Name", content).email.subject;
            assert!(
                subject.is_ascii() && !subject.contains(char::is_control) && !subject.contains("Typed"),
                "{subject}"
            );
            assert!(subject.len() <= 78, "a line should have at most 78 characters (RFC 5322, 2.1.1): {subject}");
        }
    }

    #[test]
    fn every_text_message_fits_into_one_sms_part() {
        for content in all() {
            let sms = render_for("Ada", content).sms;
            assert!(sms.is_ascii() && sms.len() <= 160 && !sms.contains(char::is_control), "{} {sms}", sms.len());
        }
    }

    #[test]
    fn each_message_names_the_recipient_and_the_order() {
        for content in all() {
            let message = render_for("Ada", content);
            for text in [&message.email.text, &message.email.html] {
                assert!(text.contains("Hello Ada,") && text.contains(&order_id().to_string()), "{text}");
            }
            assert!(message.sms.contains(&order_id().to_string()));
        }
    }

    #[test]
    fn a_cancellation_says_why_and_what_happens_to_the_money() {
        let declined = render_for("Ada", cancelled(CancellationReason::PaymentDeclined, false, Some(usd(5997))));
        assert_eq!(
            declined.email.text,
            "Hello Ada,\n\nYour order for 59.97 USD could not be placed. The payment was declined.\n\n\
             You have not been charged. If your bank shows a reserved sum, it will be released.\n\n\
             Holdfast\nOrder ord_0195a8e0-0000-7000-8000-000000000001"
        );
        let requested = render_for("Ada", cancelled(CancellationReason::CustomerRequest, true, None));
        assert!(requested.email.text.contains("Your order is cancelled. You asked us to cancel it."));
        assert!(requested.email.text.contains("you get all of it back"), "{}", requested.email.text);
        let refused = render_for("Ada", cancelled(CancellationReason::CaptureRefused, true, None));
        assert!(refused.email.text.contains("You have not been charged."), "{}", refused.email.text);
    }

    #[test]
    fn a_cancellation_says_who_cancelled_the_order() {
        for confirmed in [true, false] {
            for (reason, sentence) in [
                (CancellationReason::CustomerRequest, "Your order is cancelled. You asked us to cancel it."),
                (CancellationReason::CancelledByShop, "Your order is cancelled. We had to cancel it."),
            ] {
                let message = render_for("Ada", cancelled(reason, confirmed, None));
                assert!(message.email.subject.starts_with("Your order is cancelled"), "{}", message.email.subject);
                assert!(message.email.text.contains(sentence), "{}", message.email.text);
                assert!(message.sms.contains(&sentence.replace("Your", "your")), "{}", message.sms);
            }
        }
    }

    #[test]
    fn a_refund_states_the_exact_amount() {
        let refunded = render_for("Ada", NotificationContent::PaymentRefunded(refund(5997)));
        assert!(refunded.email.html.contains(">59.97 USD</strong>"), "{}", refunded.email.html);
        assert_eq!(
            refunded.sms,
            "Holdfast: we have returned 59.97 USD to where you paid from. ord_0195a8e0-0000-7000-8000-000000000001"
        );
    }

    #[test]
    fn an_amount_of_yen_has_no_decimals() {
        let amount = Money::from_minor(1200, "JPY".parse().unwrap()).unwrap();
        let content = NotificationContent::PaymentRefunded(PaymentRefunded { order_id: order_id(), amount });
        assert!(render_for("Ada", content).email.text.contains("returned 1200 JPY to"));
    }
}
