"""Starts MiniStack, and adds to the events of function URLs what MiniStack leaves out.

On AWS, the event of a function URL with IAM authorisation names the caller, in
requestContext.authorizer.iam. The services need the name: they check which role may call
which route. MiniStack checks the caller's signature and rights, but does not name the
caller. This program adds the caller in the form in which MiniStack names it in the
events of HTTP APIs. If MiniStack names the caller itself one day, `ministack` can be
started directly.
"""

import sys

from ministack.app import main
from ministack.core.iam_evaluator import resolve_caller_identity
from ministack.core.router import extract_access_key_id
from ministack.services import lambda_svc

build_event = lambda_svc._build_function_url_event


def build_event_with_caller(*arguments, **named):
    event = build_event(*arguments, **named)
    headers, query = event["headers"], event.get("queryStringParameters", {})
    caller = resolve_caller_identity(extract_access_key_id(headers, query))
    if caller:
        event["requestContext"]["authorizer"] = {
            "iam": {
                "accessKey": caller["accessKey"],
                "accountId": caller["accountId"],
                "callerId": caller["userId"],
                "userArn": caller["userArn"],
                "userId": caller["userId"],
            }
        }
    return event


lambda_svc._build_function_url_event = build_event_with_caller

if __name__ == "__main__":
    sys.exit(main())
