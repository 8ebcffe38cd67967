//! Who is let in, who is not, and what they are told.

use super::*;
use crate::config::User;

/// The cheapest hash that there is.
fn user(name: &str, password: &str) -> User {
    use argon2::password_hash::{PasswordHasher as _, SaltString};
    let params = argon2::Params::new(8, 1, 1, None).unwrap();
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let salt = SaltString::encode_b64(b"0123456789abcdef").unwrap();
    let hash = argon2.hash_password(password.as_bytes(), &salt).unwrap().to_string();
    User { name: name.to_owned(), hash }
}

fn settings(mode: AuthMode) -> config::Auth {
    config::Auth { mode, users: vec![user("alice", "s3cret")], ..config::Auth::default() }
}

fn presented(name: &str, password: &str) -> Presented {
    Presented::Basic { name: name.into(), password: password.into() }
}

/// The name, or the status.
async fn identify(auth: &Auth, mode: AuthMode, client: &str, presented: Option<Presented>) -> String {
    match auth.identify(&settings(mode), client.parse().unwrap(), presented.as_ref()).await {
        Ok(None) => "nobody".to_owned(),
        Ok(Some(identity)) => identity.name.to_string(),
        Err(refusal) => refusal.status.to_string(),
    }
}

#[tokio::test]
async fn modes_and_users() {
    let auth = Auth::new();
    let (client, alice) = ("192.0.2.1", || Some(presented("alice", "s3cret")));
    for (mode, expected) in
        [(AuthMode::Off, "nobody"), (AuthMode::Optional, "nobody"), (AuthMode::Required, "407")]
    {
        assert_eq!(identify(&auth, mode, client, None).await, expected, "{mode:?}");
    }
    assert_eq!(identify(&auth, AuthMode::Off, client, Some(Presented::Other)).await, "nobody");
    for mode in [AuthMode::Optional, AuthMode::Required] {
        assert_eq!(identify(&auth, mode, client, alice()).await, "alice");
        assert_eq!(identify(&auth, mode, client, Some(Presented::Other)).await, "407");
    }
    for (name, password) in [("alice", "wrong"), ("alice", ""), ("bob", "s3cret")] {
        let wrong = Some(presented(name, password));
        assert_eq!(identify(&auth, AuthMode::Optional, client, wrong).await, "407", "{name}");
    }
    assert!(auth.passwords.is_known(&settings(AuthMode::Off).users[0].hash, "s3cret"));
}

#[tokio::test]
async fn who_guesses_waits_and_others_do_not() {
    let auth = Auth::new();
    let (client, wrong) = ("192.0.2.1", || Some(presented("bob", "guess")));
    (0..20).for_each(|_| auth.attempts.failed(client.parse().unwrap()));
    assert_eq!(identify(&auth, AuthMode::Required, client, wrong()).await, "407");
    // The next turn is further away than anybody may wait.
    assert_eq!(identify(&auth, AuthMode::Required, client, wrong()).await, "429");
    assert_eq!(identify(&auth, AuthMode::Required, "192.0.2.2", wrong()).await, "407");
    // A context's credentials can't be guessed: they need no turn.
    let created = auth.contexts.create(NewContext::default(), 1).unwrap();
    let name = created.identity.name.to_string();
    let right = Some(presented(&name, &created.password));
    assert_eq!(identify(&auth, AuthMode::Required, client, right).await, name);
}

#[tokio::test]
async fn contexts_live_until_they_are_released_or_expire() {
    let auth = Auth::new();
    let new = NewContext { web_contents_id: Some(7), ..NewContext::default() };
    let created = auth.contexts.create(new, 2).unwrap();
    let name = &*created.identity.name;
    assert!(name.starts_with("wc-7-") && name.len() == 5 + 16, "{name}");
    assert!(auth.contexts.verify(name, &created.password).is_some());
    assert!(auth.contexts.verify(name, "").is_none());
    assert!(auth.contexts.verify("wc-7-", &created.password).is_none());
    let brief = NewContext { ttl: Some(Duration::ZERO), ..NewContext::default() };
    let expired = auth.contexts.create(brief, 2).unwrap();
    assert!(auth.contexts.verify(&expired.identity.name, &expired.password).is_none());
    assert_eq!(auth.contexts.create(NewContext::default(), 2).err(), Some(TooManyContexts(2)));
    auth.contexts.sweep(Duration::ZERO);
    assert_eq!(auth.contexts.count(), 1);

    let context = created.identity.context.as_ref().unwrap();
    let ended = context.ended();
    assert!(auth.contexts.release(&context.id, Duration::ZERO).is_some());
    ended.await;
    assert!(auth.contexts.release(&context.id, Duration::ZERO).is_none());
    assert!(auth.contexts.verify(name, &created.password).is_none());
}

#[test]
fn a_hash_is_one_that_the_configuration_takes() {
    let hash = hash_password("s3cret").unwrap();
    let yaml = format!("security: {{auth: {{users: [{{name: a, password_hash: '{hash}'}}]}}}}");
    let config = config::tests::load_files(&[yaml.as_bytes()], &[], &[]).unwrap();
    assert_eq!(config.security.auth.users[0].hash, hash);
    for bad in [
        "s3cret",
        "$2b$12$abcdefghijklmnopqrstuu",
        "$argon2id$v=19$m=99999999,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
    ] {
        let yaml = format!("security: {{auth: {{users: [{{name: a, password_hash: '{bad}'}}]}}}}");
        let errors = config::tests::load_files(&[yaml.as_bytes()], &[], &[]).unwrap_err();
        assert!(errors.contains("hash") && !errors.contains(bad), "{errors}");
    }
}
