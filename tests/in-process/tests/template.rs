//! Rules that the template keeps.

use std::collections::{BTreeMap, BTreeSet};

use chassis::{
    contact::Email,
    cors::{ANSWER_HEADERS, Origin, REQUEST_HEADERS},
};
use in_process_tests::{
    template::{Function, Template, entries, list, logical_id},
    world::configured,
};
use proptest::{
    strategy::{Strategy, ValueTree},
    string::string_regex,
    test_runner::TestRunner,
};
use serde_json::{Value, json};

/// Who is asked for nothing: readers of the catalogue, and whoever wants to
/// know that a service is there.
const OPEN: [(&str, &str); 7] = [
    ("GET", "/products"),
    ("GET", "/products/{id}"),
    ("GET", "/health/users"),
    ("GET", "/health/products"),
    ("GET", "/health/orders"),
    ("GET", "/health/payments"),
    ("GET", "/health/notifications"),
];

/// What services do for each other, and nobody else.
const INTERNAL: [(&str, &str); 8] = [
    ("GET", "/payments/{id}"),
    ("POST", "/users/{id}/validate"),
    ("POST", "/payments"),
    ("POST", "/payments/{id}/cancel"),
    ("POST", "/payments/{id}/capture"),
    ("POST", "/payments/{id}/erase-recipient"),
    ("POST", "/products/reserve"),
    ("POST", "/reservations/{id}/release"),
];

/// A property of a function: its own, or what all functions have.
fn property<'a>(template: &'a Template, function: &Function<'a>, name: &str) -> &'a Value {
    match &function.properties[name] {
        Value::Null => template.get("Globals.Function").get(name).unwrap_or(&Value::Null),
        own => own,
    }
}

fn seconds(template: &Template, function: &Function<'_>) -> u64 {
    property(template, function, "Timeout").as_u64().expect("a timeout in seconds")
}

/// The value that a condition chooses, by what `true` is said of it.
fn chosen<'a>(value: &'a Value, condition: &str, holds: bool) -> &'a Value {
    let choice = value["Fn::If"].as_array().unwrap_or_else(|| panic!("{value} is no choice"));
    assert_eq!(choice[0], condition, "{value}");
    &choice[if holds { 1 } else { 2 }]
}

/// The parameters and resources that a value is made of.
fn names(value: &Value) -> BTreeSet<&str> {
    let all: BTreeSet<_> = match value {
        Value::Array(members) => members.iter().flat_map(names).collect(),
        Value::Object(members) => members.iter().flat_map(|(function, operand)| of_call(function, operand)).collect(),
        _ => BTreeSet::new(),
    };
    let whole = all.into_iter().map(|name| name.split('.').next().unwrap_or(name));
    whole.filter(|name| !name.starts_with("AWS::")).collect()
}

fn of_call<'a>(function: &str, operand: &'a Value) -> BTreeSet<&'a str> {
    match (function, operand) {
        ("Ref" | "Fn::GetAtt", Value::String(name)) => BTreeSet::from([name.as_str()]),
        ("Fn::Sub", Value::String(text)) => variables(text).collect(),
        ("Fn::Sub", Value::Array(text)) => {
            let (text, own) = (text[0].as_str().expect("a text"), &text[1]);
            let of_own = names(own);
            variables(text).filter(|name| own[name].is_null()).chain(of_own).collect()
        }
        // The condition's own name is none of them.
        ("Fn::If", Value::Array(choice)) => choice[1..].iter().flat_map(names).collect(),
        _ => names(operand),
    }
}

/// What stands between `${` and `}`.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split("${").skip(1).filter_map(|rest| rest.split('}').next())
}

mod a_route {
    use super::*;

    #[test]
    fn wants_to_know_who_is_calling_unless_it_is_for_everybody() {
        let template = Template::read();
        let auth = template.get("Resources.PublicApi.Properties.Auth");
        assert_eq!(auth["DefaultAuthorizer"], "Customers");
        assert_eq!(logical_id(&auth["Authorizers"]["Customers"]["UserPoolArn"]), "UserPool");
        assert_eq!(template.get("Resources.InternalApi.Properties.Auth.DefaultAuthorizer"), "AWS_IAM");

        let mut open = BTreeSet::new();
        for route in template.routes() {
            if route.auth.is_null() {
                continue; // As its API has it.
            }
            assert_eq!(route.auth, &json!({ "Authorizer": "NONE" }), "{route:?}");
            assert_eq!(route.api, "PublicApi", "{route:?}");
            open.insert((route.method, route.path));
        }
        assert_eq!(open, BTreeSet::from(OPEN));
    }

