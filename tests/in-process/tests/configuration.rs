//! What can be set of the functions: the document says what the code reads,
//! and the template sets it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use chassis::config::{Configuration, Presence, Variable};
use in_process_tests::template::{Template, entries, list};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
/// Between these lines of the document is what this test writes.
const BEGIN: &str = "<!-- What follows is generated from the code. -->\n\n";
const END: &str = "\n<!-- Up to here. -->\n";

/// What each function reads, by the name of its program.
fn functions() -> BTreeMap<&'static str, Vec<Variable>> {
    BTreeMap::from([
        ("notifications", notifications::config::Config::variables()),
        ("order-worker", orders::config::OrderWorkerConfig::variables()),
        ("orders", orders::config::OrdersConfig::variables()),
        ("payments", payments::config::Config::variables()),
        ("products", products::config::Config::variables()),
        ("users", users::config::Config::variables()),
    ])
}

/// The table of all variables.
fn table() -> String {
    let mut readers = BTreeMap::<Variable, BTreeSet<&str>>::new();
    for (function, variables) in functions() {
        for variable in variables {
            assert!(readers.entry(variable).or_default().insert(function), "{function} reads {} twice", variable.name);
        }
    }
    let names: BTreeSet<_> = readers.keys().map(|variable| variable.name).collect();
    assert_eq!(names.len(), readers.len(), "a name means different things to different functions");
    let all: BTreeSet<_> = functions().into_keys().collect();
    let rows = readers.iter().map(|(variable, readers)| {
        let absent: Vec<_> = all.difference(readers).copied().collect();
        let readers = match absent[..] {
            [] => "all".to_owned(),
            [one] => format!("all but {one}"),
            _ => readers.iter().copied().collect::<Vec<_>>().join(", "),
        };
        let presence = match variable.presence {
            Presence::Required => "it doesn't start".to_owned(),
            Presence::Default(default) => format!("`{default}`"),
            Presence::Optional => "it does without".to_owned(),
        };
        format!("| `{}` | {readers} | {} | {presence} |\n", variable.name, variable.expected)
    });
    format!("| variable | read by | holds | without it |\n|---|---|---|---|\n{}", rows.collect::<String>())
}

#[test]
fn the_document_lists_what_the_code_reads() {
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the line before the table");
    let (written, after) = rest.split_once(END).expect("the line after the table");
    if std::env::var_os("HOLDFAST_UPDATE").is_some() {
        fs::write(DOCUMENT, format!("{before}{BEGIN}{}{END}{after}", table())).unwrap();
    } else {
        assert_eq!(
            written,
            table(),
            "HOLDFAST_UPDATE=1 cargo test -p in-process-tests --test configuration writes it anew"
        );
    }
}

#[test]
fn the_template_sets_what_each_function_needs_and_nothing_that_none_reads() {
    let template = Template::read();
    let read = functions();
    for function in template.functions() {
        let own = entries(&function.properties["Environment"]["Variables"]).map(|(name, _)| name);
        let without =
            |part: &str| list(&template.get("Resources")[function.id]["IgnoreGlobals"]).any(|one| one == part);
        let of_all = entries(template.get("Globals.Function.Environment.Variables")).map(|(name, _)| name);
        let set: BTreeSet<_> = own.chain(of_all.filter(|_| !without("Environment"))).collect();
        let variables = &read[function.name];
        let needed = variables.iter().filter(|variable| variable.presence == Presence::Required);
        let needed: BTreeSet<_> = needed.map(|variable| variable.name).collect();
        let known: BTreeSet<_> = variables.iter().map(|variable| variable.name).collect();
        assert!(needed.is_subset(&set), "{} lacks {:?}", function.name, needed.difference(&set));
        assert!(set.is_subset(&known), "{} doesn't read {:?}", function.name, set.difference(&known));
    }
    assert_eq!(template.functions().count(), read.len());
}
