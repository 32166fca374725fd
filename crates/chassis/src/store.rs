//! What can go wrong with any store, whatever it is made of.

use std::error::Error;

/// A store that can't be used at the moment, or that holds what it should not.
/// After a write it is unknown whether the write happened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It didn't answer, answered with a failure of its own, or was too busy.
    /// The same may well work in a moment.
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

impl StoreError {
    /// The store didn't do its part.
    pub fn unavailable(store: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable { store: store.into(), source: source.into() }
    }

    /// The record is not what the code expects.
    pub fn corrupt(store: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Corrupt { store: store.into(), source: source.into() }
    }
}
