//! Requests to AWS that a test signs with the credentials of a function's role.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use reqwest::Client;
use serde_json::Value;

use crate::Stack;

/// A request before it is signed.
#[derive(Clone, Debug)]
pub struct UnsignedRequest {
    /// The name of the AWS service in the signature.
    pub service: &'static str,
    pub method: &'static str,
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// Signs and sends requests with one set of credentials.
#[derive(Clone, Debug)]
pub struct Signer {
    region: String,
    credentials: Credentials,
    client: Client,
}

impl Stack {
    /// Returns a signer with the credentials of a function's role. `function` is the
    /// function's short name.
    ///
    /// Only Lambda may assume a function's role. The emulator's root user may do what
    /// every AWS service may do, so the emulator gives it the role's credentials.
    pub async fn role_of(&self, function: &str) -> Signer {
        let role = self.role_arn(function).await;
        let assumed = self.aws(&["sts", "assume-role", "--role-arn", &role, "--role-session-name", "tests"]).await;
        let assumed: Value = serde_json::from_str(&assumed).expect("credentials in JSON");
        let part = |name: &str| assumed["Credentials"][name].as_str().expect("a part of the credentials").to_owned();
        let (id, secret, token) = (part("AccessKeyId"), part("SecretAccessKey"), part("SessionToken"));
        self.signer(Credentials::new(id, secret, Some(token), None, "tests"))
    }

    /// The ARN of a function's role.
    pub async fn role_arn(&self, function: &str) -> String {
        let get = ["lambda", "get-function-configuration", "--query", "Role", "--output", "text"];
        let role = self.aws(&[&get[..], &["--function-name", &self.functions[function]]].concat()).await;
        role.trim().to_owned()
    }

    fn signer(&self, credentials: Credentials) -> Signer {
        Signer { region: self.region.clone(), credentials, client: Client::new() }
    }
}

impl Signer {
    /// Signs and sends a request. Returns the status and the body of the response.
    pub async fn send(&self, request: &UnsignedRequest) -> (u16, String) {
        let identity = self.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(request.service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .expect("all that a signature needs")
            .into();
        let headers = request.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let body = SignableBody::Bytes(request.body.as_bytes());
        let signable = SignableRequest::new(request.method, &request.url, headers, body).expect("a request to sign");
        let (instructions, _) = sign(signable, &params).expect("a signature").into_parts();
        let mut signed = http::Request::builder().method(request.method).uri(&request.url);
        for (name, value) in &request.headers {
            signed = signed.header(*name, value);
        }
        let mut signed = signed.body(request.body.clone()).expect("a request");
        instructions.apply_to_request_http1x(&mut signed);
        let signed = signed.try_into().expect("a request");
        let answer = self.client.execute(signed).await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    }
}
