//! The policy's word on a request or tunnel, before anything is done for it.

use super::Engine;
use super::failure::Failure;
use crate::http::authority::Host;
use crate::policy::{Passed, Policy, Subject};
use crate::target::{Hop, Target};

/// Judges what is asked for. What is left to judge once addresses are known is judged by [`Engine::addresses`].
///
/// # Errors
/// The refusal.
pub(super) async fn judge(
    engine: &Engine,
    subject: &Subject<'_>,
    target: &Target,
) -> Result<Passed, Failure> {
    let policy = engine.policy.current();
    let passed = judge_by(&policy, engine, subject, target).await?;
    match subject.own_policy() {
        None => Ok(passed),
        Some(own) => match (passed, judge_by(own, engine, subject, target).await?) {
            (Passed::Whole, Passed::Whole) => Ok(Passed::Whole),
            _ => Ok(Passed::UntilAddress),
        },
    }
}

async fn judge_by(
    policy: &Policy,
    engine: &Engine,
    subject: &Subject<'_>,
    target: &Target,
) -> Result<Passed, Failure> {
    if policy.is_idle() {
        return Ok(Passed::Whole);
    }
    let passed = policy.check(subject)?;
    // A name that lets something pass must be more than a claim.
    if policy.allows_names()
        && let (Some(Host::Name(name)), Some(original)) = (subject.host, subject.original)
        && !Box::pin(leads_there(engine, target, name)).await
    {
        let unnamed = Subject { host: None, ..*subject };
        policy.check(&unnamed).map_err(|mut refusal| {
            refusal.reason = format!("{name} is not known to lead to {original}: {}", refusal.reason);
            refusal
        })?;
    }
    Ok(passed)
}

/// Whether a captured connection goes to the server that its client names: by what the client's DNS has answered, or by
/// what weir finds itself.
async fn leads_there(engine: &Engine, target: &Target, name: &str) -> bool {
    let (Some(original), Some(authority)) = (target.original_destination, &target.authority) else {
        return true;
    };
    let namespace = target.vantage.namespace.as_ref().map(|namespace| namespace.cookie());
    let plain = name.strip_suffix('.').unwrap_or(name);
    if engine.dns.as_ref().is_some_and(|dns| dns.knows(namespace, original.ip(), plain)) {
        return true;
    }
    let hop = Hop::Authority(authority.clone(), target.scheme);
    let found = engine.upstream.addresses(&hop, |_| Ok::<_, std::convert::Infallible>(())).await;
    let original = original.ip().to_canonical();
    found.is_ok_and(|found| found.addresses.iter().any(|address| address.ip().to_canonical() == original))
}
