//! Who a client of the explicit proxy is, and whether it has not asked too often.

use std::rc::Rc;
use std::sync::Arc;

use super::Engine;
use super::failure::Failure;
use super::recording::Recording;
use super::rewriting;
use crate::config::AuthMode;
use crate::http::basic::Presented;
use crate::policy::auth::Identity;
use crate::policy::limits::Who;
use crate::target::{Client, Front, Target};

/// Finds out who asks, and notes it in the flow. Clients that know of no proxy, and those of the gateway, are nobody.
///
/// # Errors
/// The refusal: 407, or 429.
pub(super) async fn identify(
    engine: &Engine,
    client: &Client,
    target: &Target,
    flow: &mut Recording,
) -> Result<Option<Arc<Identity>>, Failure> {
    let policy = engine.policy.current();
    let identity = match target.front {
        Front::Explicit if policy.auth.mode != AuthMode::Off => {
            let presented = target.credentials.as_deref();
            engine.auth.identify(&policy.auth, client.address.ip(), presented).await?
        }
        _ => None,
    };
    if let Some(identity) = &identity {
        flow.identify(Arc::clone(identity));
    }
    match identity.as_ref().and_then(|identity| identity.context.as_ref()) {
        Some(context) => match context.limit.as_ref().filter(|own| own.enabled) {
            Some(own) => engine.limits.take_from(&context.bucket, own, "its context's limits")?,
            None if policy.rate.enabled => {
                engine.limits.take_from(&context.bucket, &policy.rate, "security.rate_limiting")?;
            }
            None => {}
        },
        None if policy.rate.enabled => engine.limits.take_shared(&policy.rate, Who::of(client)).await?,
        None => {}
    }
    Ok(identity)
}

/// What a SOCKS5 client is to be asked for.
#[must_use]
pub fn mode(engine: &Rc<Engine>) -> AuthMode {
    engine.policy.current().auth.mode
}

/// Whether a client's context leads this target elsewhere.
#[must_use]
pub fn has_route(engine: &Engine, target: &Target) -> bool {
    let policy = engine.policy.current();
    if policy.auth.mode == AuthMode::Off || target.credentials.is_none() {
        return false;
    }
    // Who is wrong is told so by whoever opens the tunnel; only contexts have routes.
    let Some(Presented::Basic { name, password }) = target.credentials.as_deref() else { return false };
    let Some(identity) = engine.auth.contexts.verify(name, password) else { return false };
    rewriting::lead(engine, &mut target.clone(), Some(&identity)).is_some()
}

/// Whether a name and password are somebody's, as a SOCKS5 client has to be told before it says what it wants.
///
/// # Errors
/// The refusal.
pub async fn check(engine: &Rc<Engine>, client: &Client, presented: &Presented) -> Result<(), Failure> {
    let policy = engine.policy.current();
    engine.auth.identify(&policy.auth, client.address.ip(), Some(presented)).await?;
    Ok(())
}
