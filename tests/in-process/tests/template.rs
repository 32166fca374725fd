//! Rules that `template.yaml` and `.github/deploy-role.yaml` must keep. The name of
//! a test continues the name of its module, as in
//! `a_route::is_logged_without_personal_data_of_the_caller`.

use std::collections::{BTreeMap, BTreeSet};

use chassis::{
    contact::Email,
    cors::{ANSWER_HEADERS, Origin, REQUEST_HEADERS},
    internal_callers::InternalCallers,
    time_limits::{NOTIFICATIONS_FUNCTION, ORDERS_FUNCTION, SERVICE_FUNCTION, WORKER_FUNCTION},
};
use in_process_tests::{
    cloudwatch::metrics_of,
    template::{Function, Template, entries, list, logical_id},
    world::configured,
};
use proptest::{
    strategy::{Strategy, ValueTree},
    string::string_regex,
    test_runner::TestRunner,
};
use serde_json::{Value, json};

/// The routes that need no token: the catalogue and the health checks.
const OPEN: [(&str, &str); 7] = [
    ("GET", "/products"),
    ("GET", "/products/{id}"),
    ("GET", "/health/users"),
    ("GET", "/health/products"),
    ("GET", "/health/orders"),
    ("GET", "/health/payments"),
    ("GET", "/health/notifications"),
];

/// The routes that only other services may call.
const INTERNAL: [(&str, &str); 11] = [
    ("POST", "/users/{id}/validate"),
    ("POST", "/payments"),
    ("POST", "/payments/{id}/cancel"),
    ("POST", "/payments/{id}/capture"),
    ("POST", "/payments/{id}/erase-recipient"),
    ("POST", "/payments/accounts"),
    ("POST", "/payments/charges"),
    ("POST", "/products/reserve"),
    ("POST", "/reservations/{id}/release"),
    ("POST", "/reservations/accounts"),
    ("POST", "/stock/accounts"),
];

/// A property of a function: its own value, or the value in `Globals`.
fn property<'a>(template: &'a Template, function: &Function<'a>, name: &str) -> &'a Value {
    match &function.properties[name] {
        Value::Null => template.get("Globals.Function").get(name).unwrap_or(&Value::Null),
        own => own,
    }
}

fn seconds(template: &Template, function: &Function<'_>) -> u64 {
    property(template, function, "Timeout").as_u64().expect("a timeout in seconds")
}

/// The operand that `Fn::If` selects when `condition` is `holds`.
fn chosen<'a>(value: &'a Value, condition: &str, holds: bool) -> &'a Value {
    let choice = value["Fn::If"].as_array().unwrap_or_else(|| panic!("{value} has no Fn::If"));
    assert_eq!(choice[0], condition, "{value}");
    &choice[if holds { 1 } else { 2 }]
}

/// The parameters and resources to which a value refers.
fn names(value: &Value) -> BTreeSet<&str> {
    let all: BTreeSet<_> = match value {
        Value::Array(members) => members.iter().flat_map(names).collect(),
        Value::Object(members) => {
            members.iter().flat_map(|(function, operand)| names_in_call(function, operand)).collect()
        }
        _ => BTreeSet::new(),
    };
    let whole = all.into_iter().map(|name| name.split('.').next().unwrap_or(name));
    whole.filter(|name| !name.starts_with("AWS::")).collect()
}

fn names_in_call<'a>(function: &str, operand: &'a Value) -> BTreeSet<&'a str> {
    match (function, operand) {
        ("Ref" | "Fn::GetAtt", Value::String(name)) => BTreeSet::from([name.as_str()]),
        ("Fn::Sub", Value::String(text)) => variables(text).collect(),
        ("Fn::Sub", Value::Array(text)) => {
            let (text, own) = (text[0].as_str().expect("a text"), &text[1]);
            let of_own = names(own);
            variables(text).filter(|name| own[name].is_null()).chain(of_own).collect()
        }
        // The first operand is the name of a condition, not of a parameter or resource.
        ("Fn::If", Value::Array(choice)) => choice[1..].iter().flat_map(names).collect(),
        _ => names(operand),
    }
}

/// The names between `${` and `}` in a text.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split("${").skip(1).filter_map(|rest| rest.split('}').next())
}

mod a_route {
    use super::*;

    #[test]
    fn requires_authentication_unless_it_is_open_to_everybody() {
        let template = Template::read();
        let auth = template.get("Resources.PublicApi.Properties.Auth");
        assert_eq!(auth["DefaultAuthorizer"], "Customers");
        assert_eq!(logical_id(&auth["Authorizers"]["Customers"]["UserPoolArn"]), "UserPool");
        for function in template.functions() {
            let url = &function.properties["FunctionUrlConfig"];
            assert!(url.is_null() || *url == json!({ "AuthType": "AWS_IAM" }), "{}", function.id);
        }

        let mut open = BTreeSet::new();
        for route in template.routes() {
            if route.auth.is_null() {
                continue; // The API's default authorizer applies.
            }
            assert_eq!(route.auth, &json!({ "Authorizer": "NONE" }), "{route:?}");
            assert_eq!(route.api, "PublicApi", "{route:?}");
            open.insert((route.method, route.path));
        }
        assert_eq!(open, BTreeSet::from(OPEN));
    }

    #[test]
    fn between_services_is_not_on_the_public_api_and_some_role_may_call_it() {
        let template = Template::read();
        let internal: BTreeSet<_> = template.internal_routes().map(|route| (route.method, route.path)).collect();
        assert_eq!(internal, BTreeSet::from(INTERNAL));
        assert!(
            template.routes().all(|route| route.api == "PublicApi" && !internal.contains(&(route.method, route.path)))
        );
        for route in template.internal_routes() {
            assert!(["OrdersRole", "OrderWorkerRole"].contains(&route.caller), "{route:?}");
        }
        // Only the worker captures payments, erases customers and reconciles.
        let only_worker: BTreeSet<_> = {
            let orders = template.internal_routes().filter(|route| route.caller == "OrdersRole");
            let orders: BTreeSet<_> = orders.map(|route| (route.method, route.path)).collect();
            internal.difference(&orders).copied().collect()
        };
        let expected = [
            ("POST", "/payments/{id}/capture"),
            ("POST", "/payments/{id}/erase-recipient"),
            ("POST", "/payments/accounts"),
            ("POST", "/payments/charges"),
            ("POST", "/reservations/accounts"),
            ("POST", "/stock/accounts"),
        ];
        assert_eq!(only_worker, BTreeSet::from(expected));
    }