    #[test]
    fn between_services_is_not_on_the_public_api() {
        let template = Template::read();
        let of = |api: &'static str| -> BTreeSet<_> {
            template.routes().filter(|route| route.api == api).map(|route| (route.method, route.path)).collect()
        };
        assert_eq!(of("InternalApi"), BTreeSet::from(INTERNAL));
        // Services read a payment as its owner does, with their own authorizer.
        let both: Vec<_> = of("InternalApi").intersection(&of("PublicApi")).copied().collect();
        assert_eq!(both, [("GET", "/payments/{id}")]);
    }

    #[test]
    fn between_services_is_invoked_by_some_role_and_no_role_invokes_what_is_no_route() {
        let template = Template::read();
        let mut invoked = BTreeSet::new();
        for statement in template.statements().filter(|statement| statement.actions == ["execute-api:Invoke"]) {
            assert!(["OrdersRole", "OrderWorkerRole"].contains(&statement.role), "{statement:?}");
            for resource in statement.resources {
                let name = resource["Fn::Sub"].as_str().unwrap();
                let (_, route) = name.split_once("${InternalApi}/v1/").unwrap_or_else(|| panic!("{name}"));
                invoked.insert(route.to_owned());
            }
        }
        let routes = INTERNAL.map(|(method, path)| format!("{method}{}", path.replace("{id}", "*")));
        let routes: BTreeSet<_> = routes.into_iter().filter(|route| route != "GET/payments/*").collect();
        assert_eq!(invoked, routes);
    }

    #[test]
    fn is_throttled_and_the_one_that_places_orders_more_than_others() {
        let template = Template::read();
        let settings = template.get("Resources.PublicApi.Properties.MethodSettings").as_array().unwrap();
        let limit = |setting: &Value, name: &str| {
            let parameter = setting[name]["Ref"].as_str().unwrap();
            match template.get(&format!("Parameters.{parameter}.Default")) {
                Value::String(text) => text.parse().unwrap(),
                number => number.as_u64().unwrap(),
            }
        };
        let limits = |setting| (limit(setting, "ThrottlingRateLimit"), limit(setting, "ThrottlingBurstLimit"));
        let [all, orders] = settings.as_slice() else { panic!("{settings:?}") };
        assert_eq!((&all["HttpMethod"], &all["ResourcePath"]), (&json!("*"), &json!("/*")));
        assert_eq!(orders["HttpMethod"], "POST");
        assert_eq!(chosen(&orders["ResourcePath"], "IsLocal", false), "/~1orders");
        assert!(limits(orders).0 < limits(all).0 && limits(orders).1 < limits(all).1);
    }

    #[test]
    fn is_logged_without_a_word_of_who_it_was() {
        let template = Template::read();
        for (api, also) in [("PublicApi", None), ("InternalApi", Some("identity.userArn"))] {
            let setting = template.get(&format!("Resources.{api}.Properties.AccessLogSetting"));
            let format = chosen(setting, "HasAccessLogs", true)["Format"].as_str().unwrap();
            let entry: Value = serde_json::from_str(format).unwrap_or_else(|error| panic!("{format}: {error}"));
            let said: BTreeSet<_> = entries(&entry).map(|(_, value)| value.as_str().unwrap()).collect();
            let harmless = [
                "requestId",
                "requestTime",
                "httpMethod",
                "resourcePath",
                "status",
                "responseLatency",
                "integrationLatency",
                "error.responseType",
            ];
            let harmless = harmless.into_iter().chain(also).map(|name| format!("$context.{name}"));
            assert_eq!(said, harmless.collect::<BTreeSet<_>>().iter().map(String::as_str).collect(), "{api}");
        }
    }

    #[test]
    fn answers_no_browser_unless_an_origin_is_named() {
        let template = Template::read();
        assert_eq!(template.get("Parameters.CorsOrigin.Default"), "");
        let cors = template.get("Resources.PublicApi.Properties.Cors");
        assert_eq!(chosen(&cors["AllowOrigin"], "HasCorsOrigin", true), &json!({ "Fn::Sub": "'${CorsOrigin}'" }));
        // RFC 6761 gives names below `invalid` to nobody. Without any value
        // SAM would answer every origin.
        assert_eq!(chosen(&cors["AllowOrigin"], "HasCorsOrigin", false), "'https://nowhere.invalid'");
        // A page may read an answer only if that names its origin, too.
        assert_eq!(template.get("Globals.Function.Environment.Variables.CORS_ORIGIN"), &json!({ "Ref": "CorsOrigin" }));
        assert!(template.get("Resources.InternalApi.Properties.Cors").is_null());
    }

    /// The names in a header's value, which the template writes in quotes.
    fn listed(value: &Value) -> BTreeSet<&str> {
        value.as_str().unwrap().trim_matches('\'').split(',').collect()
    }

    #[test]
    fn lets_a_page_send_and_read_through_the_gateway_what_the_functions_let_it() {
        let template = Template::read();
        let cors = template.get("Resources.PublicApi.Properties.Cors");
        assert_eq!(
            listed(&cors["AllowHeaders"]),
            REQUEST_HEADERS.map(|name| name.to_string()).iter().map(String::as_str).collect()
        );
        let exposed = ANSWER_HEADERS.map(|name| name.to_string());
        let exposed: BTreeSet<_> = exposed.iter().map(String::as_str).collect();
        let mut names = BTreeSet::new();
        for (kind, response) in entries(template.get("Resources.PublicApi.Properties.GatewayResponses")) {
            let headers = &response["ResponseParameters"]["Headers"];
            assert_eq!(headers["Access-Control-Allow-Origin"], cors["AllowOrigin"], "{kind}");
            assert_eq!(listed(&headers["Access-Control-Expose-Headers"]), exposed, "{kind}");
            names.insert(kind);
            // An emulator has the same from a resource of its own.
            let mut local = template.resources("AWS::ApiGateway::GatewayResponse");
            let local = local.find(|(_, local)| local["Properties"]["ResponseType"] == kind);
            let (_, local) = local.unwrap_or_else(|| panic!("no emulator has {kind}"));
            let local: BTreeMap<_, _> = entries(&local["Properties"]["ResponseParameters"])
                .map(|(name, value)| (name.strip_prefix("gatewayresponse.header.").unwrap(), value))
                .collect();
            assert_eq!(local, entries(headers).collect(), "{kind}");
        }
        // Whatever the gateway refuses by itself is one of these, or falls under
        // the two defaults.
        assert!(names.is_superset(&BTreeSet::from(["DEFAULT_4XX", "DEFAULT_5XX", "THROTTLED", "UNAUTHORIZED"])));
    }
}

mod a_function {
    use super::*;

    #[test]
    fn has_a_role_a_log_group_a_timeout_and_memory_of_its_own() {
        let template = Template::read();
        let (mut roles, mut groups) = (BTreeSet::new(), BTreeSet::new());
        for function in template.functions() {
            roles.insert(function.role());
            groups.insert(logical_id(&function.properties["LoggingConfig"]["LogGroup"]));
            assert!(property(&template, &function, "MemorySize").is_u64(), "{}", function.id);
            // The gateway gives up after 29 seconds.
            let longest =
                if function.events("Api").next().is_some() && function.id != "Notifications" { 28 } else { 900 };
            assert!((1..=longest).contains(&seconds(&template, &function)), "{}", function.id);
        }
        let count = template.functions().count();
        assert_eq!((roles.len(), groups.len()), (count, count));
    }

    #[test]
    fn that_others_call_believes_nothing_but_their_signature() {
        let template = Template::read();
        for function in template.functions() {
            let mode = &function.properties["Environment"]["Variables"]["INTERNAL_AUTH"];
            let called = template.routes().any(|route| route.api == "InternalApi" && route.function == function.id);
            assert_eq!(mode, &if called { json!("iam") } else { Value::Null }, "{}", function.id);
        }
        assert!(template.get("Globals.Function.Environment.Variables.INTERNAL_AUTH").is_null());
    }

