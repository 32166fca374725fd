//! The two people as whom the console sends requests. Their tokens stay in this process:
//! the page never gets one.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{
    emulator::{COGNITO, Emulator},
    stack,
};

/// A token is valid for an hour, but `make up` gives Ada a new account if she was deactivated.
const KEPT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Person {
    Ada,
    Grace,
}

impl Person {
    pub const ALL: [Self; 2] = [Self::Ada, Self::Grace];

    pub fn id(self) -> &'static str {
        self.into()
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Ada => "Ada Lovelace",
            Self::Grace => "Grace Hopper",
        }
    }

    pub fn role(self) -> &'static str {
        match self {
            Self::Ada => "customer",
            Self::Grace => "administrator",
        }
    }

    fn email(self) -> &'static str {
        match self {
            Self::Ada => "ada@example.com",
            Self::Grace => "grace@example.com",
        }
    }
}

#[derive(Clone)]
pub struct People {
    emulator: Emulator,
    passwords: Arc<BTreeMap<String, String>>,
    tokens: Arc<Mutex<HashMap<Person, (String, Instant)>>>,
}

impl People {
    /// Reads the passwords, which `make up` has stored beside the description of the stack.
    pub fn of(emulator: Emulator, folder: &Path) -> Result<Self> {
        let passwords = stack::read(&folder.join("passwords.json")).context("`make up` creates the two people")?;
        Ok(Self { emulator, passwords: Arc::new(passwords), tokens: Arc::default() })
    }

    /// Returns an ID token of the person.
    pub async fn token(&self, person: Person) -> Result<String> {
        let kept = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(&person).cloned();
        if let Some((token, since)) = kept
            && since.elapsed() < KEPT
        {
            return Ok(token);
        }
        let email = person.email();
        let password = self.passwords.get(email).with_context(|| format!("{email} has no password"))?;
        let token = sign_in(&self.emulator, email, password).await?;
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(person, (token.clone(), Instant::now()));
        Ok(token)
    }
}

/// Signs a person in. Returns a new ID token.
pub async fn sign_in(emulator: &Emulator, email: &str, password: &str) -> Result<String> {
    let request = json!({
        "AuthFlow": "USER_PASSWORD_AUTH",
        "ClientId": emulator.stack.client_id,
        "AuthParameters": { "USERNAME": email, "PASSWORD": password },
    });
    let answer = emulator.call(COGNITO, "InitiateAuth", &request).await?;
    // The answer itself must not be a part of the error: it may contain tokens.
    let token = answer["AuthenticationResult"]["IdToken"].as_str();
    Ok(token.with_context(|| format!("{email} got no token"))?.to_owned())
}
