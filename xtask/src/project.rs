//! The checkout, its folders, and the variables on make's command line.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use xshell::Shell;

#[derive(Clone)]
pub struct Project {
    root: PathBuf,
}

impl Project {
    /// Finds the checkout from which `cargo run` has started this program. A path that
    /// is fixed at compile time would be wrong after the checkout was moved.
    pub fn find() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR").context("run this program through `make` or `cargo run`")?;
        let root = Path::new(&package).parent().context("the package has no parent folder")?;
        Ok(Self { root: root.to_path_buf() })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder for everything that the tasks write into the checkout, except the
    /// build output of Cargo and SAM. Git ignores the folder.
    pub fn local(&self) -> PathBuf {
        self.root.join(".local")
    }
}

/// Creates a folder and its parents.
pub fn create_folder(path: &Path) -> Result<()> {
    Shell::new()?.create_dir(path)?;
    Ok(())
}

pub fn write_file(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    Ok(Shell::new()?.write_file(path, text)?)
}

/// Removes a folder or a file, if it exists.
pub fn remove(path: &Path) -> Result<()> {
    Ok(Shell::new()?.remove_path(path)?)
}

/// The value of a variable on make's command line. Returns `None` if the value is
/// empty.
pub fn make_variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
