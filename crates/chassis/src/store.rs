//! The errors of any store, and the outcome of a conditional write.

use std::error::Error;

/// The errors of a store. If a write ends with such an error, it is unknown
/// whether the write happened.
///
/// Contention doesn't mean that the store is down: the store works, but is
/// carrying out concurrent requests for the same items. So contention is not
/// counted as a failure.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Concurrent requests kept writing the same items. A repeat may succeed.
    #[error("concurrent requests are writing the same items of {store}")]
    Contended {
        /// The store's name.
        store: String,
        /// The error of the store's client.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store has reached the limit of its throughput, for the items of this
    /// request or for all items. A repeat may succeed.
    #[error("{store} throttles requests")]
    Throttled {
        /// The store's name.
        store: String,
        /// The error of the store's client.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store didn't respond, or failed. A repeat may succeed.
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
    /// Nothing is written, because the stored item has changed since the caller
    /// read it. The caller must read the item again, and decide again.
    Stale,
}

impl StoreError {
    /// Returns the error for a store that didn't respond, or failed.
    pub fn unavailable(store: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable { store: store.into(), source: source.into() }
    }

    /// Returns the error for contention.
    pub fn contended(store: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Contended { store: store.into(), source: source.into() }
    }

    /// Returns the error for a throttled request.
    pub fn throttled(store: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Throttled { store: store.into(), source: source.into() }
    }

    /// Returns whether the store works, and refused the request only because of
    /// its load: contention for the same items, or throttling.
    pub fn is_contended_or_throttled(&self) -> bool {
        matches!(self, Self::Contended { .. } | Self::Throttled { .. })
    }

    /// Returns the error for a record that can't be converted.
    pub fn corrupt(store: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Corrupt { store: store.into(), source: source.into() }
    }
}
