//! `security.auth`: who the explicit proxy's clients are.

use std::time::Duration;

use argon2::password_hash::PasswordHash;

use super::keys::{hours, ms};
use super::kinds::{Fault, choice, duration, number, quoted};
use super::section::Section;
use super::shape::{Hide, Shape, shaped};

/// `security.auth`.
#[derive(Debug, Clone, PartialEq)]
pub struct Auth {
    pub mode: AuthMode,
    /// Told to clients in Proxy-Authenticate. Default weir.
    pub realm: String,
    pub users: Vec<User>,
    /// Contexts at one time. Default 10000.
    pub max_contexts: usize,
    /// How long a context lives that is made without a time. Default 0s: until it is released.
    pub context_ttl: Duration,
    /// How long what a context has open may go on once it is released. Default 5s.
    pub release_grace: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Credentials are not looked at.
    Off,
    /// Those that are given must be right.
    Optional,
    /// Nobody is served without.
    Required,
}

/// A static user.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// Of the password, in the PHC string format.
    pub hash: String,
}

impl std::fmt::Debug for User {
    /// Without the hash.
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        text.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What names of contexts begin with; no user has such a name.
pub const CONTEXT_PREFIX: &str = "wc-";

/// The most memory, in KiB, and the most passes that a hash may ask for: each login pays for them.
const MAX_MEMORY: u32 = 256 << 10;
const MAX_PASSES: u32 = 64;

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: AuthMode::Off,
            realm: "weir".to_owned(),
            users: Vec::new(),
            max_contexts: 10_000,
            context_ttl: Duration::ZERO,
            release_grace: Duration::from_secs(5),
        }
    }
}

pub(super) fn read(s: &mut Section<'_, '_>) -> Auth {
    const MODES: &[(&str, AuthMode)] =
        &[("off", AuthMode::Off), ("optional", AuthMode::Optional), ("required", AuthMode::Required)];

    let d = Auth::default();
    Auth {
        mode: s.read("mode", d.mode, choice(MODES)),
        realm: s.read("realm", d.realm, realm),
        users: s.sections("users", user).into_iter().flatten().collect(),
        max_contexts: s.read("max_contexts", d.max_contexts, number(0..=1_000_000)),
        context_ttl: s.read("context_ttl", d.context_ttl, duration(ms(0)..=hours(365 * 24))),
        release_grace: s.read("release_grace", d.release_grace, duration(ms(0)..=hours(1))),
    }
}

fn user(s: &mut Section<'_, '_>) -> Option<User> {
    let (name, hash) = (
        s.required("name", name),
        s.required("password_hash", shaped(Shape::Secret(Hide::All, Shape::Text.into()), hash)),
    );
    Some(User { name: name?, hash: hash? })
}

/// RFC 7617 §2: no colon.
fn name(text: &str) -> Result<String, Fault> {
    let fits = (1..=255).contains(&text.len()) && !text.contains(|c: char| c.is_control() || c == ':');
    if !fits {
        return Err(format!("{} is not a name of 1 to 255 characters without `:`", quoted(text)).into());
    }
    if text.starts_with(CONTEXT_PREFIX) {
        return Err(
            format!("{} begins with `{CONTEXT_PREFIX}`, as names of contexts do", quoted(text)).into()
        );
    }
    Ok(text.to_owned())
}

/// Says what is wrong, but not with what.
fn hash(text: &str) -> Result<String, Fault> {
    let bad = || Fault::from("not an argon2 hash as `weir config hash-password` prints it".to_owned());
    let hash = PasswordHash::new(text).map_err(|_| bad())?;
    if !hash.algorithm.as_str().starts_with("argon2") || hash.hash.is_none() || hash.salt.is_none() {
        return Err(bad());
    }
    let params = argon2::Params::try_from(&hash).map_err(|_| bad())?;
    if params.m_cost() > MAX_MEMORY || params.t_cost() > MAX_PASSES {
        return Err(format!("a hash that costs more than {MAX_MEMORY} KiB or {MAX_PASSES} passes").into());
    }
    Ok(text.to_owned())
}

fn realm(text: &str) -> Result<String, Fault> {
    let fits = |byte: u8| byte == b' ' || byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if text.is_empty() || text.len() > 64 || !text.bytes().all(fits) {
        return Err(format!("{} is not 1 to 64 characters of ASCII without quotes", quoted(text)).into());
    }
    Ok(text.to_owned())
}