    #[test]
    fn that_nobody_waits_for_has_an_end_to_its_retries_and_something_that_follows() {
        let template = Template::read();
        for function in template.functions() {
            for event in function.events("SQS") {
                let queue = template.get("Resources").get(logical_id(&event["Queue"])).unwrap();
                let redrive = &queue["Properties"]["RedrivePolicy"];
                assert!(redrive["maxReceiveCount"].as_u64().unwrap() <= 10);
                let dead = template.get("Resources").get(logical_id(&redrive["deadLetterTargetArn"])).unwrap();
                assert_eq!(dead["Properties"]["MessageRetentionPeriod"], 14 * 24 * 3600);
                // One bad message fails alone.
                assert_eq!(event["FunctionResponseTypes"], json!(["ReportBatchItemFailures"]));
                assert!(queue["Properties"]["MessageRetentionPeriod"].as_u64().unwrap() < 14 * 24 * 3600);
                // More at once than are reserved, and good messages that were
                // turned away five times are dead letters.
                let at_once = &event["ScalingConfig"]["MaximumConcurrency"];
                if function.id == "OrderWorker" {
                    assert_eq!(at_once, 2, "a rule keeps so many free beside the streams and the sweep");
                    continue;
                }
                let reserved = &function.properties["ReservedConcurrentExecutions"];
                let condition = format!("Reserves{}", function.id);
                assert_eq!(names(chosen(at_once, &condition, true)), names(chosen(reserved, &condition, true)));
                assert!(chosen(at_once, &condition, false).is_u64());
                // Lambda takes 2 to 1000, or nothing.
                let parameter = logical_id(chosen(reserved, &condition, true));
                for (text, good) in [("0", true), ("1", false), ("2", true), ("1000", true), ("1001", false)] {
                    assert_eq!(template.takes(parameter, text), good, "{parameter}={text}");
                }
            }
            for event in function.events("DynamoDB") {
                assert!(event["MaximumRetryAttempts"].is_u64() && event["MaximumRecordAgeInSeconds"].is_u64());
                // What the stream gives up, the sweep finds.
                assert!(function.events("ScheduleV2").next().is_some(), "{}", function.id);
            }
            for event in function.events("ScheduleV2") {
                assert!(event["RetryPolicy"]["MaximumRetryAttempts"].is_u64());
                // CloudFormation makes one that fits, whatever the stack is called.
                assert_eq!((&event["Name"], &event["OmitName"]), (&Value::Null, &json!(true)), "{}", function.id);
                let invoked = &function.properties["EventInvokeConfig"];
                assert!(invoked["MaximumRetryAttempts"].is_u64(), "{}", function.id);
                // What is turned away piles up for no longer than until the next.
                assert_eq!(event["ScheduleExpression"], "rate(1 minute)");
                assert_eq!(invoked["MaximumEventAgeInSeconds"], 60, "{}", function.id);
            }
        }
    }

    #[test]
    fn has_six_times_its_timeout_before_a_message_is_delivered_again() {
        let template = Template::read();
        let mut consumers = 0;
        for function in template.functions() {
            for event in function.events("SQS") {
                let queue = template.get("Resources").get(logical_id(&event["Queue"])).unwrap();
                assert_eq!(queue["Properties"]["VisibilityTimeout"], 6 * seconds(&template, &function));
                consumers += 1;
            }
        }
        assert_eq!(consumers, 2);
    }

    #[test]
    fn is_invoked_by_its_alias_which_new_settings_reach_too() {
        let template = Template::read();
        let globals = template.get("Globals.Function");
        assert_eq!(globals["AutoPublishAlias"], "live");
        assert_eq!(globals["AutoPublishAliasAllProperties"], true);
        for function in template.functions() {
            let mut ignored = list(&template.get("Resources").get(function.id).unwrap()["IgnoreGlobals"]);
            let alone = ignored.any(|name| name == "Environment");
            let shared = if alone { &Value::Null } else { &globals["Environment"] };
            let used = &names(&function.properties["Environment"]) | &names(shared);
            let told = names(&function.properties["VersionDescription"]);
            // What settings are made of is another version when it changes, and
            // only then: Lambda publishes none of what it has published.
            assert_eq!(told, used, "{}", function.id);
        }
    }

    #[test]
    fn describes_its_versions_in_no_more_characters_than_lambda_takes() {
        let template = Template::read();
        // The most that a value has on AWS, whatever the stack is called.
        let longest = |name: &str| match name {
            "LocalEndpoint" => 0,
            "UserPool" => "ap-southeast-2_123456789".len(),
            "UserPoolClient" => 26,
            "InternalApi" => 10,
            "OrderEventsQueue.QueueName" => 80,
            parameter => {
                let most = template.get(&format!("Parameters.{parameter}.MaxLength")).as_u64();
                usize::try_from(most.unwrap_or_else(|| panic!("{parameter} may be of any length"))).unwrap()
            }
        };
        for function in template.functions() {
            let description = &function.properties["VersionDescription"]["Fn::Sub"];
            let text = description[0].as_str().unwrap();
            let mut length = text.len();
            for name in variables(text) {
                length -= "${}".len() + name.len();
                length += match entries(&description[1]).find(|(own, _)| *own == name) {
                    None => longest(name),
                    Some((_, part)) => {
                        // Of `stack-UsersTable-1A2B3C4D5E6F7` the end.
                        let table = logical_id(&part["Fn::Select"][1]["Fn::Split"][1]);
                        let end = json!([1, { "Fn::Split": [format!("{table}-"), { "Ref": table }] }]);
                        assert_eq!(part, &json!({ "Fn::Select": end }), "{}", function.id);
                        13
                    }
                };
            }
            assert!(length <= 256, "{}: {length}", function.id);
        }
    }

