//! The part of Lambda's Runtime API that a function uses, and the process of one
//! function below it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use axum::{
    Router,
    body::Body,
    extract::State,
    response::Response,
    routing::{get, post},
};
use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    process::{Child, Command},
    sync::{Mutex, mpsc},
    task::JoinHandle,
    time::timeout,
};

use super::{emulated_aws, programs};

/// A process that takes longer than this is stuck. Under valgrind a process is fifty
/// times slower.
const PATIENCE: Duration = Duration::from_secs(600);
/// The time until the deadline of each invocation. It is long, because a function under
/// valgrind must not run into its deadline.
const DEADLINE: Duration = Duration::from_secs(600);

/// The environment variables that Lambda sets for each function.
const LAMBDA_ENVIRONMENT: &[(&str, &str)] = &[
    ("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE"),
    ("AWS_DEFAULT_REGION", "us-east-1"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
    ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
    ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
    ("AWS_LAMBDA_LOG_STREAM_NAME", "2026/11/26/[1]00000000000000000000000000000000"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_SECRET_ACCESS_KEY", "example"),
    ("AWS_SESSION_TOKEN", "example"),
    ("LANG", "en_US.UTF-8"),
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("TZ", ":UTC"),
    ("_HANDLER", "bootstrap"),
];

/// Another program that runs the function's program and observes it.
#[derive(Clone, Debug)]
pub struct Observer {
    pub program: &'static str,
    pub arguments: Vec<String>,
}

/// How a process is started.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The address that the process calls in place of AWS.
    pub endpoint: Option<String>,
    /// The program that observes the process.
    pub observer: Option<Observer>,
}

/// The process of a function, which waits for an event.
pub struct Process {
    name: String,
    child: Child,
    /// The time from the start of the process to its first request for an event.
    pub init: Duration,
    requests: mpsc::UnboundedReceiver<Instant>,
    events: mpsc::UnboundedSender<String>,
    answers: mpsc::UnboundedReceiver<(Instant, Result<String>)>,
    server: JoinHandle<()>,
    log: PathBuf,
}

struct RuntimeApi {
    requests: mpsc::UnboundedSender<Instant>,
    events: Mutex<mpsc::UnboundedReceiver<String>>,
    answers: mpsc::UnboundedSender<(Instant, Result<String>)>,
}

impl Process {
    /// Starts a program with the environment that the template gives to `function`.
    /// Returns the process once it has asked for its first event.
    ///
    /// # Errors
    ///
    /// If the process ends, or asks for no event.
    pub async fn start(program: &str, function: &str, how: &Start) -> Result<Self> {
        let (requests, mut requested) = mpsc::unbounded_channel();
        let (send_event, events) = mpsc::unbounded_channel();
        let (answers, answered) = mpsc::unbounded_channel();
        let api = Arc::new(RuntimeApi { requests, events: Mutex::new(events), answers });
        let routes = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
            .route("/2018-06-01/runtime/init/error", post(error))
            .with_state(api);
        let (address, server) = emulated_aws::serve(routes).await?;

        let logs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bench"));
        fs::create_dir_all(logs)?;
        let log = logs.join(format!("{program}.log"));
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let file = programs::file(program)?;
        let mut command = match &how.observer {
            None => Command::new(&file),
            Some(observer) => {
                let mut command = Command::new(observer.program);
                command.args(&observer.arguments).arg(&file);
                command
            }
        };
        command
            .env_clear()
            .envs(LAMBDA_ENVIRONMENT.iter().copied())
            .envs(in_process_tests::world::environment(function))
            .env("RUST_LOG", "info")
            .env("AWS_LAMBDA_FUNCTION_NAME", function)
            .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{function}"))
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .envs(how.endpoint.iter().map(|url| ("AWS_ENDPOINT_URL", url)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true);
        let began = Instant::now();
        let mut child = command.spawn().with_context(|| format!("{} does not start", file.display()))?;
        let first = tokio::select! {
            first = timeout(PATIENCE, requested.recv()) => first.ok().flatten(),
            _ = child.wait() => None,
        };
        let Some(first) = first else {
            bail!("{program} has asked for no event; its output is in {}", log.display());
        };
        Ok(Self {
            name: program.to_owned(),
            child,
            init: first - began,
            requests: requested,
            events: send_event,
            answers: answered,
            server,
            log,
        })
    }

    /// Invokes the function, and waits until it asks for the next event. Returns the time
    /// from the event to the response.
    ///
    /// # Errors
    ///
    /// If the function fails, or its response is no success.
    pub async fn invoke(&mut self, event: &str) -> Result<Duration> {
        let began = Instant::now();
        self.events.send(event.to_owned())?;
        let answer = timeout(PATIENCE, self.answers.recv()).await.ok().flatten();
        let outcome = match answer {
            None => Err(anyhow::anyhow!("there is no response")),
            Some((at, answer)) => answer.and_then(|answer| check(&answer)).map(|()| at - began),
        };
        let about = || format!("{} fails; its output is in {}", self.name, self.log.display());
        let time = outcome.with_context(about)?;
        timeout(PATIENCE, self.requests.recv()).await.ok().flatten().with_context(about)?;
        Ok(time)
    }

    /// The peak of the process's resident memory, in bytes.
    ///
    /// # Errors
    ///
    /// If the system does not report it.
    pub fn peak_memory(&self) -> Result<u64> {
        let id = self.child.id().context("the process has ended")?;
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        Ok(peak.context("the system reports no VmHWM")?.trim().parse::<u64>()? * 1024)
    }

    /// Ends the process, or the program that observes it, with SIGTERM.
    ///
    /// # Errors
    ///
    /// If the process does not end.
    pub async fn end(mut self) -> Result<()> {
        let id = self.child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).context("the process has ended")?;
        kill_process(id, Signal::TERM)?;
        timeout(PATIENCE, self.child.wait()).await.context("the process does not end")??;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Checks that a function's response reports a success.
fn check(answer: &str) -> Result<()> {
    let document: Value = serde_json::from_str(answer).context("the response is no JSON document")?;
    let status = document["statusCode"].as_u64();
    ensure!(status.is_none_or(|status| (200..300).contains(&status)), "the response is {answer}");
    let failures = document["batchItemFailures"].as_array();
    ensure!(failures.is_none_or(Vec::is_empty), "the response is {answer}");
    Ok(())
}

async fn next(State(api): State<Arc<RuntimeApi>>) -> Response {
    let now = Instant::now();
    // If nobody waits for the request, the measurement has ended.
    api.requests.send(now).ok();
    let Some(event) = api.events.lock().await.recv().await else { return with_status(StatusCode::GONE) };
    let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + DEADLINE;
    let id = uuid::Uuid::new_v4();
    let mut response = Response::new(Body::from(event));
    let headers: BTreeMap<&'static str, String> = [
        ("content-type", "application/json".to_owned()),
        ("lambda-runtime-aws-request-id", id.to_string()),
        ("lambda-runtime-deadline-ms", deadline.as_millis().to_string()),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:bench:live".to_owned()),
        ("lambda-runtime-trace-id", format!("Root=1-6742f1d5-{:024x};Sampled=0", id.as_u128() >> 32)),
    ]
    .into();
    for (name, value) in headers {
        match value.parse() {
            Ok(value) => response.headers_mut().insert(name, value),
            Err(_) => return with_status(StatusCode::INTERNAL_SERVER_ERROR),
        };
    }
    response
}

async fn response(State(api): State<Arc<RuntimeApi>>, answer: String) -> Response {
    api.answers.send((Instant::now(), Ok(answer))).ok();
    with_status(StatusCode::ACCEPTED)
}

async fn error(State(api): State<Arc<RuntimeApi>>, error: String) -> Response {
    api.answers.send((Instant::now(), Err(anyhow::anyhow!("the function reports {error}")))).ok();
    with_status(StatusCode::ACCEPTED)
}

fn with_status(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
