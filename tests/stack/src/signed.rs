//! Requests to AWS, signed with one's own credentials: as a role, or as the
//! account's owner.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use reqwest::Client;
use serde_json::Value;

use crate::Stack;

/// A request that is yet to be signed.
#[derive(Clone, Debug)]
pub struct Request {
    /// The service's name in signatures.
    pub service: &'static str,
    /// Such as `POST`.
    pub method: &'static str,
    /// The whole address.
    pub url: String,
    /// Headers that say what is asked for.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

/// Somebody who may sign.
#[derive(Clone, Debug)]
pub struct Signer {
    region: String,
    credentials: Credentials,
    client: Client,
}

impl Stack {
    /// The account's owner, who may do anything.
    pub fn owner(&self) -> Signer {
        self.signer(Credentials::new("test", "test", None, None, "tests"))
    }

    /// The role of a function, by the function's short name.
    ///
    /// Only Lambda may assume these roles. The emulator takes its owner for
    /// any AWS service, and so gives the credentials that a function runs with.
    pub async fn role_of(&self, function: &str) -> Signer {
        let role = self.role_arn(function).await;
        let assumed = self.aws(&["sts", "assume-role", "--role-arn", &role, "--role-session-name", "tests"]).await;
        let assumed: Value = serde_json::from_str(&assumed).expect("credentials in JSON");
        let part = |name: &str| assumed["Credentials"][name].as_str().expect("a part of the credentials").to_owned();
        let (id, secret, token) = (part("AccessKeyId"), part("SecretAccessKey"), part("SessionToken"));
        self.signer(Credentials::new(id, secret, Some(token), None, "tests"))
    }

    /// The name of that role.
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
    /// Sends it; returns the status and the body.
    pub async fn send(&self, request: &Request) -> (u16, String) {
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