    #[test]
    fn shifts_gradually_if_that_is_asked_for_and_back_when_its_alarm_goes_off() {
        let template = Template::read();
        let enabled = &template.get("Globals.Function.DeploymentPreference")["Enabled"];
        assert_eq!(enabled, &json!({ "Ref": "GradualDeployment" }));
        assert_eq!(template.get("Parameters.GradualDeployment.Default"), "false");
        let gradual = template.get("Conditions.ShiftsGradually");
        assert_eq!(gradual, &json!({ "Fn::Equals": [{ "Ref": "GradualDeployment" }, "true"] }));
        for function in template.functions() {
            let named = &function.properties["DeploymentPreference"]["Alarms"];
            assert_eq!(chosen(named, "ShiftsGradually", false), &json!([{ "Ref": "AWS::NoValue" }]));
            let alarms: BTreeSet<_> = list(chosen(named, "ShiftsGradually", true)).map(logical_id).collect();
            let own = format!("{}ErrorsAlarm", function.id);
            assert!(alarms.contains(own.as_str()), "{}", function.id);
            let answers_customers = template.routes().any(|route| route.function == function.id);
            assert_eq!(alarms.contains("PublicApiErrorsAlarm"), answers_customers, "{}", function.id);
            // A service that fails leaves its mark where it is called from: an
            // order that waits is no error to its customer.
            let calls = template.statements().any(|statement| {
                statement.role == function.role() && statement.actions.contains(&"execute-api:Invoke")
            });
            let called = template.routes().any(|route| route.api == "InternalApi" && route.function == function.id);
            assert_eq!(alarms.contains("InternalApiErrorsAlarm"), calls || called, "{}", function.id);
            let takes_events = function.events("SQS").any(|event| logical_id(&event["Queue"]) == "OrderEventsQueue");
            assert_eq!(alarms.contains("EventsWaitingAlarm"), takes_events, "{}", function.id);
            let alarm = &template.get("Resources").get(&own).unwrap()["Properties"];
            let dimensions = json!([
                { "Name": "FunctionName", "Value": { "Ref": function.id } },
                { "Name": "Resource", "Value": { "Fn::Sub": format!("${{{}}}:live", function.id) } },
            ]);
            assert_eq!((&alarm["MetricName"], &alarm["Dimensions"]), (&json!("Errors"), &dimensions));
        }
        for api in ["Public", "Internal"] {
            let alarm = template.get(&format!("Resources.{api}ApiErrorsAlarm.Properties"));
            let name = template.get(&format!("Resources.{api}Api.Properties.Name"));
            assert_eq!((&alarm["MetricName"], &alarm["Statistic"]), (&json!("5XXError"), &json!("Sum")));
            assert_eq!(alarm["Dimensions"], json!([{ "Name": "ApiName", "Value": name }]));
            // A tenth of the requests of five minutes is all that it may see.
            assert!(alarm["Period"] == 300 && alarm["Threshold"].as_u64().unwrap() <= 5);
        }
    }

    #[test]
    fn has_no_concurrency_of_its_own_unless_that_is_asked_for() {
        let template = Template::read();
        for function in template.functions() {
            let parameter = format!("{}Concurrency", function.id);
            let reserved = &function.properties["ReservedConcurrentExecutions"];
            let condition = format!("Reserves{}", function.id);
            assert_eq!(chosen(reserved, &condition, true), &json!({ "Ref": parameter }));
            assert_eq!(chosen(reserved, &condition, false), &json!({ "Ref": "AWS::NoValue" }));
            assert_eq!(template.get(&format!("Parameters.{parameter}.Default")), "0");
            for text in ["", "00", "01", "-1", "1.5", "1e2", " 1", "none"] {
                assert!(!template.takes(&parameter, text), "{parameter}={text}");
            }
            for text in ["0", "19", "20", "100", "1000"] {
                assert!(template.takes(&parameter, text), "{parameter}={text}");
            }
            // On AWS another reserve makes SAM publish, and Lambda refuses what
            // is no other version. Of a version the reserve itself is no part.
            let described = names(&function.properties["Description"]);
            assert_eq!(described, BTreeSet::from([parameter.as_str()]), "{}", function.id);
        }
    }

    #[test]
    fn that_reads_a_stream_has_room_for_its_shards_the_queue_and_the_sweep_or_no_bound() {
        let template = Template::read();
        let takes = template.constraint("OrderWorkerConcurrency");
        for reserved in 0..=2000 {
            let taken = takes(&reserved.to_string());
            assert_eq!(taken, reserved == 0 || reserved >= 19, "{reserved}");
        }
    }

    #[test]
    fn is_told_no_secret() {
        let template = Template::read();
        let own = template.functions().flat_map(|function| entries(&function.properties["Environment"]["Variables"]));
        let variables = own.chain(entries(template.get("Globals.Function.Environment.Variables")));
        let parameters = entries(template.get("Parameters"));
        for (name, _) in variables.chain(parameters) {
            let name = name.to_lowercase();
            for word in ["secret", "password", "credential", "api_key", "apikey"] {
                assert!(!name.contains(word), "{name}: refer to Secrets Manager or SSM instead");
            }
        }
    }
}

mod a_role {
    use super::*;

    #[test]
    fn is_for_one_function_and_assumed_by_lambda_alone() {
        let template = Template::read();
        let of_functions: BTreeSet<_> = template.functions().map(|function| function.role()).collect();
        for (id, role) in template.resources("AWS::IAM::Role") {
            assert!(of_functions.contains(id), "{id} is no function's");
            let trust = role["Properties"]["AssumeRolePolicyDocument"]["Statement"].as_array().unwrap();
            let [trust] = trust.as_slice() else { panic!("{id}") };
            assert_eq!(trust["Action"], "sts:AssumeRole", "{id}");
            assert_eq!(trust["Principal"], json!({ "Service": "lambda.amazonaws.com" }), "{id}");
            // By hand: AWS's and SAM's ready-made policies grant more.
            assert!(role["Properties"]["ManagedPolicyArns"].is_null(), "{id}");
        }
        for function in template.functions() {
            assert!(function.properties["Policies"].is_null(), "{}", function.id);
        }
    }

    #[test]
    fn names_its_actions_one_by_one() {
        for statement in Template::read().statements().filter(|statement| statement.allows) {
            for action in &statement.actions {
                assert!(!action.contains('*'), "{}: {action}", statement.role);
            }
        }
    }

    #[test]
    fn names_its_resources_unless_they_have_no_name() {
        for statement in Template::read().statements().filter(|statement| statement.allows) {
            for resource in &statement.resources {
                let unnamed = *resource == "*";
                let nameless = ["sns:Publish", "ses:SendEmail"].contains(&statement.actions[0]);
                assert!(!unnamed || nameless, "{statement:?}");
            }
        }
    }

    #[test]
    fn touches_its_own_services_tables_and_logs_only() {
        let template = Template::read();
        let mut roles_of = BTreeMap::<String, BTreeSet<&str>>::new();
        for statement in template.statements() {
            for resource in &statement.resources {
                let name = resource["Fn::GetAtt"].as_str().or(resource["Fn::Sub"].as_str()).unwrap_or_default();
                let name = name.trim_start_matches("${").split('.').next().unwrap_or_default();
                if name.ends_with("Table") || name.ends_with("Logs") {
                    roles_of.entry(name.to_owned()).or_default().insert(statement.role);
                }
            }
        }
        let expected = [
            ("UsersTable", vec!["UsersRole"]),
            ("ProductsTable", vec!["ProductsRole"]),
            ("OrdersTable", vec!["OrderWorkerRole", "OrdersRole"]),
            ("PaymentsTable", vec!["PaymentsRole"]),
            ("SandboxLedgerTable", vec!["PaymentsRole"]),
            ("NotificationsTable", vec!["NotificationsRole"]),
            ("UsersLogs", vec!["UsersRole"]),
            ("ProductsLogs", vec!["ProductsRole"]),
            ("OrdersLogs", vec!["OrdersRole"]),
            ("OrderWorkerLogs", vec!["OrderWorkerRole"]),
            ("PaymentsLogs", vec!["PaymentsRole"]),
            ("NotificationsLogs", vec!["NotificationsRole"]),
        ];
        let expected: BTreeMap<_, BTreeSet<_>> =
            expected.into_iter().map(|(name, roles)| (name.to_owned(), roles.into_iter().collect())).collect();
        assert_eq!(roles_of, expected);
    }
}