    #[test]
    fn between_services_is_reached_by_the_functions_url_and_in_no_other_way() {
        let template = Template::read();
        let served: BTreeSet<_> = template.internal_routes().map(|route| route.function).collect();
        assert_eq!(served, BTreeSet::from(["Payments", "Products", "Users"]));
        for function in template.functions() {
            let has_url = !function.properties["FunctionUrlConfig"].is_null();
            assert_eq!(has_url, served.contains(function.id), "{}", function.id);
        }
        let mut callers = BTreeSet::new();
        for statement in template.statements() {
            let actions: Vec<_> = statement.actions.iter().filter(|action| action.starts_with("lambda:")).collect();
            if actions.is_empty() {
                continue;
            }
            // AWS documents both actions for a URL. InvokeFunction alone would let the role
            // invoke the function past its URL, with any event.
            let condition = match statement.actions[..] {
                ["lambda:InvokeFunctionUrl"] => json!({ "StringEquals": { "lambda:FunctionUrlAuthType": "AWS_IAM" } }),
                ["lambda:InvokeFunction"] => json!({ "Bool": { "lambda:InvokedViaFunctionUrl": "true" } }),
                _ => panic!("{statement:?}"),
            };
            assert_eq!(statement.condition, &condition);
            let aliases = statement.resources.iter().map(|resource| resource["Ref"].as_str().unwrap());
            let served = served.iter().map(|id| format!("{id}.Alias"));
            assert_eq!(aliases.map(str::to_owned).collect::<BTreeSet<_>>(), served.collect());
            callers.insert((statement.role, statement.actions[0]));
        }
        let both = ["lambda:InvokeFunction", "lambda:InvokeFunctionUrl"];
        let roles = ["OrdersRole", "OrderWorkerRole"];
        assert_eq!(callers, roles.into_iter().flat_map(|role| both.map(|action| (role, action))).collect());
    }

    #[test]
    fn is_throttled_and_the_route_that_places_orders_has_the_lowest_limit() {
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
    fn is_logged_without_personal_data_of_the_caller() {
        let template = Template::read();
        let setting = template.get("Resources.PublicApi.Properties.AccessLogSetting");
        let format = chosen(setting, "HasAccessLogs", true)["Format"].as_str().unwrap();
        let entry: Value = serde_json::from_str(format).unwrap_or_else(|error| panic!("{format}: {error}"));
        let logged: BTreeSet<_> = entries(&entry).map(|(_, value)| value.as_str().unwrap()).collect();
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
        let harmless = harmless.map(|name| format!("$context.{name}"));
        assert_eq!(logged, harmless.iter().map(String::as_str).collect());
    }

    #[test]
    fn allows_no_browser_origin_by_default() {
        let template = Template::read();
        assert_eq!(template.get("Parameters.CorsOrigin.Default"), "");
        let cors = template.get("Resources.PublicApi.Properties.Cors");
        assert_eq!(chosen(&cors["AllowOrigin"], "HasCorsOrigin", true), &json!({ "Fn::Sub": "'${CorsOrigin}'" }));
        // RFC 6761 reserves names below `invalid`, so no page has this origin. If
        // AllowOrigin had no value, SAM would allow every origin.
        assert_eq!(chosen(&cors["AllowOrigin"], "HasCorsOrigin", false), "'https://nowhere.invalid'");
        // The functions must add the origin to their own responses. Otherwise
        // browsers don't let the page read these responses.
        assert_eq!(template.get("Globals.Function.Environment.Variables.CORS_ORIGIN"), &json!({ "Ref": "CorsOrigin" }));
    }

    /// The names in a header's value. The template puts the value in quotes.
    fn header_names(value: &Value) -> BTreeSet<&str> {
        value.as_str().unwrap().trim_matches('\'').split(',').collect()
    }

    #[test]
    fn has_the_same_cors_headers_from_the_gateway_and_from_the_functions() {
        let template = Template::read();
        let cors = template.get("Resources.PublicApi.Properties.Cors");
        assert_eq!(
            header_names(&cors["AllowHeaders"]),
            REQUEST_HEADERS.map(|name| name.to_string()).iter().map(String::as_str).collect()
        );
        let exposed = ANSWER_HEADERS.map(|name| name.to_string());
        let exposed: BTreeSet<_> = exposed.iter().map(String::as_str).collect();
        let mut names = BTreeSet::new();
        for (kind, response) in entries(template.get("Resources.PublicApi.Properties.GatewayResponses")) {
            let headers = &response["ResponseParameters"]["Headers"];
            assert_eq!(headers["Access-Control-Allow-Origin"], cors["AllowOrigin"], "{kind}");
            assert_eq!(header_names(&headers["Access-Control-Expose-Headers"]), exposed, "{kind}");
            names.insert(kind);
            // The template has a separate resource with the same response for emulators.
            let mut local = template.resources("AWS::ApiGateway::GatewayResponse");
            let local = local.find(|(_, local)| local["Properties"]["ResponseType"] == kind);
            let (_, local) = local.unwrap_or_else(|| panic!("emulators have no {kind}"));
            let local: BTreeMap<_, _> = entries(&local["Properties"]["ResponseParameters"])
                .map(|(name, value)| (name.strip_prefix("gatewayresponse.header.").unwrap(), value))
                .collect();
            assert_eq!(local, entries(headers).collect(), "{kind}");
        }
        // The two default types apply to each refusal that has no response of its own.
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
            // The gateway waits 29 seconds for a function, so a function with routes
            // needs a shorter timeout. Notifications is an exception: its only route
            // is the health check, which is fast.
            let max = if function.events("Api").next().is_some() && function.id != "Notifications" { 28 } else { 900 };
            assert!((1..=max).contains(&seconds(&template, &function)), "{}", function.id);
        }
        let count = template.functions().count();
        assert_eq!((roles.len(), groups.len()), (count, count));
    }

