//! The table of the roles that may call a service's internal routes. Other
//! services call these routes through the service's function URL. IAM decides
//! which roles may use the URL, but a URL knows neither methods nor routes. So
//! the service looks up each request in this table.

use std::str::FromStr;

use http::Method;

/// The error for a text that is not a table of [`InternalCallers`].
#[derive(Debug, thiserror::Error)]
#[error("must be a list of entries such as `arn:aws:iam::123456789012:role/orders POST /payments`")]
pub struct InvalidCallers;

/// The roles that may call internal routes, and the routes that each role may
/// call. A role that the table does not name may call no route.
///
/// The table is written as a list of entries, separated by commas. Each entry
/// is the ARN of a role, a method and the pattern of a route, separated by
/// spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalCallers(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    role: Role,
    method: Method,
    route: String,
}

/// An IAM role. A role's path is no part of its identity, because an account
/// has no two roles of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Role {
    partition: String,
    account: String,
    name: String,
}

impl InternalCallers {
    /// The value that the variable should hold, in words.
    pub const EXPECTED: &str = "which role may call which route, as `<the role's ARN> POST /payments`, with commas \
                                between the entries; only missing if INTERNAL_AUTH is none";

    /// Returns the name of the role whose session is `session`, if the table
    /// allows the role to call `method` on `route`. The session is the ARN that
    /// IAM gives a caller who has assumed a role.
    pub fn admit(&self, session: &str, method: &Method, route: &str) -> Option<&str> {
        let role = Role::of_session(session)?;
        let admits = |entry: &&Entry| entry.role == role && entry.method == *method && entry.route == route;
        self.0.iter().find(admits).map(|entry| entry.role.name.as_str())
    }
}

impl FromStr for InternalCallers {
    type Err = InvalidCallers;

    fn from_str(text: &str) -> Result<Self, InvalidCallers> {
        let mut entries = Vec::new();
        for text in text.split(',') {
            let entry = Entry::parse(text).ok_or(InvalidCallers)?;
            // An entry that is there twice was probably meant to be another one.
            if entries.contains(&entry) {
                return Err(InvalidCallers);
            }
            entries.push(entry);
        }
        Ok(Self(entries))
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (role, method, route) = (words.next()?, words.next()?, words.next()?);
        // A method that is not a standard method is a mistake, such as `post`.
        let is_standard = ["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method);
        if !is_standard || !route.starts_with('/') || words.next().is_some() {
            return None;
        }
        let method = Method::from_bytes(method.as_bytes()).ok()?;
        Some(Self { role: Role::of_arn(role)?, method, route: route.to_owned() })
    }
}

impl Role {
    /// Reads `arn:aws:iam::123456789012:role/path/name`.
    fn of_arn(arn: &str) -> Option<Self> {
        let (partition, account, resource) = parts(arn, "iam")?;
        let (_, name) = resource.strip_prefix("role")?.rsplit_once('/')?;
        Self::new(partition, account, name)
    }

    /// Reads `arn:aws:sts::123456789012:assumed-role/name/session`.
    fn of_session(arn: &str) -> Option<Self> {
        let (partition, account, resource) = parts(arn, "sts")?;
        let (name, session) = resource.strip_prefix("assumed-role/")?.split_once('/')?;
        if session.is_empty() || session.contains('/') {
            return None;
        }
        Self::new(partition, account, name)
    }