mod the_role_for_ci {
    use super::*;

    #[test]
    fn makes_a_key_with_the_tags_that_it_knows_the_key_by() {
        let template = Template::read_from(".github/deploy-role.yaml");
        let makes: Vec<_> =
            template.statements().filter(|statement| statement.actions.contains(&"kms:CreateKey")).collect();
        let [makes] = makes.as_slice() else { panic!("{makes:?}") };
        // KMS asks for both rights, of a key that has neither name nor tags yet.
        assert_eq!((&makes.actions, &makes.resources), (&vec!["kms:CreateKey", "kms:TagResource"], &vec![&json!("*")]));
        let tags = |kind: &str| {
            json!({ "StringEquals": {
                format!("aws:{kind}/Environment"): { "Ref": "Environment" },
                format!("aws:{kind}/Project"): "holdfast",
            } })
        };
        assert_eq!(makes.condition, &tags("RequestTag"));
        let mut uses = template.statements().filter(|statement| statement.actions.contains(&"kms:PutKeyPolicy"));
        assert!(uses.all(|statement| statement.condition == &tags("ResourceTag")));
        // KMS may take minutes to know a key by its tags.
        let rotates: Vec<_> =
            template.statements().filter(|statement| statement.actions.contains(&"kms:EnableKeyRotation")).collect();
        let [rotates] = rotates.as_slice() else { panic!("{rotates:?}") };
        let by_cloudformation = json!({ "aws:CalledVia": "cloudformation.amazonaws.com" });
        assert_eq!(rotates.condition, &json!({ "ForAnyValue:StringEquals": by_cloudformation }));
    }

    /// The ends of the names of what an action is allowed for.
    fn allowed(template: &Template, action: &str) -> BTreeSet<String> {
        let statements = template.statements().filter(|it| it.allows && it.actions.contains(&action));
        let resources = statements.flat_map(|statement| statement.resources);
        let names = resources.map(|name| name["Fn::Sub"].as_str().or(name.as_str()).unwrap().to_owned());
        names.map(|name| name.rsplit("${AWS::AccountId}:").next().unwrap().to_owned()).collect()
    }

    #[test]
    fn reads_what_cloudformations_handlers_read() {
        let template = Template::read_from(".github/deploy-role.yaml");
        for (action, resource) in [
            ("codedeploy:ListDeployments", "deploymentgroup:holdfast-${Environment}-*"),
            ("lambda:GetFunctionRecursionConfig", "function:holdfast-${Environment}-*"),
            ("lambda:GetFunctionScalingConfig", "function:holdfast-${Environment}-*"),
            ("logs:DescribeIndexPolicies", "log-group:/aws/lambda/holdfast-${Environment}/*"),
            ("logs:GetDataProtectionPolicy", "log-group:/aws/lambda/holdfast-${Environment}/*"),
            ("s3:TagResource", "arn:${AWS::Partition}:s3:::aws-sam-cli-managed-default-*"),
            ("sns:GetDataProtectionPolicy", "holdfast-${Environment}-*"),
            // These know no resource that would be narrower.
            ("cloudwatch:DescribeAlarms", "*"),
            ("logs:DescribeResourcePolicies", "*"),
        ] {
            let allowed = allowed(&template, action);
            assert!(allowed.contains(resource), "{action}: {allowed:?}");
        }
    }

    #[test]
    fn makes_the_roles_that_services_want_of_an_account_and_no_other() {
        let template = Template::read_from(".github/deploy-role.yaml");
        let mut services = BTreeSet::new();
        for statement in template.statements().filter(|it| it.actions.contains(&"iam:CreateServiceLinkedRole")) {
            let service = statement.condition["StringEquals"]["iam:AWSServiceName"].as_str().unwrap();
            let [resource] = statement.resources.as_slice() else { panic!("{statement:?}") };
            let role = format!("role/aws-service-role/{service}/*");
            assert!(resource["Fn::Sub"].as_str().unwrap().ends_with(&role), "{resource}");
            services.insert(service);
        }
        // PoolUsesSes, and the account's first ApiDomain.
        assert_eq!(services, BTreeSet::from(["email.cognito-idp.amazonaws.com", "ops.apigateway.amazonaws.com"]));
    }

    #[test]
    fn has_the_time_that_the_slowest_shift_takes() {
        let workflow = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.github/workflows/deploy.yml");
        let workflow: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(workflow).unwrap()).unwrap();
        let minutes = workflow["jobs"]["deploy"]["timeout-minutes"].as_u64().unwrap();
        let role = Template::read_from(".github/deploy-role.yaml");
        assert_eq!(role.get("Resources.Role.Properties.MaxSessionDuration"), minutes * 60);
        for kind in list(Template::read().get("Parameters.DeploymentType.AllowedValues")) {
            let kind = kind.as_str().unwrap();
            let (shape, pause) = kind.split_once("10Percent").unwrap();
            let pause: u64 = pause.trim_matches(char::is_alphabetic).parse().unwrap();
            let shift = if shape == "Linear" { 9 * pause } else { pause };
            // An hour at least is left for the build and the rest of the stack.
            assert!(shift + 60 <= minutes, "{kind}: {shift} minutes");
        }
    }
}

mod data {
    use super::*;

