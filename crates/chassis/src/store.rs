//! What can go wrong with any store, whatever it is made of.

use std::error::Error;

/// A store that can't be used at the moment, or that holds what it should not.
/// After a write it is unknown whether the write happened.
///
/// Contention is no outage: the store answers, and what it answers is that
/// somebody else got on. Whoever counts failures doesn't count it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Others were writing the same items at the same time, and kept doing so.
    /// The same may well work in a moment.
    #[error("others are writing the same items of {store}")]
    Contended {
        /// Which store.
        store: String,
        /// What its client said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It takes no more at the moment, of these items or of all. The same may
    /// well work in a moment.
    #[error("too much is asked of {store}")]
    Throttled {
        /// Which store.
        store: String,
        /// What its client said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It didn't answer, or answered with a failure of its own. The same may
    /// well work in a moment.
    #[error("{store} cannot be used")]
    Unavailable {
        /// Which store.
        store: String,
        /// What its client said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Something that this version of the code can't read or write.
    #[error("a record of {store} cannot be converted")]
    Corrupt {
        /// Which store.
        store: String,
        /// What the conversion said.
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
    /// The store didn't do its part.
    pub fn unavailable(store: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable { store: store.into(), source: source.into() }
    }

    /// Others were faster each time.
    pub fn contended(store: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Contended { store: store.into(), source: source.into() }
    }

    /// The store takes no more.
    pub fn throttled(store: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Throttled { store: store.into(), source: source.into() }
    }

    /// Returns whether the store works, and refuses only because of the load:
    /// contention on the same items, or throttling.
    pub fn is_contended_or_throttled(&self) -> bool {
        matches!(self, Self::Contended { .. } | Self::Throttled { .. })
    }

    /// The record is not what the code expects.
    pub fn corrupt(store: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Corrupt { store: store.into(), source: source.into() }
    }
}
