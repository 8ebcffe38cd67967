//! Who a client of the explicit proxy is: a context, or one of the static users, by name and password (RFC 7617).
//!
//! The names and passwords of contexts are made here and are too long to be guessed. Those of users are people's: wrong
//! ones cost their client time, and each costs weir an argon2 hash, which is why right ones are remembered.

mod attempts;
mod contexts;
mod passwords;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use contexts::{Context, Contexts, Created, NewContext, TooManyContexts};
pub use passwords::hash_password;

use super::{By, Refusal};
use crate::config::{self, AuthMode, CONTEXT_PREFIX};
use crate::http::basic::Presented;
use attempts::Attempts;
use passwords::{Busy, Passwords};

/// Who somebody is.
#[derive(Debug)]
pub struct Identity {
    pub name: Arc<str>,
    pub context: Option<Context>,
}

impl Identity {
    /// Whether its context has a route of its own.
    #[must_use]
    pub fn has_route(&self) -> bool {
        self.context.as_ref().is_some_and(|context| context.route.is_some())
    }
}

/// All who may be somebody. One for all workers; it outlives reloads.
#[derive(Debug)]
pub struct Auth {
    pub contexts: Contexts,
    passwords: Passwords,
    attempts: Attempts,
}

impl Auth {
    /// Without contexts yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            contexts: Contexts::new(),
            passwords: Passwords::new(),
            attempts: Attempts::default(),
        })
    }

    /// Who presents these credentials; None where nobody has to be anybody.
    ///
    /// # Errors
    /// The refusal: 407, or what somebody gets who has tried too often.
    pub async fn identify(
        &self,
        settings: &config::Auth,
        client: IpAddr,
        presented: Option<&Presented>,
    ) -> Result<Option<Arc<Identity>>, Refusal> {
        match (settings.mode, presented) {
            (AuthMode::Off, _) | (AuthMode::Optional, None) => Ok(None),
            (AuthMode::Required, None) => Err(challenge(settings, "this proxy needs a name and a password")),
            (_, Some(Presented::Other)) => {
                Err(challenge(settings, "this proxy takes Basic credentials only"))
            }
            (_, Some(Presented::Basic { name, password })) => {
                if let Some(identity) = self.contexts.verify(name, password) {
                    return Ok(Some(identity));
                }
                // Boxed: few come this way.
                Box::pin(self.identify_user(settings, client, name, password)).await.map(Some)
            }
        }
    }

    async fn identify_user(
        &self,
        settings: &config::Auth,
        client: IpAddr,
        name: &str,
        password: &str,
    ) -> Result<Arc<Identity>, Refusal> {
        let user = settings.users.iter().find(|user| user.name == name);
        let identity = || Arc::new(Identity { name: name.into(), context: None });
        if user.is_some_and(|user| self.passwords.is_known(&user.hash, password)) {
            return Ok(identity());
        }
        match self.attempts.turn(client) {
            Ok(wait) => tokio::time::sleep(wait).await,
            Err(wait) => return Err(too_often(wait)),
        }
        // A name that nobody has takes as long as one that somebody has.
        let hash = user.or(settings.users.first()).map(|user| &user.hash);
        let is_right = match hash {
            Some(hash) if !name.starts_with(CONTEXT_PREFIX) => {
                self.passwords.verify(hash, password).await.map_err(|Busy| busy())?
            }
            _ => false,
        };
        if is_right && user.is_some() {
            self.attempts.succeeded(client);
            return Ok(identity());
        }
        self.attempts.failed(client);
        Err(challenge(settings, "the name or the password is wrong"))
    }
}

/// RFC 9110 §15.5.8, RFC 7617 §2.1.
fn challenge(settings: &config::Auth, reason: &str) -> Refusal {
    let value = format!("Basic realm=\"{}\", charset=\"UTF-8\"", settings.realm);
    refuse(407, reason.to_owned()).with_field("Proxy-Authenticate", value)
}

fn too_often(wait: Duration) -> Refusal {
    let seconds = wait.as_secs() + 1;
    refuse(429, "too many wrong passwords have come from this address; wait".to_owned())
        .with_field("Retry-After", seconds.to_string())
}

fn busy() -> Refusal {
    refuse(503, "too many passwords wait to be checked; try again".to_owned())
}

fn refuse(status: u16, reason: String) -> Refusal {
    Refusal::new(status, By::Authentication, "security.auth", reason)
}

#[cfg(test)]
mod tests;
