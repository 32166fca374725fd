//! The configuration of `cargo lambda watch` in `Cargo.toml` agrees with
//! `template.yaml`.

use std::{collections::BTreeSet, process::Command};

use in_process_tests::template::{Template, entries, list};
use serde_json::{Value, json};

/// A method, a path, and the program that serves the route.
type Route = (String, String, String);

/// The table `[workspace.metadata.lambda.watch]` of `Cargo.toml`.
fn watch() -> Value {
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    let output = metadata.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["metadata"]["lambda"]["watch"].clone()
}

/// The routes of `cargo lambda watch`.
fn watched() -> BTreeSet<Route> {
    let watch = watch();
    let routes = entries(&watch["router"]).flat_map(|(path, routes)| {
        list(routes).map(move |route| {
            let text = |name: &str| route[name].as_str().unwrap().to_owned();
            (text("method"), path.to_owned(), text("function"))
        })
    });
    let routes: Vec<Route> = routes.collect();
    let unique: BTreeSet<_> = routes.iter().cloned().collect();
    assert_eq!(routes.len(), unique.len(), "a route is listed twice");
    unique
}

#[test]
fn cargo_lambda_watch_has_exactly_the_routes_for_people_and_for_services() {
    let template = Template::read();
    let program = |id: &str| template.functions().find(|function| function.id == id).unwrap().name.to_owned();
    let public = template.routes().map(|route| (route.method, route.path, route.function));
    let internal = template.internal_routes().map(|route| (route.method, route.path, route.function));
    let deployed: BTreeSet<Route> =
        public.chain(internal).map(|(method, path, id)| (method.into(), path.into(), program(id))).collect();
    assert!(deployed.len() > 20, "the template's routes were not found");
    assert_eq!(watched(), deployed);
}

#[test]
fn cargo_lambda_watch_adds_no_cors_headers_to_those_of_the_functions() {
    assert_eq!(watch()["disable_cors"], json!(true));
}
