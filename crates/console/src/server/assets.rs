//! The files of the page. They are read at each request, so an edit is seen at a reload.

use std::{
    fs, io,
    path::{Path as FilePath, PathBuf},
};

use anyhow::{Context, Result, bail};
use axum::{
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};

use super::{Console, problem::Problem};

/// The types of the files that the page consists of.
const TYPES: [(&str, &str); 9] = [
    ("html", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("woff2", "font/woff2"),
    ("txt", "text/plain; charset=utf-8"),
];

pub async fn index(State(console): State<Console>) -> Result<Response, Problem> {
    file(&console.web, "index.html").await
}

/// A page of its own, such as that of the API viewer.
pub async fn page(State(console): State<Console>, Path(page): Path<String>) -> Result<Response, Problem> {
    if page == "favicon.ico" {
        return file(&console.web, "favicon.svg").await;
    }
    if !page.ends_with(".html") {
        return Err(Problem::not_found("page"));
    }
    file(&console.web, &page).await
}

pub async fn asset(State(console): State<Console>, Path(path): Path<String>) -> Result<Response, Problem> {
    file(&console.web, &path).await
}

/// A file of the API viewer.
pub async fn viewer(State(console): State<Console>, Path(name): Path<String>) -> Result<Response, Problem> {
    file(&console.viewer, &name).await
}

/// The folder of Swagger UI's files in a virtual environment of Python: the package that carries
/// them is installed below a folder that has Python's version in its name.
pub fn viewer_in(environment: &FilePath) -> Result<PathBuf> {
    const FILES: &str = "site-packages/drf_spectacular_sidecar/static/drf_spectacular_sidecar/swagger-ui-dist";
    let versions = environment.join("lib");
    let versions = fs::read_dir(&versions).with_context(|| format!("cannot read {}", versions.display()))?;
    for version in versions {
        let folder = version.context("a folder cannot be read")?.path().join(FILES);
        if folder.is_dir() {
            return Ok(folder);
        }
    }
    bail!("{} has no Swagger UI; remove the folder, and `make console` installs it again", environment.display())
}

async fn file(folder: &FilePath, path: &str) -> Result<Response, Problem> {
    let kind = type_of(path).ok_or_else(|| Problem::not_found("file"))?;
    match tokio::fs::read(folder.join(path)).await {
        Ok(content) => Ok(([(header::CONTENT_TYPE, kind)], content).into_response()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Problem::not_found("file")),
        Err(error) => Err(anyhow::Error::from(error).context("a file of the page cannot be read").into()),
    }
}

/// The type of a file. `None` if the path leaves the folder, or if the page has no such files.
fn type_of(path: &str) -> Option<&'static str> {
    let is_name = |part: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_allowed)
    };
    if !path.split('/').all(is_name) {
        return None;
    }
    let (_, ending) = path.rsplit_once('.')?;
    TYPES.iter().find(|(own, _)| *own == ending).map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leaves_the_folder_has_no_type() {
        assert_eq!(type_of("vendor/axe.min.js"), Some("text/javascript; charset=utf-8"));
        for bad in ["../stack.json", "a/../b.js", "/etc/a.txt", ".hidden.js", "a//b.js", "a\\b.js", "secret.toml", ""] {
            assert_eq!(type_of(bad), None, "{bad}");
        }
    }
}
