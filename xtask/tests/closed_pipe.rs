//! Checks that a task ends without an error message when the reader of its output goes
//! away, as in `make token | true`.

use std::{
    fs,
    io::{Read, Write, pipe},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use serde_json::{Value, json};

/// Creates a checkout, and an emulator that answers every request with `response`. The
/// checkout's file `stack.json` names this emulator.
fn checkout(name: &str, response: &Value) -> PathBuf {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let body = response.to_string();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut request = [0; 65_536];
            assert_ne!(client.read(&mut request).expect("a request"), 0, "the client hung up");
            let length = body.len();
            write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
                .expect("a response");
        }
    });
    let names = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), json!("x"))).collect::<Value>();
    let stack = json!({
        "api_url": url, "services": {}, "emulator_url": url,
        "region": "us-east-1", "user_pool_id": "x", "client_id": "x",
        "tables": names(&["users", "products", "orders", "payments", "notifications", "sandbox_ledger"]),
        "queues": names(&["order_events", "dead_letter", "user_events", "user_events_dead_letter"]),
        "functions": names(&["users", "products", "orders", "order_worker", "payments", "notifications"]),
    });
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(root.join(".local")).expect("a folder");
    fs::write(root.join(".local/stack.json"), stack.to_string()).expect("a stack");
    fs::write(root.join(".local/passwords.json"), r#"{"ada@example.com":"x"}"#).expect("passwords");
    root
}

/// Runs a task with a standard output that is closed at the other end.
fn run_unread(root: &Path, task: &str) -> Output {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    xtask.arg(task).env("CARGO_MANIFEST_DIR", root.join("xtask")).stdin(Stdio::null()).stdout(writer);
    xtask.stderr(Stdio::piped()).output().expect("a task that ends")
}

fn standard_error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn token_succeeds_when_nobody_reads_its_output() {
    let root = checkout("token", &json!({ "AuthenticationResult": { "IdToken": "a.b.c" } }));
    let output = run_unread(&root, "token");
    assert!(output.status.success() && standard_error(&output).is_empty(), "{output:?}");
}

#[test]
fn logs_succeeds_when_its_reader_goes_away() {
    let response = json!({
        "logGroups": [{ "logGroupName": "/aws/lambda/holdfast/users" }],
        "events": [{ "timestamp": 1, "message": "a line" }],
    });
    let output = run_unread(&checkout("logs", &response), "logs");
    assert!(output.status.success() && standard_error(&output).lines().count() == 1, "{output:?}");
}

#[test]
fn demo_succeeds_when_its_reader_goes_away() {
    let response = json!({ "AuthenticationResult": { "IdToken": "a.b.c" }, "messages": [] });
    let output = run_unread(&checkout("demo", &response), "demo");
    assert!(output.status.success() && standard_error(&output).is_empty(), "{output:?}");
}

#[test]
fn a_task_with_unfinished_work_reports_it_by_its_exit_code_alone() {
    let output = run_unread(&checkout("clean", &json!({})), "clean");
    assert!(output.status.code() == Some(141) && standard_error(&output).is_empty(), "{output:?}");
}
