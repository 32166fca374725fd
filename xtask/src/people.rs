//! The demo's two people, and how they sign in.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{process::quiet, progress::Step, shop::Http, stack::Stack, tools::Tools};

/// Somebody with an account in the pool. Addresses and numbers are of those
/// that are reserved for examples.
#[derive(Clone, Copy)]
pub struct Person {
    pub name: &'static str,
    pub email: &'static str,
    phone: &'static str,
    is_admin: bool,
}

impl Person {
    pub const CUSTOMER: Self =
        Self { name: "Ada Lovelace", email: "ada@example.com", phone: "+15555550100", is_admin: false };
    pub const ADMIN: Self =
        Self { name: "Grace Hopper", email: "grace@example.com", phone: "+15555550101", is_admin: true };
}

/// The people's passwords: made here, known only here.
pub struct Passwords {
    file: PathBuf,
    by_email: BTreeMap<String, String>,
}

impl Passwords {
    pub fn in_folder(folder: &Path) -> Self {
        let file = folder.join("passwords.json");
        let by_email = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { file, by_email }
    }

    /// The person's ID token, fresh from the pool.
    pub fn sign_in(&self, stack: &Stack, person: Person) -> Result<String> {
        let password = self.by_email.get(person.email).with_context(|| format!("{} has no password", person.email))?;
        let request = json!({
            "AuthFlow": "USER_PASSWORD_AUTH",
            "ClientId": stack.client_id,
            "AuthParameters": { "USERNAME": person.email, "PASSWORD": password },
        });
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", "AWSCognitoIdentityProviderService.InitiateAuth"),
        ];
        let answer = Http::new().send("POST", &stack.emulator_url, &headers, Some(&request))?.granted()?;
        let token = answer["AuthenticationResult"]["IdToken"].as_str();
        Ok(token.with_context(|| format!("{} got no token: {answer}", person.email))?.to_owned())
    }

    /// The person's password, made at the first call.
    fn of(&mut self, person: Person) -> Result<String> {
        if let Some(password) = self.by_email.get(person.email) {
            return Ok(password.clone());
        }
        let password = invent_password()?;
        self.by_email.insert(person.email.to_owned(), password.clone());
        let text = serde_json::to_vec_pretty(&self.by_email).context("cannot render the passwords")?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.file)
            .with_context(|| format!("cannot write {}", self.file.display()))?;
        file.write_all(&text).with_context(|| format!("cannot write {}", self.file.display()))?;
        Ok(password)
    }
}

/// An administrator's action on a person of the pool.
fn pool(tools: &Tools, stack: &Stack, person: Person, action: &str) -> Command {
    let mut command = tools.aws("aws", &stack.emulator_url);
    command.args(["cognito-idp", action, "--user-pool-id", &stack.user_pool_id, "--username", person.email]);
    command
}

/// Puts a person into the administrators' group, where they may be already.
fn join_admins(tools: &Tools, stack: &Stack, person: Person) -> Result<()> {
    let mut join = pool(tools, stack, person, "admin-add-user-to-group");
    quiet(join.args(["--group-name", "admin"])).with_context(|| format!("{} is no admin", person.email))?;
    Ok(())
}

/// Sees to it that both can sign in, and that the customer has a profile.
pub fn welcome(tools: &Tools, stack: &Stack, folder: &Path) -> Result<Passwords> {
    let step = Step::begin("People: a customer and an admin");
    let mut passwords = Passwords::in_folder(folder);
    for person in [Person::CUSTOMER, Person::ADMIN] {
        passwords.of(person)?;
        if passwords.sign_in(stack, person).is_err() {
            create(tools, stack, &mut passwords, person)?;
        } else if person.is_admin {
            // An earlier run may have ended before this.
            join_admins(tools, stack, person)?;
        }
    }
    let token = passwords.sign_in(stack, Person::CUSTOMER)?;
    let profile = json!({ "email": Person::CUSTOMER.email, "name": Person::CUSTOMER.name });
    let authorization = format!("Bearer {token}");
    let answer = stack.ask("POST", "/users", &[("authorization", &authorization)], Some(&profile))?;
    if answer.status != 409 {
        answer.granted().context("the customer got no profile")?;
    }
    step.done(format!("{} and {}", Person::CUSTOMER.email, Person::ADMIN.email));
    Ok(passwords)
}

fn create(tools: &Tools, stack: &Stack, passwords: &mut Passwords, person: Person) -> Result<()> {
    let mut create = pool(tools, stack, person, "admin-create-user");
    create.args(["--message-action", "SUPPRESS", "--user-attributes"]);
    create.args([format!("Name=name,Value={}", person.name), format!("Name=email,Value={}", person.email)]);
    create.arg(format!("Name=phone_number,Value={}", person.phone));
    create.args(["Name=email_verified,Value=true", "Name=phone_number_verified,Value=true"]);
    // Somebody who is there has another password: the file with theirs was lost,
    // or an earlier run ended before they got it.
    match quiet(&mut create) {
        Err(error) if !error.to_string().contains("UsernameExistsException") => {
            return Err(error.context(format!("{} could not be created", person.email)));
        }
        _ => {}
    }

    let mut set_password = pool(tools, stack, person, "admin-set-user-password");
    set_password.args(["--permanent", "--password", &passwords.of(person)?]);
    quiet(&mut set_password).with_context(|| format!("{} got no password", person.email))?;

    if person.is_admin {
        join_admins(tools, stack, person)?;
    }
    Ok(())
}

/// A hundred random bits, and one character of each kind that the pool asks for.
fn invent_password() -> Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345678";
    let mut bytes = [0; 20];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes)).context("no randomness here")?;
    let letters = bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
    Ok(letters.chain("-Aa1".chars()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_has_all_kinds_of_characters_and_is_new_each_time() {
        let (one, other) = (invent_password().expect("a password"), invent_password().expect("a password"));
        assert_ne!(one, other);
        for kind in [char::is_uppercase, char::is_lowercase, char::is_numeric] {
            assert!(one.contains(kind), "{one}");
        }
        assert!(one.len() >= 12 && one.contains('-'));
    }
}
