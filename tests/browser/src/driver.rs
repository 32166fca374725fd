//! Starts Chromium and its driver, and ends them.

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use fantoccini::{Client, ClientBuilder, wd::WebDriverCompatibleCommand};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use uuid::Uuid;

/// How often the driver is started at most. It takes a free port of IPv4, and ends if the same port
/// of IPv6 is in use.
const STARTS: u32 = 5;

pub struct Driver {
    process: Child,
    client: Client,
    profile: PathBuf,
}

impl Driver {
    /// Starts a browser with an empty profile. Returns `None` if there is no browser.
    pub async fn start(folder: &Path) -> Result<Option<Self>> {
        if !is_any_installed(&["chromium", "google-chrome"])? {
            return Ok(None);
        }
        let Some((process, port)) = start_chromedriver(folder).await? else { return Ok(None) };
        let profile = folder.join(format!("profile-{}", Uuid::new_v4()));
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            // The console is on the loopback. A proxy of the environment is not asked for it.
            "--no-proxy-server".to_owned(),
            "--window-size=1280,900".to_owned(),
            format!("--user-data-dir={}", profile.display()),
        ];
        let capabilities = json!({ "goog:chromeOptions": { "args": arguments } });
        let Value::Object(capabilities) = capabilities else { unreachable!("an object was written above") };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://localhost:{port}"))
            .await
            .context("chromium cannot be started")?;
        Ok(Some(Self { process, client, profile }))
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    pub async fn stop(mut self) -> Result<()> {
        self.client.close().await.context("the browser's session cannot be closed")?;
        self.process.kill().await.context("chromedriver cannot be ended")?;
        match fs::remove_dir_all(&self.profile) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("the profile stays"),
            _ => Ok(()),
        }
    }
}

/// The driver finds either of the two by itself.
fn is_any_installed(programs: &[&str]) -> Result<bool> {
    let path = env::var_os("PATH").context("there is no PATH")?;
    Ok(env::split_paths(&path).any(|folder| programs.iter().any(|program| folder.join(program).is_file())))
}

/// Starts the driver. Returns `None` if it is not installed.
async fn start_chromedriver(folder: &Path) -> Result<Option<(Child, u16)>> {
    let log = folder.join("chromedriver.log");
    let mut said = String::new();
    for _ in 0..STARTS {
        let errors = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).kill_on_drop(true);
        let mut process = match command.spawn() {
            Ok(process) => process,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("chromedriver cannot be started"),
        };
        match port_of(&mut process).await? {
            Ok(port) => return Ok(Some((process, port))),
            Err(output) => said = output,
        }
    }
    let errors = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    bail!("chromedriver has ended {STARTS} times at its start. The last time, it said:\n{said}{errors}")
}

/// Waits until the driver says on which port it listens. If it ends instead, returns what it has said.
async fn port_of(process: &mut Child) -> Result<Result<u16, String>> {
    let output = process.stdout.take().context("chromedriver has no output")?;
    let (mut lines, mut said) = (BufReader::new(output).lines(), String::new());
    while let Some(line) = lines.next_line().await.context("chromedriver's output cannot be read")? {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            return port.trim_end_matches('.').parse().map(Ok).context("chromedriver names no port");
        }
        said += &format!("{line}\n");
    }
    Ok(Err(said))
}

/// A command of Chromium's own, which WebDriver does not have.
#[derive(Debug)]
pub struct DevTools {
    pub command: &'static str,
    pub parameters: Value,
}

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        let body = json!({ "cmd": self.command, "params": self.parameters });
        (http::Method::POST, Some(body.to_string()))
    }
}