    #[test]
    fn outlives_the_stack_and_mistakes_unless_it_is_said_to_be_thrown_away() {
        let template = Template::read();
        assert_eq!(template.get("Parameters.RetainData.Default"), "true");
        let tables = template.resources("AWS::DynamoDB::Table").filter(|(id, _)| *id != "SandboxLedgerTable");
        for (id, resource) in tables.chain(template.resources("AWS::Cognito::UserPool")) {
            for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
                assert_eq!(chosen(&resource[policy], "RetainsData", true), "Retain", "{id}");
                assert_eq!(chosen(&resource[policy], "RetainsData", false), "Delete", "{id}");
            }
            let properties = &resource["Properties"];
            let (protection, on) = if id == "UserPool" {
                (&properties["DeletionProtection"], json!("ACTIVE"))
            } else {
                assert_eq!(properties["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"], true, "{id}");
                (&properties["DeletionProtectionEnabled"], json!(true))
            };
            assert_eq!(chosen(protection, "RetainsData", true), &on, "{id}");
        }
    }

    #[test]
    fn is_encrypted_with_a_key_of_our_own_if_that_is_asked_for() {
        let template = Template::read();
        let key = json!({ "Fn::GetAtt": "DataKey.Arn" });
        for (id, table) in template.resources("AWS::DynamoDB::Table") {
            let encryption = chosen(&table["Properties"]["SSESpecification"], "HasCustomerManagedKey", true);
            assert_eq!(encryption["KMSMasterKeyId"], key, "{id}");
        }
        for (id, queue) in template.resources("AWS::SQS::Queue") {
            let queue = &queue["Properties"];
            assert_eq!(chosen(&queue["KmsMasterKeyId"], "HasCustomerManagedKey", true), &key, "{id}");
            // SQS takes one of the two: left out, it would stay as it was when
            // the key is switched on later.
            for key in [true, false] {
                assert_eq!(chosen(&queue["SqsManagedSseEnabled"], "HasCustomerManagedKey", key), !key, "{id}");
            }
        }
        for (id, group) in template.resources("AWS::Logs::LogGroup") {
            assert_eq!(chosen(&group["Properties"]["KmsKeyId"], "HasCustomerManagedKey", true), &key, "{id}");
        }
    }

    #[test]
    fn is_not_lost_with_its_key() {
        let key = Template::read();
        let key = key.get("Resources.DataKey");
        // A stack that was never made has encrypted nothing.
        assert_eq!(key["DeletionPolicy"], "RetainExceptOnCreate");
        assert_eq!(key["UpdateReplacePolicy"], "Retain");
    }

    #[test]
    fn in_logs_is_kept_for_as_long_as_was_said() {
        for (id, group) in Template::read().resources("AWS::Logs::LogGroup") {
            assert_eq!(group["Properties"]["RetentionInDays"], json!({ "Ref": "LogRetentionDays" }), "{id}");
        }
    }

    #[test]
    fn in_queues_never_travels_over_plain_http() {
        let template = Template::read();
        let policy = template.get("Resources.QueuesRefusePlainHttp");
        assert_eq!(policy["Condition"], "IsAws");
        // SQS takes no policy that names another queue than its own.
        assert_eq!(policy["Properties"]["PolicyDocument"]["Statement"][0]["Resource"], "*");
        let covered: BTreeSet<_> = list(&policy["Properties"]["Queues"]).map(logical_id).collect();
        assert_eq!(covered, template.resources("AWS::SQS::Queue").map(|(id, _)| id).collect());
        let statement = list(&policy["Properties"]["PolicyDocument"]["Statement"]).next().unwrap();
        assert_eq!((&statement["Effect"], &statement["Action"]), (&json!("Deny"), &json!("sqs:*")));
        assert_eq!(statement["Condition"], json!({ "Bool": { "aws:SecureTransport": "false" } }));
    }
}

mod an_alarm {
    use super::*;

    #[test]
    fn tells_whoever_is_to_be_told() {
        let template = Template::read();
        assert_eq!(template.get("Parameters.AlarmEmail.Default"), "");
        let told = json!([{ "Ref": "AlarmTopic" }]);
        let mut alarms = 0;
        for (id, alarm) in template.resources("AWS::CloudWatch::Alarm") {
            for actions in ["AlarmActions", "OKActions"] {
                assert_eq!(chosen(&alarm["Properties"][actions], "HasAlarmEmail", true), &told, "{id}");
            }
            // Nothing to report is no reason to ring, but for the sweep, which
            // reports each minute: of a dead schedule nothing else would tell.
            let missing = if id == "OrdersOverdueAlarm" { "breaching" } else { "notBreaching" };
            assert_eq!(alarm["Properties"]["TreatMissingData"], missing, "{id}");
            alarms += 1;
        }
        assert!(alarms > template.functions().count());
        let recipient = template.get("Resources.AlarmRecipient.Properties");
        assert_eq!((&recipient["TopicArn"], &recipient["Endpoint"]), (&told[0], &json!({ "Ref": "AlarmEmail" })));
    }

    #[test]
    fn is_about_its_own_stack() {
        let template = Template::read();
        let mut own = 0;
        for (id, alarm) in template.resources("AWS::CloudWatch::Alarm") {
            let alarm = &alarm["Properties"];
            if alarm["Namespace"] == chassis::metric::NAMESPACE {
                let dimensions = list(&alarm["Dimensions"]).map(|dimension| dimension["Name"].as_str());
                assert_eq!(dimensions.collect::<Vec<_>>(), [Some(chassis::metric::DIMENSION)], "{id}");
                let counted_by = logical_id(&alarm["Dimensions"][0]["Value"]);
                assert!(template.functions().any(|function| function.id == counted_by), "{id}");
                own += 1;
            }
            // Without any it would be about all of its kind in the account.
            assert!(list(&alarm["Dimensions"]).next().is_some(), "{id}");
        }
        assert_eq!(own, 1);
    }

    #[test]
    fn rings_when_events_stand_still() {
        let template = Template::read();
        let alarm = template.get("Resources.EventsWaitingAlarm.Properties");
        assert_eq!(alarm["MetricName"], "ApproximateAgeOfOldestMessage");
        let queue = logical_id(&alarm["Dimensions"][0]["Value"]);
        let queue = &template.get("Resources")[queue]["Properties"];
        // By then whatever can't be told is a dead letter.
        let tries = queue["RedrivePolicy"]["maxReceiveCount"].as_u64().unwrap();
        assert_eq!(alarm["Threshold"], tries * queue["VisibilityTimeout"].as_u64().unwrap());
    }
}

mod a_sender {
    use super::*;

    #[test]
    fn may_have_a_configuration_set_by_default() {
        let template = Template::read();
        let mut sends = template.statements().filter(|statement| statement.actions == ["ses:SendEmail"]);
        let on_aws = sends.find(|statement| !statement.condition.is_null()).expect("a statement for AWS");
        let arn = |name: &str| format!("arn:${{AWS::Partition}}:ses:${{AWS::Region}}:${{AWS::AccountId}}:{name}/*");
        let resources: Vec<_> = on_aws.resources.iter().map(|resource| resource["Fn::Sub"].as_str().unwrap()).collect();
        assert_eq!(resources, [arn("identity"), arn("configuration-set")]);
        assert_eq!(on_aws.condition, &json!({ "StringEquals": { "ses:FromAddress": { "Ref": "EmailSender" } } }));
    }

