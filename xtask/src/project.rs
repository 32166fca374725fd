//! The checkout, its folders, and the variables of `make`.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

#[derive(Clone)]
pub struct Project {
    root: PathBuf,
}

impl Project {
    /// Finds the checkout in which Cargo runs this program. A path that is
    /// compiled in would be wrong after the folder has moved.
    pub fn find() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR").context("run this program through `make` or `cargo run`")?;
        let root = Path::new(&package).parent().context("the package has no parent folder")?;
        Ok(Self { root: root.to_path_buf() })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder for everything that the tasks leave in the checkout, besides
    /// the build output of Cargo and SAM. Git ignores the folder.
    pub fn local(&self) -> PathBuf {
        self.root.join(".local")
    }
}

/// Creates a folder and its parents.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

pub fn write_file(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Removes a folder or a file, if it exists.
pub fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The value of a variable on make's command line, unless it is empty.
pub fn make_variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
