//! Ids: a prefix that says what it names, and a UUID.

/// Why a text is not an id of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `{prefix}_` followed by a UUID in lower case")]
pub struct InvalidId {
    /// The prefix that was expected.
    pub prefix: &'static str,
}

/// Parses `<prefix>_<uuid>`. Only the canonical lower-case form is taken: two
/// spellings of one id would be two keys in a table.
pub fn parse(prefix: &'static str, text: &str) -> Result<uuid::Uuid, InvalidId> {
    let invalid = InvalidId { prefix };
    let rest = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')).ok_or(invalid.clone())?;
    let uuid = uuid::Uuid::try_parse(rest).map_err(|_| invalid.clone())?;
    if uuid.hyphenated().to_string() == rest { Ok(uuid) } else { Err(invalid) }
}

/// What [`parse`] takes, as a regular expression (ECMA-262) for the API's
/// document.
pub fn pattern(prefix: &str) -> String {
    format!("^{prefix}_[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$")
}

/// Declares an id type of its own, so that a product's id can't be passed
/// where an order's is wanted.
#[macro_export]
macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(::uuid::Uuid);

        impl $name {
            /// A new id. Version 7, so that ids sort by the time they were made.
            pub fn generate() -> Self {
                Self(::uuid::Uuid::now_v7())
            }

            /// The id of this kind with that UUID.
            pub const fn from_uuid(uuid: ::uuid::Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID without its prefix.
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

/// Nothing: without the feature `aws` there is no API to describe.
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
    fn an_id_reads_back_what_it_wrote() {
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
