//! Creates the accounts of the demo's two users, and signs the users in.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{emulator_api::COGNITO, http::Response, prelude::*};

/// A user with an account in the user pool. The e-mail addresses and phone numbers are
/// reserved for examples, so they belong to nobody.
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

    /// Calls an administrator's action of Cognito on this user's account. Adds the
    /// account to the request.
    fn administer(self, stack: &Stack, action: &str, mut request: Value) -> Result<()> {
        request["UserPoolId"] = json!(stack.user_pool_id);
        request["Username"] = json!(self.email);
        COGNITO.call(stack, action, &request)?;
        Ok(())
    }
}

/// The users' passwords, which are generated and stored in a file.
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

    /// Signs a user in. Returns a new ID token.
    pub fn sign_in(&self, stack: &Stack, person: Person) -> Result<String> {
        let password = self.by_email.get(person.email).with_context(|| format!("{} has no password", person.email))?;
        let request = json!({
            "AuthFlow": "USER_PASSWORD_AUTH",
            "ClientId": stack.client_id,
            "AuthParameters": { "USERNAME": person.email, "PASSWORD": password },
        });
        let response = COGNITO.call(stack, "InitiateAuth", &request)?;
        let token = response["AuthenticationResult"]["IdToken"].as_str();
        Ok(token.with_context(|| format!("{} got no token: {response}", person.email))?.to_owned())
    }

    /// Returns the user's password. Generates and stores one if the file has none.
    fn of(&mut self, person: Person) -> Result<String> {
        if let Some(password) = self.by_email.get(person.email) {
            return Ok(password.clone());
        }
        let password = random_password()?;
        self.by_email.insert(person.email.to_owned(), password.clone());
        let text = serde_json::to_vec_pretty(&self.by_email).context("the passwords cannot be written as JSON")?;
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.file);
        file.and_then(|mut file| file.write_all(&text))
            .with_context(|| format!("cannot write {}", self.file.display()))?;
        Ok(password)
    }
}

/// Creates the accounts of the customer and the admin, and the customer's profile. An
/// account or a profile that exists already is kept. A customer who was deactivated cannot
/// order any more and cannot be activated again, so the customer gets a new account.
pub fn create_users(stack: &Stack, folder: &Path) -> Result<Passwords> {
    let step = Step::begin("People: a customer and an admin");
    let mut passwords = Passwords::in_folder(folder);
    for person in [Person::CUSTOMER, Person::ADMIN] {
        let password = passwords.of(person)?;
        if passwords.sign_in(stack, person).is_err() {
            create_account(stack, person, &password)?;
        }
        if person.is_admin {
            person
                .administer(stack, "AdminAddUserToGroup", json!({ "GroupName": "admin" }))
                .with_context(|| format!("{} could not become an admin", person.email))?;
        }
    }
    let mut profile = create_profile(stack, &passwords, Person::CUSTOMER)?;
    if profile.has_code("user_inactive") {
        step.note(format!("{} was deactivated, and gets a new account", Person::CUSTOMER.name));
        Person::CUSTOMER.administer(stack, "AdminDeleteUser", json!({})).context("the old account stays")?;
        create_account(stack, Person::CUSTOMER, &passwords.of(Person::CUSTOMER)?)?;
        profile = create_profile(stack, &passwords, Person::CUSTOMER)?;
    }
    if !profile.has_code("user_exists") {
        profile.success().context("the customer's profile could not be created")?;
    }
    step.done(format!("{} and {}", Person::CUSTOMER.email, Person::ADMIN.email));
    Ok(passwords)
}

fn create_profile(stack: &Stack, passwords: &Passwords, person: Person) -> Result<Response> {
    let authorization = format!("Bearer {}", passwords.sign_in(stack, person)?);
    let profile = json!({ "email": person.email, "name": person.name });
    stack.send("POST", "/users", &[("authorization", &authorization)], Some(&profile))
}

fn create_account(stack: &Stack, person: Person, password: &str) -> Result<()> {
    let attributes = [
        ("name", person.name),
        ("email", person.email),
        ("phone_number", person.phone),
        ("email_verified", "true"),
        ("phone_number_verified", "true"),
    ];
    let attributes = attributes.map(|(name, value)| json!({ "Name": name, "Value": value }));
    let request = json!({ "MessageAction": "SUPPRESS", "UserAttributes": attributes });
    match person.administer(stack, "AdminCreateUser", request) {
        // The account exists, but its password is not the stored one: the file of
        // passwords was deleted, or an earlier run ended before it set the password.
        Err(error) if error.to_string().contains("UsernameExistsException") => {}
        created => created.with_context(|| format!("the account of {} could not be created", person.email))?,
    }
    person
        .administer(stack, "AdminSetUserPassword", json!({ "Password": password, "Permanent": true }))
        .with_context(|| format!("the password of {} could not be set", person.email))
}

/// Generates a password of a hundred random bits. A fixed ending adds a character of
/// each class that the user pool demands.
fn random_password() -> Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345678";
    let mut bytes = [0; 20];
    let random = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    random.context("/dev/urandom cannot be read")?;
    let letters = bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
    Ok(letters.chain("-Aa1".chars()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_passwords_differ_and_have_a_character_of_each_class() {
        let (one, other) = (random_password().expect("a password"), random_password().expect("a password"));
        assert_ne!(one, other);
        for class in [char::is_uppercase, char::is_lowercase, char::is_numeric] {
            assert!(one.contains(class), "{one}");
        }
        assert!(one.len() >= 12 && one.contains('-'));
    }
}