    #[test]
    fn that_is_there_already_is_left_alone() {
        let template = Template::read();
        assert_eq!(template.get("Parameters.SenderExists.Default"), "false");
        assert_eq!(template.get("Resources.Sender.Condition"), "MakesSender");
        let makes = json!({ "Fn::Equals": [{ "Ref": "SenderExists" }, "false"] });
        assert_eq!(template.get("Conditions.MakesSender"), &makes);
        let records = template.get("Conditions.HasSenderRecords");
        assert!(list(&records["Fn::And"]).any(|condition| condition["Condition"] == "MakesSender"));
    }

    #[test]
    fn is_the_pools_too_if_that_is_asked_for() {
        let template = Template::read();
        assert_eq!(template.get("Parameters.PoolUsesSes.Default"), "false");
        let pool = template.get("Resources.UserPool.Properties.EmailConfiguration");
        assert_eq!(chosen(pool, "HasPoolOnSes", false), &json!({ "Ref": "AWS::NoValue" }));
        let ses = chosen(pool, "HasPoolOnSes", true);
        assert_eq!(
            (&ses["EmailSendingAccount"], &ses["From"]),
            (&json!("DEVELOPER"), &json!({ "Ref": "EmailSender" }))
        );
        let identity = &ses["SourceArn"]["Fn::Sub"][1]["Identity"];
        assert_eq!(identity, template.get("Resources.Sender.Properties.EmailIdentity"));
    }
}

/// The operands of each comparison within a value.
fn compared(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(members) => members.iter().flat_map(compared).collect(),
        Value::Object(members) => {
            let of = members.iter().map(|(function, operand)| match function.as_str() {
                "Fn::Equals" | "Fn::Contains" | "Fn::EachMemberEquals" | "Fn::EachMemberIn" => flat(operand),
                _ => compared(operand),
            });
            of.flatten().collect()
        }
        _ => Vec::new(),
    }
}

/// A list of lists as one list.
fn flat(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(members) => members.iter().flat_map(flat).collect(),
        one => vec![one],
    }
}

mod a_parameter {
    use super::*;

    #[test]
    fn is_compared_as_a_text_with_texts() {
        for file in ["template.yaml", ".github/deploy-role.yaml"] {
            let template = Template::read_from(file);
            let sections = ["Rules", "Conditions", "Resources", "Outputs"];
            let compared: Vec<_> = sections.into_iter().flat_map(|section| compared(template.get(section))).collect();
            assert!(!compared.is_empty(), "{file}");
            for operand in compared {
                let is_text = match operand["Ref"].as_str() {
                    Some(parameter) => template.get("Parameters")[parameter]["Type"] == "String",
                    None => operand.is_string(),
                };
                assert!(is_text, "{file}: {operand}");
            }
        }
    }

    /// Values that CloudFormation would take, made from the parameter's own
    /// constraints.
    fn samples(template: &Template, parameter: &str) -> Vec<String> {
        let declared = &template.get("Parameters")[parameter];
        if !declared["AllowedValues"].is_null() {
            return list(&declared["AllowedValues"]).map(|value| value.as_str().unwrap().to_owned()).collect();
        }
        let pattern = declared["AllowedPattern"].as_str();
        let pattern = pattern.unwrap_or_else(|| panic!("{parameter} takes any text, and a function reads it"));
        // The generator knows no anchors and no look-ahead: what those exclude
        // is left out below.
        let mut shape = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')).unwrap();
        while let Some((_, rest)) = shape.strip_prefix("(?!").and_then(|rest| rest.split_once(')')) {
            shape = rest;
        }
        let shape = string_regex(shape).unwrap();
        let mut runner = TestRunner::deterministic();
        let made = (0..2000).map(|_| shape.new_tree(&mut runner).unwrap().current());
        let takes = template.constraint(parameter);
        let samples: BTreeSet<_> = made.filter(|text| takes(text)).take(300).collect();
        assert!(samples.len() > 20, "{parameter}: {samples:?}");
        samples.into_iter().collect()
    }

    /// What an environment variable is on AWS, or on an emulator: with `text` for
    /// one parameter, and something for all else. `None` if it isn't set.
    fn resolved(value: &Value, parameter: &str, text: &str) -> Option<String> {
        let local = parameter == "LocalEndpoint" && !text.is_empty();
        if let Some(choice) = value["Fn::If"].as_array() {
            assert_eq!(choice[0], "IsLocal");
            return resolved(&choice[if local { 1 } else { 2 }], parameter, text);
        }
        match (value["Ref"].as_str(), value["Fn::Sub"].as_str()) {
            (Some("AWS::NoValue"), _) => None,
            (Some(name), _) => Some(if name == parameter { text } else { "" }.to_owned()),
            (None, Some(pattern)) => Some(variables(pattern).fold(pattern.to_owned(), |whole, name| {
                whole.replace(&format!("${{{name}}}"), if name == parameter { text } else { "something" })
            })),
            _ => panic!("{value} is made in a way that this test doesn't know"),
        }
    }

    #[test]
    fn that_a_function_reads_takes_only_what_the_function_starts_with() {
        let template = Template::read();
        let globals = template.get("Globals.Function.Environment.Variables");
        let mut tried = BTreeSet::new();
        for function in template.functions() {
            let mut ignored = list(&template.get("Resources")[function.id]["IgnoreGlobals"]);
            let shared = if ignored.any(|name| name == "Environment") { &Value::Null } else { globals };
            let own = &function.properties["Environment"]["Variables"];
            let mut readers = BTreeMap::<&str, Vec<(&str, &Value)>>::new();
            for (variable, value) in entries(shared).chain(entries(own)) {
                for name in names(value) {
                    if !template.get("Parameters")[name].is_null() {
                        readers.entry(name).or_default().push((variable, value));
                    }
                }
            }
            for (parameter, variables) in readers {
                for text in samples(&template, parameter) {
                    let changed = variables.iter().map(|(name, value)| (*name, resolved(value, parameter, &text)));
                    let started = configured(function.name, &changed.collect::<Vec<_>>());
                    assert!(started.is_ok(), "{}, {parameter}={text}: {started:?}", function.id);
                }
                tried.insert(parameter.to_owned());
            }
        }
        let expected = ["CancellationWindowHours", "CorsOrigin", "EmailSender", "LocalEndpoint", "LogLevel"];
        assert_eq!(tried, expected.map(String::from).into());
    }

