//! The errors of any store, and the outcome of a conditional write.

use std::error::Error;

/// A store cannot be used at the moment, or holds a record that it should not
/// hold. After a write, nobody knows whether the write happened.
///
/// Contention is not an outage: the store answers that a concurrent request
/// succeeded. Contention is therefore not counted as a failure.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Concurrent requests kept writing the same items. A repeat may succeed.
    #[error("others are writing the same items of {store}")]
    Contended {
        /// The store's name.
        store: String,
        /// The error of the store's client.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store is at the limit of its throughput, for these items or for all.
    /// A repeat may succeed.
    #[error("too much is asked of {store}")]
    Throttled {
        /// The store's name.
        store: String,
        /// The error of the store's client.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store didn't answer, or failed. A repeat may succeed.
    #[error("{store} cannot be used")]
    Unavailable {
        /// The store's name.
        store: String,
        /// The error of the store's client.
        source: Box<dyn Error + Send + Sync>,
    },
    /// This version of the code can't read or write the record.
    #[error("a record of {store} cannot be converted")]
    Corrupt {
        /// The store's name.
        store: String,
        /// The error of the conversion.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// The result of a conditional write of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum SaveOutcome {
    /// Everything is written.
    Saved,
    /// Nothing is written: the stored item is not the one that the decision was
    /// based on. Read it again, and decide again.
    Stale,
}

impl StoreError {
    /// The error for a store that didn't answer, or failed.
    pub fn unavailable(store: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable { store: store.into(), source: source.into() }
    }

    /// The error for contention.
    pub fn contended(store: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Contended { store: store.into(), source: source.into() }
    }

    /// The error for a throttled request.
    pub fn throttled(store: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Throttled { store: store.into(), source: source.into() }
    }

    /// Returns whether the store works, and refuses only because of the load:
    /// contention on the same items, or throttling.
    pub fn is_contended_or_throttled(&self) -> bool {
        matches!(self, Self::Contended { .. } | Self::Throttled { .. })
    }

    /// The error for a record that can't be converted.
    pub fn corrupt(store: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Corrupt { store: store.into(), source: source.into() }
    }
}