    #[test]
    fn has_the_timeout_that_time_limits_rs_names() {
        let template = Template::read();
        for function in template.functions() {
            let timeout = match function.name {
                "notifications" => NOTIFICATIONS_FUNCTION,
                "orders" => ORDERS_FUNCTION,
                "order-worker" => WORKER_FUNCTION,
                _ => SERVICE_FUNCTION,
            };
            assert_eq!(template.timeout(&function), timeout, "{}", function.id);
        }
    }

    #[test]
    fn that_serves_internal_routes_authenticates_services_by_their_signature_only() {
        let template = Template::read();
        for function in template.functions() {
            let mode = &function.properties["Environment"]["Variables"]["INTERNAL_AUTH"];
            let called = !function.properties["FunctionUrlConfig"].is_null();
            assert_eq!(mode, &if called { json!("iam") } else { Value::Null }, "{}", function.id);
            // The function starts with the list of its callers.
            let callers = template.internal_callers(function.name);
            assert_eq!(callers.is_some(), called, "{}", function.id);
            let parsed = callers.map(|callers| callers.parse::<InternalCallers>().is_ok());
            assert_ne!(parsed, Some(false), "{}", function.id);
        }
        assert!(template.get("Globals.Function.Environment.Variables.INTERNAL_AUTH").is_null());
    }

    #[test]
    fn that_is_invoked_asynchronously_has_limited_retries_and_handles_what_is_left() {
        let template = Template::read();
        for function in template.functions() {
            for event in function.events("SQS") {
                let queue = template.get("Resources").get(logical_id(&event["Queue"])).unwrap();
                let redrive = &queue["Properties"]["RedrivePolicy"];
                assert!(redrive["maxReceiveCount"].as_u64().unwrap() <= 10);
                let dead = template.get("Resources").get(logical_id(&redrive["deadLetterTargetArn"])).unwrap();
                assert_eq!(dead["Properties"]["MessageRetentionPeriod"], 14 * 24 * 3600);
                // The function reports which messages of a batch have failed, so that
                // SQS delivers only these messages again.
                assert_eq!(event["FunctionResponseTypes"], json!(["ReportBatchItemFailures"]));
                assert!(queue["Properties"]["MessageRetentionPeriod"].as_u64().unwrap() < 14 * 24 * 3600);
                // MaximumConcurrency must not exceed the function's reserved
                // concurrency. Otherwise a valid message could be throttled five times
                // and reach the dead-letter queue.
                let max_concurrency = &event["ScalingConfig"]["MaximumConcurrency"];
                if function.id == "OrderWorker" {
                    assert_eq!(
                        max_concurrency, 2,
                        "the worker's smallest reserve, 20, includes 2 executions for this queue"
                    );
                    continue;
                }
                let reserved = &function.properties["ReservedConcurrentExecutions"];
                let condition = format!("Reserves{}", function.id);
                assert_eq!(names(chosen(max_concurrency, &condition, true)), names(chosen(reserved, &condition, true)));
                assert!(chosen(max_concurrency, &condition, false).is_u64());
                // Lambda accepts 2 to 1000 as MaximumConcurrency. The parameter's value 0
                // means that nothing is reserved.
                let parameter = logical_id(chosen(reserved, &condition, true));
                for (text, good) in [("0", true), ("1", false), ("2", true), ("1000", true), ("1001", false)] {
                    assert_eq!(template.accepts(parameter, text), good, "{parameter}={text}");
                }
            }
            for event in function.events("DynamoDB") {
                assert!(event["MaximumRetryAttempts"].is_u64() && event["MaximumRecordAgeInSeconds"].is_u64());
                // After its last retry, Lambda drops a stream record. The scheduled sweep
                // then finds the order that the record was about.
                assert!(function.events("ScheduleV2").next().is_some(), "{}", function.id);
            }
            for event in function.events("ScheduleV2") {
                assert!(event["RetryPolicy"]["MaximumRetryAttempts"].is_u64());
                // With OmitName, CloudFormation generates the schedule's name. A name
                // made from a long stack name could be longer than AWS allows.
                assert_eq!((&event["Name"], &event["OmitName"]), (&Value::Null, &json!(true)), "{}", function.id);
                let invoked = &function.properties["EventInvokeConfig"];
                assert!(invoked["MaximumRetryAttempts"].is_u64(), "{}", function.id);
                // A throttled invocation is dropped after 60 seconds, because the
                // schedule then starts the next invocation. A reconciliation continues
                // an hour later.
                let is_sweep = event["Input"] == r#"{"sweep": true}"#;
                assert_eq!(event["ScheduleExpression"], if is_sweep { "rate(1 minute)" } else { "rate(1 hour)" });
                assert_eq!(invoked["MaximumEventAgeInSeconds"], 60, "{}", function.id);
            }
        }
    }