    fn new(partition: &str, account: &str, name: &str) -> Option<Self> {
        let is_partition =
            partition.starts_with("aws") && partition.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        // IAM's characters for names, without the comma, which separates the
        // table's entries.
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=.@-".contains(&b));
        (is_partition && is_account && is_name).then(|| Self {
            partition: partition.to_owned(),
            account: account.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// Returns the partition, the account and the resource of a global service's
/// ARN.
fn parts<'a>(arn: &'a str, service: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let (partition, rest) = arn.strip_prefix("arn:")?.split_once(':')?;
    let (account, resource) = rest.strip_prefix(service)?.strip_prefix("::")?.split_once(':')?;
    Some((partition, account, resource))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::InternalCallers;

    const ORDERS: &str = "arn:aws:sts::123456789012:assumed-role/orders/orders-live";

    fn table(text: &str) -> InternalCallers {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_role_may_call_exactly_its_methods_and_routes() {
        let table = table(
            "arn:aws:iam::123456789012:role/orders POST /payments, \
             arn:aws:iam::123456789012:role/worker POST /payments/{id}/capture",
        );
        assert_eq!(table.admit(ORDERS, &Method::POST, "/payments"), Some("orders"));
        for (method, route) in [
            (Method::GET, "/payments"),
            (Method::POST, "/payments/{id}/capture"),
            (Method::POST, "/payments/"),
            (Method::POST, "none"),
        ] {
            assert_eq!(table.admit(ORDERS, &method, route), None, "{method} {route}");
        }
    }

    #[test]
    fn a_role_of_the_same_name_in_another_account_or_partition_is_another_role() {
        let table = table("arn:aws:iam::123456789012:role/orders POST /payments");
        for session in [
            "arn:aws:sts::123456789013:assumed-role/orders/orders-live",
            "arn:aws-cn:sts::123456789012:assumed-role/orders/orders-live",
        ] {
            assert_eq!(table.admit(session, &Method::POST, "/payments"), None, "{session}");
        }
    }

    #[test]
    fn only_the_session_of_a_role_is_a_role() {
        let table = table("arn:aws:iam::123456789012:role/orders POST /payments");
        for arn in [
            "",
            "orders",
            "arn:aws:iam::123456789012:role/orders",
            "arn:aws:iam::123456789012:user/orders",
            "arn:aws:iam::123456789012:root",
            "arn:aws:iam::123456789012:assumed-role/orders/orders-live",
            "arn:aws:sts::123456789012:federated-user/orders",
            "arn:aws:sts::123456789012:assumed-role/orders",
            "arn:aws:sts::123456789012:assumed-role/orders/",
            "arn:aws:sts::123456789012:assumed-role/path/orders/orders-live",
            "arn:aws:sts::123456789012:assumed-role/Orders/orders-live",
            "arn:aws:sts:us-east-1:123456789012:assumed-role/orders/orders-live",
            "arn:aws:sts::assumed-role/orders/orders-live",
            " arn:aws:sts::123456789012:assumed-role/orders/orders-live",
        ] {
            assert_eq!(table.admit(arn, &Method::POST, "/payments"), None, "{arn}");
        }
    }

    #[test]
    fn the_path_of_a_role_and_the_partition_may_be_any() {
        let table = table("arn:aws-us-gov:iam::123456789012:role/a/path/orders POST /payments");
        let session = "arn:aws-us-gov:sts::123456789012:assumed-role/orders/orders-live";
        assert_eq!(table.admit(session, &Method::POST, "/payments"), Some("orders"));
    }

    #[test]
    fn a_malformed_table_is_refused() {
        let good = "arn:aws:iam::123456789012:role/orders POST /payments";
        for bad in [
            "",
            ",",
            "arn:aws:iam::123456789012:role/orders",
            "arn:aws:iam::123456789012:role/orders POST",
            "arn:aws:iam::123456789012:role/orders post /payments",
            "arn:aws:iam::123456789012:role/orders ANY /payments",
            "arn:aws:iam::123456789012:role/orders POST payments",
            "arn:aws:iam::123456789012:role/orders POST /payments /users",
            "arn:aws:iam::123456789012:role/ POST /payments",
            "arn:aws:iam::123456789012:role/* POST /payments",
            "arn:aws:iam::123456789012:user/orders POST /payments",
            "arn:aws:iam::12345678901:role/orders POST /payments",
            "arn:aws:iam::*:role/orders POST /payments",
            "arn:*:iam::123456789012:role/orders POST /payments",
            "arn:aws:sts::123456789012:assumed-role/orders/x POST /payments",
            "orders POST /payments",
        ] {
            for text in [bad.to_owned(), format!("{good},{bad}"), format!("{bad},{good}")] {
                assert!(text.parse::<InternalCallers>().is_err(), "{text}");
            }
        }
        assert!(format!("{good},{good}").parse::<InternalCallers>().is_err());
        assert!(good.parse::<InternalCallers>().is_ok());
    }
}
