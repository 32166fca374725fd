//! Ids: a prefix that names the kind of thing, and a UUID.

/// The error for a text that is not an id of the expected kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `{prefix}_` followed by a UUID in lower case")]
pub struct InvalidId {
    /// The expected prefix.
    pub prefix: &'static str,
}

/// Parses `<prefix>_<uuid>`. Accepts only the canonical lower-case form: two
/// spellings of one id would be two keys in a table.
pub fn parse(prefix: &'static str, text: &str) -> Result<uuid::Uuid, InvalidId> {
    let invalid = InvalidId { prefix };
    let rest = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')).ok_or(invalid.clone())?;
    let uuid = uuid::Uuid::try_parse(rest).map_err(|_| invalid.clone())?;
    if uuid.hyphenated().to_string() == rest { Ok(uuid) } else { Err(invalid) }
}

/// Returns the regular expression (ECMA-262) of the texts that [`parse`]
/// accepts, for the OpenAPI document.
pub fn pattern(prefix: &str) -> String {
    format!("^{prefix}_[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$")
}

/// Declares an id type, so that a product's id can't be passed where an order's
/// id is expected.
#[macro_export]
macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(::uuid::Uuid);

        impl $name {
            /// Generates an id. Its UUID has version 7, so that ids sort by the
            /// time at which they were generated.
            pub fn generate() -> Self {
                Self(::uuid::Uuid::now_v7())
            }

            /// Returns the id with this UUID.
            pub const fn from_uuid(uuid: ::uuid::Uuid) -> Self {
                Self(uuid)
            }

            /// Returns the UUID without the prefix.
            pub const fn uuid(self) -> ::uuid::Uuid {
                self.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.hyphenated())
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(self, f)
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::id::InvalidId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::id::parse($prefix, text).map(Self)
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <::std::string::String as ::serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(::serde::de::Error::custom)
            }
        }

        $crate::id_schema!($name, $prefix);
    };
}

typed_id!(
    /// The id of a person in every service: `user_` and the subject of the
    /// person's token.
    UserId,
    "user"
);

/// Expands to nothing: without the feature `aws`, there is no OpenAPI document.
#[cfg(not(feature = "aws"))]
#[doc(hidden)]
#[macro_export]
macro_rules! id_schema {
    ($name:ident, $prefix:literal) => {};
}

#[cfg(test)]
mod tests {
    typed_id!(
        /// An id for these tests.
        ThingId,
        "thing"
    );

    #[test]
    fn an_id_survives_formatting_and_parsing() {
        let id = ThingId::generate();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(ThingId::from_uuid(id.uuid()), id);
    }

    #[test]
    fn other_prefixes_and_other_spellings_are_refused() {
        let uuid = uuid::Uuid::now_v7();
        for text in [
            String::new(),
            uuid.to_string(),
            format!("order_{uuid}"),
            format!("thing{uuid}"),
            format!("thing_{}", uuid.simple()),
            format!("thing_{}", uuid.to_string().to_uppercase()),
            format!("thing_{{{uuid}}}"),
        ] {
            assert!(text.parse::<ThingId>().is_err(), "{text}");
        }
    }
}
