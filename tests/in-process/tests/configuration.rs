//! The environment variables of the functions: `docs/configuration.md` lists the
//! variables that the code reads, and `template.yaml` sets them.

use std::collections::{BTreeMap, BTreeSet};

use chassis::{
    config::{Configuration, Presence, Variable},
    function::FunctionConfig,
};
use in_process_tests::{
    generated_region,
    template::{Template, entries, list},
};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
/// The lines of the document around the table that this test writes.
const BEGIN: &str = "<!-- The following table is generated from the code. -->\n\n";
const END: &str = "\n<!-- The generated table ends here. -->\n";

/// The variables that a function reads: the variables of its configuration `C`, and
/// the variables that every function reads.
fn variables<C: Configuration>() -> Vec<Variable> {
    <(FunctionConfig, C)>::variables()
}

/// The variables that each function reads, by the name of its program.
fn functions() -> BTreeMap<&'static str, Vec<Variable>> {
    BTreeMap::from([
        ("notifications", variables::<notifications::config::Config>()),
        ("order-worker", variables::<orders::config::OrderWorkerConfig>()),
        ("orders", variables::<orders::config::OrdersConfig>()),
        ("payments", variables::<payments::config::Config>()),
        ("products", variables::<products::config::Config>()),
        ("users", variables::<users::config::Config>()),
    ])
}

/// The table of all variables, in Markdown.
fn table() -> String {
    let mut readers = BTreeMap::<Variable, BTreeSet<&str>>::new();
    for (function, variables) in functions() {
        for variable in variables {
            assert!(readers.entry(variable).or_default().insert(function), "{function} reads {} twice", variable.name);
        }
    }
    let names: BTreeSet<_> = readers.keys().map(|variable| variable.name).collect();
    assert_eq!(names.len(), readers.len(), "a variable has different meanings in two functions");
    let all: BTreeSet<_> = functions().into_keys().collect();
    let rows = readers.iter().map(|(variable, readers)| {
        let absent: Vec<_> = all.difference(readers).copied().collect();
        let readers = match absent[..] {
            [] => "all".to_owned(),
            [function] => format!("all but {function}"),
            _ => readers.iter().copied().collect::<Vec<_>>().join(", "),
        };
        let presence = match variable.presence {
            Presence::Required => "the function doesn't start".to_owned(),
            Presence::Default(default) => format!("`{default}`"),
            Presence::Optional => "no value is needed".to_owned(),
        };
        format!("| `{}` | {readers} | {} | {presence} |\n", variable.name, variable.expected)
    });
    format!("| variable | read by | value | if it is missing |\n|---|---|---|---|\n{}", rows.collect::<String>())
}

#[test]
fn the_document_lists_the_variables_that_the_code_reads() {
    generated_region::check(DOCUMENT, (BEGIN, END), &table(), "configuration");
}

#[test]
fn the_template_sets_every_required_variable_and_no_unknown_variable() {
    let template = Template::read();
    let read = functions();
    for function in template.functions() {
        let own = entries(&function.properties["Environment"]["Variables"]).map(|(name, _)| name);
        let mut ignored = list(&template.get("Resources")[function.id]["IgnoreGlobals"]);
        let ignores_globals = ignored.any(|section| section == "Environment");
        let global = entries(template.get("Globals.Function.Environment.Variables")).map(|(name, _)| name);
        let set: BTreeSet<_> = own.chain(global.filter(|_| !ignores_globals)).collect();
        let variables = &read[function.name];
        let required = variables.iter().filter(|variable| variable.presence == Presence::Required);
        let required: BTreeSet<_> = required.map(|variable| variable.name).collect();
        let known: BTreeSet<_> = variables.iter().map(|variable| variable.name).collect();
        assert!(
            required.is_subset(&set),
            "the template doesn't set, for {}: {:?}",
            function.name,
            required.difference(&set)
        );
        assert!(set.is_subset(&known), "{} doesn't read the variables {:?}", function.name, set.difference(&known));
    }
    assert_eq!(template.functions().count(), read.len());
}
