//! The version of the running program, and the commit that it was built from.

use std::sync::OnceLock;

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

static COMMIT: OnceLock<&str> = OnceLock::new();

/// Remembers the commit that the program was built from. The program passes it on
/// when it starts, because a new commit must not make Cargo compile this crate
/// and all that depend on it again, but only the few lines of `main`.
pub(crate) fn remember_commit(commit: Option<&'static str>) {
    if let Some(commit) = commit.filter(|commit| !commit.is_empty()) {
        // Only the first call has an effect. A program has only one commit.
        COMMIT.get_or_init(|| commit);
    }
}

/// Returns the commit that the program was built from, or `unknown` if the build did
/// not know it.
pub fn commit() -> &'static str {
    COMMIT.get().copied().unwrap_or("unknown")
}
