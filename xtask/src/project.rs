//! Where things are.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// This checkout of the repository.
pub struct Project {
    root: PathBuf,
}

impl Project {
    /// The checkout that Cargo runs this in. Asked at run time: a path compiled
    /// in would be wrong after the folder has moved.
    pub fn find() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR").context("run me through `make` or `cargo run`")?;
        let root = Path::new(&package).parent().context("the package is no folder of a workspace")?;
        Ok(Self { root: root.to_path_buf() })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All that running the project leaves in the checkout, besides what Cargo
    /// and SAM build. Not committed.
    pub fn local(&self) -> PathBuf {
        self.root.join(".local")
    }
}

/// Removes a folder or file; that it isn't there is as good.
pub fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A variable of make's, if it was given.
pub fn wanted(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|value| !value.is_empty())
}
