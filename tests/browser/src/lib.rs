//! A browser that looks at the console, for the tests.
//!
//! The variable `HOLDFAST_CONSOLE` has the address of a running console. `make test` starts one and
//! sets the variable. The browser is Chromium, as Debian packages it (`chromium` and
//! `chromium-driver`). Where it is not installed, a test says so and ends.

mod driver;

use std::{
    env, fs,
    panic::{AssertUnwindSafe, resume_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use fantoccini::{Client, Locator};
use futures::FutureExt;
use serde_json::{Value, json};

use crate::driver::{DevTools, Driver};

/// The maximum time for which a test waits. The worker takes over an order that was left open
/// after half a minute, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(300);
/// The pause between two looks at the page.
const PAUSE: Duration = Duration::from_millis(100);
/// The rules by which the page is checked for everybody's use. `make test` installs them.
const AXE: &str = "site-packages/axe_playwright_python/axe.min.js";
/// Where `make test` installs what requirements-console.txt pins.
const PACKAGES: &str = ".local/console/lib";
/// Collects, on each page that is opened, what the content security policy has blocked and each error
/// that nobody has handled.
const COLLECT_FAULTS: &str = "
    window.faults = [];
    addEventListener('securitypolicyviolation', (event) => faults.push(`blocked: ${event.violatedDirective} ${event.blockedURI}`), true);
    addEventListener('error', (event) => faults.push(`error: ${event.message}`));
    addEventListener('unhandledrejection', (event) => faults.push(`rejected: ${event.reason}`));";

/// How the page is shown.
#[derive(Clone, Copy)]
pub enum Scheme {
    Light,
    Dark,
}

/// A browser with one page.
pub struct Browser {
    client: Client,
    console: String,
    pictures: PathBuf,
    /// The script of axe-core.
    axe: String,
}

/// Runs a test in a browser of its own. Without a browser on this machine, says so and does nothing.
pub async fn in_browser(test: impl AsyncFnOnce(&Browser)) {
    let console = env::var("HOLDFAST_CONSOLE").expect("HOLDFAST_CONSOLE is an address; `make test` sets it");
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = checkout.join("target/browser");
    fs::create_dir_all(&target).expect("a folder for the pictures");
    // Chromium accepts no `..` in the path of its profile.
    let target = target.canonicalize().expect("the path of the folder");
    let Some(driver) = Driver::start(&target).await.expect("a browser that starts") else {
        println!("left out: chromium and chromedriver (Debian's chromium-driver) are not installed");
        return;
    };
    let axe = axe_in(&checkout.join(PACKAGES));
    let browser = Browser { client: driver.client(), console, pictures: target, axe };
    browser.dev_tools("Page.enable", json!({})).await;
    browser.dev_tools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": COLLECT_FAULTS })).await;
    let outcome = AssertUnwindSafe(test(&browser)).catch_unwind().await;
    if outcome.is_err() {
        browser.picture("failed").await;
    }
    driver.stop().await.expect("a browser that ends");
    outcome.unwrap_or_else(|panic| resume_unwind(panic));
}

/// The script of axe-core, which is below a folder that has Python's version in its name.
fn axe_in(packages: &Path) -> String {
    let versions = fs::read_dir(packages).unwrap_or_else(|error| panic!("{}: {error}", packages.display()));
    let mut files = versions.filter_map(|version| fs::read_to_string(version.ok()?.path().join(AXE)).ok());
    files.next().unwrap_or_else(|| panic!("{} has no axe-core; `make console` installs it", packages.display()))
}

impl Browser {
    /// Opens a view, such as `/#/shop`.
    pub async fn open(&self, path: &str) {
        self.client.goto(&format!("{}{path}", self.console)).await.expect("a page");
    }

    /// Shows the page in a window of this size.
    pub async fn resize(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.dev_tools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Sets what the system says about light and dark.
    pub async fn prefer(&self, scheme: Scheme) {
        let value = match scheme {
            Scheme::Light => "light",
            Scheme::Dark => "dark",
        };
        self.set_preference("prefers-color-scheme", value).await;
    }

    /// Asks the page to move nothing that need not move, as a setting of the system does.
    pub async fn prefer_reduced_motion(&self) {
        self.set_preference("prefers-reduced-motion", "reduce").await;
    }

    /// Sets a setting of the system that style sheets can ask for, and unsets the others.
    async fn set_preference(&self, name: &str, value: &str) {
        let features = json!([{ "name": name, "value": value }]);
        self.dev_tools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// From the next page on, answers the page's requests to `path` with `body`.
    pub async fn answer(&self, path: &str, body: &Value) {
        let script = format!(
            "const send = window.fetch;
             window.fetch = (target, ...rest) =>
                 new URL(target.url ?? target, location).pathname === {path:?} ? Promise.resolve(Response.json({body})) : send(target, ...rest);"
        );
        self.dev_tools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script })).await;
    }

    /// Runs a function's body in the page.
    pub async fn run(&self, body: &str, arguments: Vec<Value>) -> Value {
        self.client.execute(body, arguments).await.unwrap_or_else(|error| panic!("{body}: {error}"))
    }

    /// Runs the body of an asynchronous function in the page, and returns what it returns.
    pub async fn run_async(&self, body: &str, arguments: Vec<Value>) -> Value {
        let script = format!(
            "const done = arguments[arguments.length - 1];
             (async (...args) => {{ {body} }})(...arguments).then(done, (error) => done({{ failed: String(error) }}));"
        );
        let answer = self.client.execute_async(&script, arguments).await.expect("an answer of the page");
        assert!(answer["failed"].is_null(), "{body}: {}", answer["failed"]);
        answer
    }

    /// Sends a request from the page, as the page's own scripts do. Returns the body of the response.
    pub async fn request(&self, method: &str, path: &str, body: &Value) -> Value {
        let script = "
            const [method, path, body] = args;
            const headers = { 'content-type': 'application/json', 'idempotency-key': crypto.randomUUID() };
            const response = await fetch(path, { method, headers, body: body === null ? undefined : JSON.stringify(body) });
            const text = await response.text();
            if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
            return text ? JSON.parse(text) : null;";
        self.run_async(script, vec![json!(method), json!(path), body.clone()]).await
    }

    /// Whether an element with this text is there.
    pub async fn shows(&self, selector: &str, text: &str) -> bool {
        let script =
            "return [...document.querySelectorAll(arguments[0])].some((it) => it.textContent.includes(arguments[1]))";
        self.run(script, vec![json!(selector), json!(text)]).await == Value::Bool(true)
    }

    /// Waits until an element with this text is there.
    pub async fn wait_for(&self, selector: &str, text: &str) {
        let start = Instant::now();
        while !self.shows(selector, text).await {
            if start.elapsed() > PATIENCE {
                let page = self.run("return document.body.innerText", vec![]).await;
                panic!("no {selector} shows {text:?}. The page:\n{}", page.as_str().unwrap_or_default());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Clicks an element, as soon as it is there. The page may draw it anew in between.
    pub async fn click(&self, selector: &str) {
        let start = Instant::now();
        loop {
            let clicked = match self.client.find(Locator::Css(selector)).await {
                Ok(element) => {
                    // The page's head covers what is scrolled to the upper edge.
                    self.run(
                        "document.querySelector(arguments[0])?.scrollIntoView({ block: 'center' })",
                        vec![json!(selector)],
                    )
                    .await;
                    element.click().await
                }
                Err(error) => Err(error),
            };
            match clicked {
                Ok(()) => return,
                Err(error) if start.elapsed() > Duration::from_secs(20) => panic!("{selector}: {error}"),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Types into the element that has the focus.
    pub async fn press(&self, keys: &str) {
        let focused = self.client.active_element().await.expect("an element with the focus");
        focused.send_keys(keys).await.expect("keys that arrive");
    }

    /// Presses the tabulator until the element has the focus.
    pub async fn tab_to(&self, selector: &str) {
        for _ in 0..200 {
            let script = "return document.activeElement.matches(arguments[0])";
            if self.run(script, vec![json!(selector)]).await == Value::Bool(true) {
                return;
            }
            self.press(TAB).await;
        }
        panic!("the tabulator does not reach {selector}");
    }

    /// Takes a picture of the whole page: `target/browser/{name}.png`.
    pub async fn picture(&self, name: &str) {
        let size = "return [innerWidth, innerHeight, document.documentElement.scrollHeight]";
        let size = self.run(size, vec![]).await;
        let pixels = |index: usize| u32::try_from(size[index].as_u64().unwrap_or_default()).unwrap_or_default();
        let (width, height, whole) = (pixels(0), pixels(1), pixels(2));
        // Chromium draws a frame only if it is in sight.
        self.resize(width, whole).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.picture_of_window(name).await;
        self.resize(width, height).await;
    }

    /// Takes a picture of what the window shows: `target/browser/{name}.png`.
    pub async fn picture_of_window(&self, name: &str) {
        let answer = self.dev_tools("Page.captureScreenshot", json!({})).await;
        let png = BASE64_STANDARD.decode(answer["data"].as_str().expect("a picture")).expect("base64");
        fs::write(self.pictures.join(format!("{name}.png")), png).expect("a picture that is stored");
    }

    /// Checks that everybody can use what is shown, that nothing is wider than the window, that the
    /// content security policy has blocked nothing, and that no error was left unhandled.
    pub async fn check(&self, view: &str) {
        self.client.execute(&self.axe, vec![]).await.expect("axe-core runs");
        // E-mails are in frames that run no script.
        let script = "
            const { violations } = await axe.run(document, { iframes: false });
            return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join(' ').slice(0, 600)}`);";
        let violations = self.run_async(script, vec![]).await;
        assert_eq!(violations, json!([]), "axe-core finds in {view}");
        let too_wide = self
            .run("return document.documentElement.scrollWidth - document.documentElement.clientWidth", vec![])
            .await;
        assert_eq!(too_wide, json!(0), "{view} is wider than its window");
        assert_eq!(self.run("return window.faults", vec![]).await, json!([]), "faults of {view}");
    }

    async fn dev_tools(&self, command: &'static str, parameters: Value) -> Value {
        let answer = self.client.issue_cmd(DevTools { command, parameters }).await;
        answer.unwrap_or_else(|error| panic!("{command}: {error}"))
    }
}

/// The tabulator key.
pub const TAB: &str = "\u{E004}";
/// The enter key.
pub const ENTER: &str = "\u{E007}";
/// The key that counts a number up.
pub const ARROW_UP: &str = "\u{E013}";
/// The space key.
pub const SPACE: &str = " ";