    #[test]
    fn has_a_queue_whose_visibility_timeout_is_six_times_its_own_timeout() {
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
    fn is_invoked_through_an_alias_that_also_follows_changed_settings() {
        let template = Template::read();
        let globals = template.get("Globals.Function");
        assert_eq!(globals["AutoPublishAlias"], "live");
        assert_eq!(globals["AutoPublishAliasAllProperties"], true);
        for function in template.functions() {
            let mut ignored = list(&template.get("Resources").get(function.id).unwrap()["IgnoreGlobals"]);
            let ignores_globals = ignored.any(|name| name == "Environment");
            let shared = if ignores_globals { &Value::Null } else { &globals["Environment"] };
            let used = &names(&function.properties["Environment"]) | &names(shared);
            let mut described = names(&function.properties["VersionDescription"]);
            // A client of another user pool is another client.
            if described.contains("UserPoolClient") && used.contains("UserPool") {
                described.insert("UserPool");
            }
            // Lambda publishes a version only if something differs from the last
            // version. Therefore the version's description names each parameter and
            // resource that the environment depends on: if one of them changes, the
            // description changes, too.
            assert_eq!(described, used, "{}", function.id);
        }
    }

    #[test]
    fn has_a_version_description_within_lambdas_maximum_length() {
        let template = Template::read();
        // The maximum length of each value on AWS, for every stack name.
        let max_length = |name: &str| match name {
            "LocalEndpoint" => 0,
            "UserPool" => "ap-southeast-2_123456789".len(),
            "UserPoolClient" => 26,
            parameter => {
                let length = template.get(&format!("Parameters.{parameter}.MaxLength")).as_u64();
                usize::try_from(length.unwrap_or_else(|| panic!("{parameter} has no MaxLength"))).unwrap()
            }
        };
        for function in template.functions() {
            let description = &function.properties["VersionDescription"]["Fn::Sub"];
            let text = description[0].as_str().unwrap();
            let mut length = text.len();
            for name in variables(text) {
                length -= "${}".len() + name.len();
                length += match entries(&description[1]).find(|(own, _)| *own == name) {
                    None => max_length(name),
                    Some((name, part)) if part["Fn::Select"][0] == 0 => {
                        // The part is the id of a function URL, which is the first label of
                        // its host name.
                        let url = json!({ "Fn::GetAtt": format!("{name}Url.FunctionUrl") });
                        let host = json!({ "Fn::Select": [1, { "Fn::Split": ["//", url] }] });
                        assert_eq!(
                            part,
                            &json!({ "Fn::Select": [0, { "Fn::Split": [".", host] }] }),
                            "{}",
                            function.id
                        );
                        32
                    }
                    Some((_, part)) => {
                        // The part is the last 13 characters of a table's physical name,
                        // which is a text such as `stack-UsersTable-1A2B3C4D5E6F7`. The
                        // names of queues and roles end in the same way.
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
    fn is_deployed_gradually_on_request_and_rolled_back_by_its_alarms() {
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
            // The URLs' alarms also ring for failures that customers don't see: if a call
            // between services fails, the order waits, and the public API answers 202.
            let calls = template.internal_routes().filter(|route| route.caller == function.role());
            let called = template.internal_routes().filter(|route| route.function == function.id);
            let expected: BTreeSet<_> =
                calls.chain(called).map(|route| format!("{}UrlErrorsAlarm", route.function)).collect();
            let of_urls = alarms.iter().filter(|alarm| alarm.ends_with("UrlErrorsAlarm"));
            assert_eq!(of_urls.map(ToString::to_string).collect::<BTreeSet<_>>(), expected, "{}", function.id);
            let consumes_events = function.events("SQS").any(|event| logical_id(&event["Queue"]) == "OrderEventsQueue");
            assert_eq!(alarms.contains("EventsWaitingAlarm"), consumes_events, "{}", function.id);
            let alarm = &template.get("Resources").get(&own).unwrap()["Properties"];
            let dimensions = json!([
                { "Name": "FunctionName", "Value": { "Ref": function.id } },
                { "Name": "Resource", "Value": { "Fn::Sub": format!("${{{}}}:live", function.id) } },
            ]);
            assert_eq!((&alarm["MetricName"], &alarm["Dimensions"]), (&json!("Errors"), &dimensions));
        }
        let alarm = template.get("Resources.PublicApiErrorsAlarm.Properties");
        let name = template.get("Resources.PublicApi.Properties.Name");
        assert_eq!((&alarm["Namespace"], &alarm["MetricName"]), (&json!("AWS/ApiGateway"), &json!("5XXError")));
        assert_eq!(alarm["Dimensions"], json!([{ "Name": "ApiName", "Value": name }]));
        let mut alarms = vec![alarm];
        for id in template.internal_routes().map(|route| route.function).collect::<BTreeSet<_>>() {
            let alarm = template.get(&format!("Resources.{id}UrlErrorsAlarm.Properties"));
            assert_eq!((&alarm["Namespace"], &alarm["MetricName"]), (&json!("AWS/Lambda"), &json!("Url5xxCount")));
            let of_function = template.get(&format!("Resources.{id}ErrorsAlarm.Properties"));
            assert_eq!(alarm["Dimensions"], of_function["Dimensions"], "{id}");
            alarms.push(alarm);
        }
        for alarm in alarms {
            assert_eq!(alarm["Statistic"], "Sum");
            // At the beginning of a gradual deployment, the new version gets only a
            // tenth of the requests, so a few errors must be enough for the alarm.
            assert!(alarm["Period"] == 300 && alarm["Threshold"].as_u64().unwrap() <= 5);
        }
    }

    #[test]
    fn reserves_no_concurrency_by_default() {
        let template = Template::read();
        for function in template.functions() {
            let parameter = format!("{}Concurrency", function.id);
            let reserved = &function.properties["ReservedConcurrentExecutions"];
            let condition = format!("Reserves{}", function.id);
            assert_eq!(chosen(reserved, &condition, true), &json!({ "Ref": parameter }));
            assert_eq!(chosen(reserved, &condition, false), &json!({ "Ref": "AWS::NoValue" }));
            assert_eq!(template.get(&format!("Parameters.{parameter}.Default")), "0");
            for text in ["", "00", "01", "-1", "1.5", "1e2", " 1", "none"] {
                assert!(!template.accepts(&parameter, text), "{parameter}={text}");
            }
            for text in ["0", "20", "21", "100", "1000"] {
                assert!(template.accepts(&parameter, text), "{parameter}={text}");
            }
            // If the reserve changes, SAM asks Lambda to publish a version. A version
            // does not contain the reserve, and Lambda refuses to publish a version
            // that equals the last one. Therefore the function's description, which a
            // version contains, names the reserve.
            let described = names(&function.properties["Description"]);
            assert_eq!(described, BTreeSet::from([parameter.as_str()]), "{}", function.id);
        }
    }

    #[test]
    fn that_reads_a_stream_reserves_nothing_or_enough_for_all_shards_the_queue_and_the_sweep() {
        let template = Template::read();
        let accepts = template.constraint("OrderWorkerConcurrency");
        for reserved in 0..=2000 {
            let is_accepted = accepts(&reserved.to_string());
            assert_eq!(is_accepted, reserved == 0 || reserved >= 20, "{reserved}");
        }
    }

    #[test]
    fn has_no_secret_in_its_environment() {
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
            assert!(of_functions.contains(id), "no function has the role {id}");
            let trust = role["Properties"]["AssumeRolePolicyDocument"]["Statement"].as_array().unwrap();
            let [trust] = trust.as_slice() else { panic!("{id}") };
            assert_eq!(trust["Action"], "sts:AssumeRole", "{id}");
            assert_eq!(trust["Principal"], json!({ "Service": "lambda.amazonaws.com" }), "{id}");
            // AWS's managed policies and SAM's policy templates would allow more than
            // the function needs.
            assert!(role["Properties"]["ManagedPolicyArns"].is_null(), "{id}");
        }
        for function in template.functions() {
            assert!(function.properties["Policies"].is_null(), "{}", function.id);
        }
    }

    #[test]
    fn allows_no_wildcard_actions() {
        for statement in Template::read().statements().filter(|statement| statement.allows) {
            for action in &statement.actions {
                assert!(!action.contains('*'), "{}: {action}", statement.role);
            }
        }
    }

    #[test]
    fn allows_all_resources_only_for_actions_without_named_resources() {
        for statement in Template::read().statements().filter(|statement| statement.allows) {
            for resource in &statement.resources {
                let is_any = *resource == "*";
                let unnamed = ["sns:Publish", "ses:SendEmail", "xray:PutTraceSegments", "xray:PutTelemetryRecords"];
                let has_no_names = statement.actions.iter().all(|action| unnamed.contains(action));
                assert!(!is_any || has_no_names, "{statement:?}");
            }
        }
    }

    #[test]
    fn reaches_only_the_tables_and_logs_of_its_own_service() {
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
    fn creates_keys_with_the_tags_by_which_it_may_use_them() {
        let template = Template::read_from(".github/deploy-role.yaml");
        let creates: Vec<_> =
            template.statements().filter(|statement| statement.actions.contains(&"kms:CreateKey")).collect();
        let [creates] = creates.as_slice() else { panic!("{creates:?}") };
        // KMS requires both actions for a key that is created with tags. The resource
        // is `*`, because the new key has no ARN yet, and the condition checks the
        // request's tags, because the new key has no tags yet.
        assert_eq!(
            (&creates.actions, &creates.resources),
            (&vec!["kms:CreateKey", "kms:TagResource"], &vec![&json!("*")])
        );
        let tags = |kind: &str| {
            json!({ "StringEquals": {
                format!("aws:{kind}/Environment"): { "Ref": "Environment" },
                format!("aws:{kind}/Project"): "holdfast",
            } })
        };
        assert_eq!(creates.condition, &tags("RequestTag"));
        let mut uses = template.statements().filter(|statement| statement.actions.contains(&"kms:PutKeyPolicy"));
        assert!(uses.all(|statement| statement.condition == &tags("ResourceTag")));
        // CloudFormation enables rotation right after it has created the key, but KMS
        // may know the key's tags only minutes later. So this statement has no
        // condition on tags.
        let rotates: Vec<_> =
            template.statements().filter(|statement| statement.actions.contains(&"kms:EnableKeyRotation")).collect();
        let [rotates] = rotates.as_slice() else { panic!("{rotates:?}") };
        let by_cloudformation = json!({ "aws:CalledVia": "cloudformation.amazonaws.com" });
        assert_eq!(rotates.condition, &json!({ "ForAnyValue:StringEquals": by_cloudformation }));
    }

    /// The resources for which an action is allowed, without the part of the ARN
    /// before the resource's own name.
    fn allowed(template: &Template, action: &str) -> BTreeSet<String> {
        let statements = template.statements().filter(|it| it.allows && it.actions.contains(&action));
        let resources = statements.flat_map(|statement| statement.resources);
        let names = resources.map(|name| name["Fn::Sub"].as_str().or(name.as_str()).unwrap().to_owned());
        names.map(|name| name.rsplit("${AWS::AccountId}:").next().unwrap().to_owned()).collect()
    }

    #[test]
    fn may_read_everything_that_cloudformations_handlers_read() {
        let template = Template::read_from(".github/deploy-role.yaml");
        for (action, resource) in [
            ("codedeploy:ListDeployments", "deploymentgroup:holdfast-${Environment}-*"),
            ("lambda:GetFunctionRecursionConfig", "function:holdfast-${Environment}-*"),
            ("lambda:GetFunctionScalingConfig", "function:holdfast-${Environment}-*"),
            ("logs:DescribeIndexPolicies", "log-group:/aws/lambda/holdfast-${Environment}/*"),
            ("logs:GetDataProtectionPolicy", "log-group:/aws/lambda/holdfast-${Environment}/*"),
            ("s3:TagResource", "arn:${AWS::Partition}:s3:::aws-sam-cli-managed-default-*"),
            ("sns:GetDataProtectionPolicy", "holdfast-${Environment}-*"),
            ("events:DescribeRule", "rule/holdfast-${Environment}-*"),
            ("events:ListTargetsByRule", "rule/holdfast-${Environment}-*"),
            ("ses:GetConfigurationSet", "configuration-set/holdfast-${Environment}-*"),
            ("ses:GetConfigurationSetEventDestinations", "configuration-set/holdfast-${Environment}-*"),
            // AWS accepts no narrower resource for the following two actions.
            ("cloudwatch:DescribeAlarms", "*"),
            ("logs:DescribeResourcePolicies", "*"),
        ] {
            let allowed = allowed(&template, action);
            assert!(allowed.contains(resource), "{action}: {allowed:?}");
        }
    }

    #[test]
    fn may_create_only_the_service_linked_roles_that_aws_services_need() {
        let template = Template::read_from(".github/deploy-role.yaml");
        let mut services = BTreeSet::new();
        for statement in template.statements().filter(|it| it.actions.contains(&"iam:CreateServiceLinkedRole")) {
            let service = statement.condition["StringEquals"]["iam:AWSServiceName"].as_str().unwrap();
            let [resource] = statement.resources.as_slice() else { panic!("{statement:?}") };
            let role = format!("role/aws-service-role/{service}/*");
            assert!(resource["Fn::Sub"].as_str().unwrap().ends_with(&role), "{resource}");
            services.insert(service);
        }
        // Cognito uses the first role to send e-mails through SES (parameter
        // PoolUsesSes). API Gateway uses the second role for the first ApiDomain of an
        // account.
        assert_eq!(services, BTreeSet::from(["email.cognito-idp.amazonaws.com", "ops.apigateway.amazonaws.com"]));
    }

    #[test]
    fn has_sessions_that_last_as_long_as_the_slowest_gradual_deployment() {
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
            // At least an hour is left for the build and the rest of the stack.
            assert!(shift + 60 <= minutes, "{kind}: {shift} minutes");
        }
    }
}

mod data {
    use super::*;

    #[test]
    fn is_kept_when_the_stack_is_deleted_unless_a_parameter_says_otherwise() {
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
    fn is_encrypted_with_a_customer_managed_key_on_request() {
        let template = Template::read();
        let key = json!({ "Fn::GetAtt": "DataKey.Arn" });
        for (id, table) in template.resources("AWS::DynamoDB::Table") {
            let encryption = chosen(&table["Properties"]["SSESpecification"], "HasCustomerManagedKey", true);
            assert_eq!(encryption["KMSMasterKeyId"], key, "{id}");
        }
        for (id, queue) in template.resources("AWS::SQS::Queue") {
            let queue = &queue["Properties"];
            assert_eq!(chosen(&queue["KmsMasterKeyId"], "HasCustomerManagedKey", true), &key, "{id}");
            // A queue is encrypted either with the KMS key or with SqsManagedSseEnabled.
            // The template sets SqsManagedSseEnabled in both cases: if it were left out
            // when the key is switched on, its old value `true` would stay.
            for key in [true, false] {
                assert_eq!(chosen(&queue["SqsManagedSseEnabled"], "HasCustomerManagedKey", key), !key, "{id}");
            }
        }
        for (id, group) in template.resources("AWS::Logs::LogGroup") {
            assert_eq!(chosen(&group["Properties"]["KmsKeyId"], "HasCustomerManagedKey", true), &key, "{id}");
        }
    }

    #[test]
    fn is_not_lost_because_its_key_is_deleted() {
        let key = Template::read();
        let key = key.get("Resources.DataKey");
        // With this policy, the key is deleted if the stack's creation fails. Nothing
        // has been encrypted with the key by then.
        assert_eq!(key["DeletionPolicy"], "RetainExceptOnCreate");
        assert_eq!(key["UpdateReplacePolicy"], "Retain");
    }

    #[test]
    fn in_logs_is_kept_for_the_configured_number_of_days() {
        for (id, group) in Template::read().resources("AWS::Logs::LogGroup") {
            assert_eq!(group["Properties"]["RetentionInDays"], json!({ "Ref": "LogRetentionDays" }), "{id}");
        }
    }

    #[test]
    fn in_queues_is_never_sent_over_plain_http() {
        let template = Template::read();
        let mut covered = Vec::new();
        for (id, policy) in template.resources("AWS::SQS::QueuePolicy") {
            assert_eq!(policy["Condition"], "IsAws", "{id}");
            covered.extend(list(&policy["Properties"]["Queues"]).map(logical_id));
            let statement = list(&policy["Properties"]["PolicyDocument"]["Statement"]).next().unwrap();
            // SQS refuses a policy that names another queue, so the statement names none.
            assert_eq!(statement["Resource"], "*", "{id}");
            assert_eq!((&statement["Effect"], &statement["Action"]), (&json!("Deny"), &json!("sqs:*")), "{id}");
            assert_eq!(statement["Condition"], json!({ "Bool": { "aws:SecureTransport": "false" } }), "{id}");
        }
        // SQS keeps only one policy of a queue, so no queue may have two.
        covered.sort_unstable();
        let mut queues: Vec<_> = template.resources("AWS::SQS::Queue").map(|(id, _)| id).collect();
        queues.sort_unstable();
        assert_eq!(covered, queues);
    }

    #[test]
    fn in_queues_is_put_there_from_outside_only_by_the_rule_for_bounces_and_complaints() {
        let template = Template::read();
        let mut allowed = Vec::new();
        for (id, policy) in template.resources("AWS::SQS::QueuePolicy") {
            let statements = list(&policy["Properties"]["PolicyDocument"]["Statement"]);
            allowed.extend(statements.filter(|it| it["Effect"] == "Allow").map(|it| (id, it)));
        }
        let [(id, statement)] = allowed[..] else { panic!("{allowed:?}") };
        assert_eq!(id, "OrderEventsQueuePolicy");
        let expected = json!({
            "Effect": "Allow", "Principal": { "Service": "events.amazonaws.com" }, "Action": "sqs:SendMessage",
            "Resource": { "Fn::GetAtt": "OrderEventsQueue.Arn" },
            "Condition": { "ArnEquals": { "aws:SourceArn": { "Fn::GetAtt": "EmailFeedbackRule.Arn" } } },
        });
        assert_eq!(statement, &expected);
        // The rule passes on only what concerns the e-mails of this stack.
        let rule = template.get("Resources.EmailFeedbackRule.Properties.EventPattern");
        let set = json!([{ "Ref": "EmailConfigurationSet" }]);
        assert_eq!(
            (&rule["source"], &rule["detail"]["mail"]["tags"]["ses:configuration-set"]),
            (&json!(["aws.ses"]), &set)
        );
    }
}

mod an_alarm {
    use super::*;

    #[test]
    fn notifies_the_configured_recipient() {
        let template = Template::read();
        assert_eq!(template.get("Parameters.AlarmEmail.Default"), "");
        let topics = json!([{ "Ref": "AlarmTopic" }]);
        let mut alarms = 0;
        for (id, alarm) in template.resources("AWS::CloudWatch::Alarm") {
            for actions in ["AlarmActions", "OKActions"] {
                assert_eq!(chosen(&alarm["Properties"][actions], "HasAlarmEmail", true), &topics, "{id}");
            }
            // Missing data rings only the alarm on the metric that the sweep reports
            // each minute: no other alarm would notice that the schedule has stopped.
            let missing = if id == "OrdersOverdueAlarm" { "breaching" } else { "notBreaching" };
            assert_eq!(alarm["Properties"]["TreatMissingData"], missing, "{id}");
            alarms += 1;
        }
        assert!(alarms > template.functions().count());
        let recipient = template.get("Resources.AlarmRecipient.Properties");
        assert_eq!((&recipient["TopicArn"], &recipient["Endpoint"]), (&topics[0], &json!({ "Ref": "AlarmEmail" })));
    }

    #[test]
    fn counts_only_the_metrics_of_its_own_stack() {
        let template = Template::read();
        let mut own = 0;
        let alarms = template.resources("AWS::CloudWatch::Alarm");
        for (id, metric) in
            alarms.flat_map(|(id, alarm)| metrics_of(&alarm["Properties"]).into_iter().map(move |it| (id, it)))
        {
            if metric["Namespace"] == chassis::metric::NAMESPACE {
                let stack = json!([{ "Name": chassis::metric::STACK, "Value": { "Ref": "AWS::StackName" } }]);
                assert_eq!(metric["Dimensions"], stack, "{id}");
                own += 1;
            }
            // Without dimensions the alarm counts the metrics of the whole account. SES judges
            // the whole account.
            let is_of_account = metric["Namespace"] == "AWS/SES";
            assert_eq!(list(&metric["Dimensions"]).next().is_none(), is_of_account, "{id}");
        }
        assert!(own > 0);
    }

    #[test]
    fn rings_when_events_are_not_consumed() {
        let template = Template::read();
        let alarm = template.get("Resources.EventsWaitingAlarm.Properties");
        assert_eq!(alarm["MetricName"], "ApproximateAgeOfOldestMessage");
        let queue = logical_id(&alarm["Dimensions"][0]["Value"]);
        let queue = &template.get("Resources")[queue]["Properties"];
        // An event that cannot be handled moves to the dead-letter queue before this
        // age. So an event of this age means that nothing consumes the queue.
        let tries = queue["RedrivePolicy"]["maxReceiveCount"].as_u64().unwrap();
        assert_eq!(alarm["Threshold"], tries * queue["VisibilityTimeout"].as_u64().unwrap());
    }
}

mod a_sender {
    use super::*;

    #[test]
    fn may_have_a_default_configuration_set() {
        let template = Template::read();
        let mut sends = template.statements().filter(|statement| statement.actions == ["ses:SendEmail"]);
        let on_aws = sends.find(|statement| !statement.condition.is_null()).expect("a statement for AWS");
        let arn = |name: &str| format!("arn:${{AWS::Partition}}:ses:${{AWS::Region}}:${{AWS::AccountId}}:{name}/*");
        let resources: Vec<_> = on_aws.resources.iter().map(|resource| resource["Fn::Sub"].as_str().unwrap()).collect();
        assert_eq!(resources, [arn("identity"), arn("configuration-set")]);
        assert_eq!(on_aws.condition, &json!({ "StringEquals": { "ses:FromAddress": { "Ref": "EmailSender" } } }));
    }

    #[test]
    fn sends_each_e_mail_with_the_configuration_set_that_reports_bounces_and_complaints() {
        let template = Template::read();
        let name = json!({ "Fn::Sub": "${AWS::StackName}-email" });
        assert_eq!(template.get("Resources.EmailConfigurationSet.Properties.Name"), &name);
        let notifications = template.get("Resources.Notifications");
        assert_eq!(notifications["Properties"]["Environment"]["Variables"]["EMAIL_CONFIGURATION_SET"], name);
        assert_eq!(notifications["DependsOn"], "EmailConfigurationSet");
        let feedback = template.get("Resources.EmailFeedback.Properties");
        assert_eq!(feedback["ConfigurationSetName"], json!({ "Ref": "EmailConfigurationSet" }));
        let destination = &feedback["EventDestination"];
        assert_eq!(
            (&destination["Enabled"], &destination["MatchingEventTypes"]),
            (&json!(true), &json!(["bounce", "complaint"]))
        );
    }

    #[test]
    fn that_already_exists_is_not_created_again() {
        let template = Template::read();
        assert_eq!(template.get("Parameters.SenderExists.Default"), "false");
        assert_eq!(template.get("Resources.Sender.Condition"), "MakesSender");
        let makes = json!({ "Fn::Equals": [{ "Ref": "SenderExists" }, "false"] });
        assert_eq!(template.get("Conditions.MakesSender"), &makes);
        let records = template.get("Conditions.HasSenderRecords");
        assert!(list(&records["Fn::And"]).any(|condition| condition["Condition"] == "MakesSender"));
    }

    #[test]
    fn also_sends_the_user_pools_mail_on_request() {
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

/// The operands of all comparison functions, such as `Fn::Equals`, in a value.
fn compared(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(members) => members.iter().flat_map(compared).collect(),
        Value::Object(members) => {
            let of = members.iter().map(|(function, operand)| match function.as_str() {
                "Fn::Equals" | "Fn::Contains" | "Fn::EachMemberEquals" | "Fn::EachMemberIn" => flatten(operand),
                _ => compared(operand),
            });
            of.flatten().collect()
        }
        _ => Vec::new(),
    }
}

/// The elements of a list and of all lists inside it.
fn flatten(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(members) => members.iter().flat_map(flatten).collect(),
        element => vec![element],
    }
}

mod a_parameter {
    use super::*;

    #[test]
    fn is_a_string_and_is_compared_with_strings() {
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

    /// Random values that CloudFormation would accept for a parameter.
    fn samples(template: &Template, parameter: &str) -> Vec<String> {
        let declared = &template.get("Parameters")[parameter];
        if !declared["AllowedValues"].is_null() {
            return list(&declared["AllowedValues"]).map(|value| value.as_str().unwrap().to_owned()).collect();
        }
        let pattern = declared["AllowedPattern"].as_str();
        let pattern = pattern.unwrap_or_else(|| panic!("a function reads {parameter}, which has no AllowedPattern"));
        // `string_regex` supports neither anchors nor look-ahead, so they are cut off.
        // `template.constraint` then filters out the values that they exclude.
        let mut shape = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')).unwrap();
        while let Some((_, rest)) = shape.strip_prefix("(?!").and_then(|rest| rest.split_once(')')) {
            shape = rest;
        }
        let shape = string_regex(shape).unwrap();
        let mut runner = TestRunner::deterministic();
        let made = (0..2000).map(|_| shape.new_tree(&mut runner).unwrap().current());
        let accepts = template.constraint(parameter);
        let samples: BTreeSet<_> = made.filter(|text| accepts(text)).take(300).collect();
        assert!(samples.len() > 20, "{parameter}: {samples:?}");
        samples.into_iter().collect()
    }

    /// The value of an environment variable if `parameter` has the value `text`. All
    /// other parameters and resources get a fixed value. Returns `None` if the variable
    /// is not set.
    fn resolve(value: &Value, parameter: &str, text: &str) -> Option<String> {
        if let Some(attribute) = value["Fn::GetAtt"].as_str() {
            assert!(attribute.ends_with("Url.FunctionUrl"), "this test cannot resolve {value}");
            return Some("https://something.lambda-url.us-east-1.on.aws/".to_owned());
        }
        // A text with values of its own, none of which is a parameter.
        if let Some(text_and_own) = value["Fn::Sub"].as_array() {
            return resolve(&json!({ "Fn::Sub": text_and_own[0] }), parameter, text);
        }
        let is_local = parameter == "LocalEndpoint" && !text.is_empty();
        if let Some(choice) = value["Fn::If"].as_array() {
            assert_eq!(choice[0], "IsLocal");
            return resolve(&choice[if is_local { 1 } else { 2 }], parameter, text);
        }
        match (value["Ref"].as_str(), value["Fn::Sub"].as_str()) {
            (Some("AWS::NoValue"), _) => None,
            (Some(name), _) => Some(if name == parameter { text } else { "" }.to_owned()),
            (None, Some(pattern)) => Some(variables(pattern).fold(pattern.to_owned(), |whole, name| {
                whole.replace(&format!("${{{name}}}"), if name == parameter { text } else { "something" })
            })),
            _ => panic!("this test cannot resolve {value}"),
        }
    }

    #[test]
    fn that_a_function_reads_accepts_only_values_with_which_the_function_starts() {
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
                    let changed = variables.iter().map(|(name, value)| (*name, resolve(value, parameter, &text)));
                    let started = configured(function.name, &changed.collect::<Vec<_>>());
                    assert!(started.is_ok(), "{}, {parameter}={text}: {started:?}", function.id);
                }
                tried.insert(parameter.to_owned());
            }
        }
        let expected = [
            "CancellationWindowHours",
            "CorsOrigin",
            "DebugLogShare",
            "EmailSender",
            "LocalEndpoint",
            "LogLevel",
            "SpanLines",
        ];
        assert_eq!(tried, expected.map(String::from).into());
    }

    #[test]
    fn that_names_an_origin_accepts_exactly_what_the_functions_accept() {
        let template = Template::read();
        let accepts = template.constraint("CorsOrigin");
        let mut runner = TestRunner::deterministic();
        // A pattern for texts that are similar to origins, with each kind of mistake.
        let similar =
            "(https?|HTTP)://([A-Za-z0-9-]{1,3}[.]?|[0-9]{1,3}[.]){1,4}(ada@)?[a-z0-9.-]{0,2}(:[0-9]{0,5}|:80|:443)?/?";
        let similar = string_regex(similar).unwrap();
        let similar = (0..20_000).map(|_| similar.new_tree(&mut runner).unwrap().current());
        let mut accepted = 0;
        for text in similar.chain(samples(&template, "CorsOrigin")).filter(|text| !text.is_empty()) {
            assert_eq!(accepts(&text), text.parse::<Origin>().is_ok(), "{text}");
            accepted += usize::from(accepts(&text));
        }
        assert!(accepted > 300, "{accepted}");
    }

    /// IAM compares strings exactly. If the parameter accepted an e-mail address that the
    /// code sends in another form, the role's condition would refuse every e-mail.
    #[test]
    fn in_a_roles_condition_is_accepted_only_in_the_form_that_the_code_sends() {
        let template = Template::read();
        let mut named: BTreeSet<_> = template.statements().flat_map(|it| names(it.condition)).collect();
        named.retain(|name| !template.get("Parameters")[name].is_null());
        assert_eq!(named, BTreeSet::from(["EmailSender"]));
        for text in samples(&template, "EmailSender") {
            assert_eq!(text.parse::<Email>().unwrap().expose(), text);
        }
    }

    #[test]
    fn accepts_usual_values_and_refuses_values_that_functions_or_aws_would_refuse() {
        let template = Template::read();
        let label = "a".repeat(63);
        let long_domain = format!("orders@{label}a.example");
        let examples: [(&str, &[&str], &[&str]); 12] = [
            ("CancellationWindowHours", &["0", "24", "720"], &["", "0.5", "-1", "721", "1000"]),
            (
                "LogLevel",
                &["", "info", "warn,orders=debug", "chassis::http=trace"],
                &["in fo", "'info'", "[a{b=c}]=info", "orders=loud", "a=b=c", "info,", "=info", "a:b=info", "99999"],
            ),
            ("DebugLogShare", &["0", "1", "0.05", "0.5"], &["", "2", "1.5", "0.", ".5", "0.001", "-0.1", "0,5"]),
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
                assert!(template.accepts(parameter, example), "{parameter}: {example}");
            }
            for example in bad {
                assert!(!template.accepts(parameter, example), "{parameter}: {example}");
            }
        }
        for (name, declared) in entries(template.get("Parameters")) {
            let default = &declared["Default"];
            assert!(!default.is_string() || template.accepts(name, default.as_str().unwrap()), "{name}: {default}");
        }
    }

    #[test]
    fn that_names_a_domain_requires_the_certificate_parameter() {
        let template = Template::read();
        let rule = template.get("Rules.ADomainHasACertificate");
        let is_set = |name: &str| json!({ "Fn::Not": [{ "Fn::Equals": [{ "Ref": name }, ""] }] });
        assert_eq!(rule["RuleCondition"], is_set("ApiDomain"));
        assert_eq!(rule["Assertions"][0]["Assert"], is_set("ApiCertificate"));
    }

    #[test]
    fn has_the_same_default_and_description_in_the_documentation() {
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