    #[test]
    fn that_names_an_origin_takes_what_the_functions_take_and_nothing_else() {
        let template = Template::read();
        let takes = template.constraint("CorsOrigin");
        let mut runner = TestRunner::deterministic();
        // Nearly origins: of each kind of mistake there are some.
        let nearly =
            "(https?|HTTP)://([A-Za-z0-9-]{1,3}[.]?|[0-9]{1,3}[.]){1,4}(ada@)?[a-z0-9.-]{0,2}(:[0-9]{0,5}|:80|:443)?/?";
        let nearly = string_regex(nearly).unwrap();
        let nearly = (0..20_000).map(|_| nearly.new_tree(&mut runner).unwrap().current());
        let mut taken = 0;
        for text in nearly.chain(samples(&template, "CorsOrigin")).filter(|text| !text.is_empty()) {
            assert_eq!(takes(&text), text.parse::<Origin>().is_ok(), "{text}");
            taken += usize::from(takes(&text));
        }
        assert!(taken > 300, "{taken}");
    }

    /// A condition in a role compares texts exactly.
    #[test]
    fn that_a_roles_condition_names_is_written_as_the_code_writes_it() {
        let template = Template::read();
        let mut named: BTreeSet<_> = template.statements().flat_map(|it| names(it.condition)).collect();
        named.retain(|name| !template.get("Parameters")[name].is_null());
        assert_eq!(named, BTreeSet::from(["EmailSender"]));
        for text in samples(&template, "EmailSender") {
            assert_eq!(text.parse::<Email>().unwrap().expose(), text);
        }
    }

    #[test]
    fn takes_what_people_have_and_nothing_that_functions_or_aws_choke_on() {
        let template = Template::read();
        let label = "a".repeat(63);
        let long_domain = format!("orders@{label}a.example");
        let examples: [(&str, &[&str], &[&str]); 11] = [
            ("CancellationWindowHours", &["0", "24", "720"], &["", "0.5", "-1", "721", "1000"]),
            (
                "LogLevel",
                &["", "info", "warn,orders=debug", "chassis::http=trace"],
                &["in fo", "'info'", "[a{b=c}]=info", "orders=loud", "a=b=c", "info,", "=info", "a:b=info", "99999"],
            ),
            (
                "EmailSender",
                &["orders@holdfast.example", "no-reply+eu@mail.shop.co.uk", "o.rders@xn--mnchen-3ya.example"],
                &[
                    "",
                    "orders@shop",
                    "orders@münchen.example",
                    "Orders@Shop.example",
                    "orders@Shop.example",
                    "a@b@c.example",
                    ".a@b.example",
                    "a.@b.example",
                    "a..b@c.example",
                    "a@-b.example",
                    "a@b-.example",
                    "a@b..example",
                    "a@b.example.",
                    " a@b.example",
                    "Shop <a@b.example>",
                    "\"a\"@b.example",
                    "a@[127.0.0.1]",
                    "${aws:username}@b.example",
                    &long_domain,
                ],
            ),
            ("BurstLimit", &["1", "400"], &["", "0", "0.5", "1.0", "-1", "1e3", "1000000"]),
            ("OrderBurstLimit", &["1", "100"], &["", "0", "0.5", "1.0", "-1", "1e3", "1000000"]),
            ("SenderDomain", &["", "example.com", "xn--mnchen-3ya.example"], &["com", "a.", "-", "a..b", "A.example"]),
            ("ApiDomain", &["", "api.example.com"], &["com", "api.example.com.", "-a.example", "*.example.com"]),
            (
                "ApiCertificate",
                &["", "arn:aws:acm:us-east-1:123456789012:certificate/0f8fad5b-d9cb-469f-a165-70867728950e"],
                &["arn:", "arn:aws:iam::123456789012:server-certificate/x"],
            ),
            ("AlarmEmail", &["", "Alarms@example.com"], &["a@b", "a b@c.example", "a@b@c.example"]),
            (
                "LocalEndpoint",
                &["", "http://localhost:4566", "http://127.0.0.1:4566", "http://emulator_1:80"],
                &[
                    "localhost:4566",
                    "https://localhost",
                    "http://a b",
                    "http://a/",
                    "http://a:123456",
                    "http://a:",
                    "http://@a",
                ],
            ),
            (
                "CorsOrigin",
                &["", "https://shop.example.com", "http://localhost:3000", "http://127.0.0.1:8080", "https://a.b:80"],
                &[
                    "*",
                    "https://*",
                    "https://a/b",
                    "https://a'b",
                    "https://a b",
                    "https://a\"",
                    "shop.example.com",
                    "https://Shop.Example.com",
                    "https://shop.example.com:443",
                    "http://localhost:80",
                    "https://shop.example.com.",
                    "https://ada@shop.example.com",
                ],
            ),
        ];
        for (parameter, good, bad) in examples {
            for example in good {
                assert!(template.takes(parameter, example), "{parameter}: {example}");
            }
            for example in bad {
                assert!(!template.takes(parameter, example), "{parameter}: {example}");
            }
        }
        for (name, declared) in entries(template.get("Parameters")) {
            let default = &declared["Default"];
            assert!(!default.is_string() || template.takes(name, default.as_str().unwrap()), "{name}: {default}");
        }
    }

    #[test]
    fn that_names_a_domain_is_not_given_without_its_certificate() {
        let template = Template::read();
        let rule = template.get("Rules.ADomainHasACertificate");
        let given = |name: &str| json!({ "Fn::Not": [{ "Fn::Equals": [{ "Ref": name }, ""] }] });
        assert_eq!(rule["RuleCondition"], given("ApiDomain"));
        assert_eq!(rule["Assertions"][0]["Assert"], given("ApiCertificate"));
    }

    #[test]
    fn is_in_the_documents_as_it_is_in_the_template() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/deploying.md");
        let document = std::fs::read_to_string(document).expect("docs/deploying.md is readable");
        let (_, table) = document.split_once("\n## Parameters\n").expect("a section on parameters");
        let rows = table.lines().filter(|line| line.starts_with("| `"));
        let template = Template::read();
        let parameters = entries(template.get("Parameters")).map(|(name, parameter)| {
            let default = match &parameter["Default"] {
                Value::String(text) if text.is_empty() => String::new(),
                Value::String(text) => format!("`{text}`"),
                Value::Number(number) => format!("`{number}`"),
                other => panic!("{name} has the default {other}"),
            };
            format!("| `{name}` | {default} | {} |", parameter["Description"].as_str().expect("a description"))
        });
        assert_eq!(rows.collect::<BTreeSet<_>>(), parameters.collect::<Vec<_>>().iter().map(String::as_str).collect());
    }
}
