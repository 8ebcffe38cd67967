//! What may pass. One policy for every front; each refusal says which rule it comes from.
//!
//! [`Policy`] is what the configuration says of who may ask for what; it is replaced as a whole when that is read again.
//! `acl` judges addresses, when they are known.

pub mod access;
pub mod acl;
pub mod auth;
pub mod body_rules;
pub mod current;
pub mod filtering;
#[cfg(feature = "inspection")]
pub mod inspection;
pub mod interception;
pub mod limits;
#[cfg(not(feature = "inspection"))]
pub mod no_inspection;
pub mod rewrite;
#[cfg(feature = "redis")]
mod shared_limits;
mod verdict;

#[cfg(not(feature = "inspection"))]
pub use no_inspection as inspection;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::authority::{Authority, Host, Scheme};
use crate::config;
use crate::target::{Client, Target};
use access::{Decision, Rules};
use auth::Identity;
use body_rules::BodyRules;
use filtering::{Filtering, ListError};
use inspection::{Inspection, RulesError};

/// What may be asked for.
#[derive(Debug)]
pub struct Policy {
    rules: Rules,
    pub filtering: Filtering,
    pub auth: config::Auth,
    pub rate: config::RateLimiting,
    /// For `filters`.
    pub header_rules: Vec<config::HeaderRule>,
    pub body_rules: BodyRules,
    /// None: no body is looked at.
    pub inspection: Option<Arc<Inspection>>,
    /// Nothing is refused by it.
    idle: bool,
}

/// Why the configuration's policy can't be put in force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("security.filtering: {0}")]
    Lists(#[from] ListError),
    #[error("security.inspection.rules: {0}")]
    Rules(#[from] RulesError),
}

/// What is still to be known of a request that may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    Whole,
    /// A rule asks for the address that will be connected to: [`Policy::check_address`].
    UntilAddress,
}

/// What is asked for, and by whom.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub client: IpAddr,
    /// As the client calls it.
    pub host: Option<&'a Host>,
    pub port: Option<u16>,
    /// Where a captured connection is going.
    pub original: Option<IpAddr>,
    /// None where that is not known.
    pub method: Option<&'a str>,
    /// Of a request: what is spoken, path and query.
    pub url: Option<(Scheme, &'a str)>,
    /// Who asks, where that is known.
    pub identity: Option<&'a Identity>,
}

/// A refusal, by which rule, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; refused by {rule}")]
pub struct Refusal {
    pub status: u16,
    pub by: By,
    /// The rule, as the configuration or a list has it.
    pub rule: Cow<'static, str>,
    pub reason: String,
    /// Fields that the answer has beside those that all have.
    pub fields: Vec<(&'static str, String)>,
}

/// Which part of the policy refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// `security.acl.rules`
    Access,
    /// `security.filtering`
    Filtering,
    /// `security.inspection`
    Inspection,
    /// `security.auth`
    Authentication,
    /// `security.rate_limiting`
    Limits,
}

impl Refusal {
    pub(crate) fn new(
        status: u16,
        by: By,
        rule: impl Into<Cow<'static, str>>,
        reason: impl Into<String>,
    ) -> Self {
        Self { status, by, rule: rule.into(), reason: reason.into(), fields: Vec::new() }
    }

    fn with_field(mut self, name: &'static str, value: String) -> Self {
        self.fields.push((name, value));
        self
    }
}

impl Policy {
    /// What the configuration says.
    ///
    /// # Errors
    /// [`PolicyError`]: a file can't be used.
    pub fn load(config: &config::Security) -> Result<Self, PolicyError> {
        let rules = Rules::new(&config.acl.rules);
        let filtering = Filtering::load(&config.filtering)?;
        let idle = rules.is_empty() && filtering.is_idle();
        Ok(Self {
            rules,
            filtering,
            auth: config.auth.clone(),
            rate: config.rate_limiting,
            header_rules: config.header_rules.clone(),
            body_rules: BodyRules::new(&config.body_rules),
            inspection: Inspection::load(&config.inspection)?,
            idle,
        })
    }

    /// Whether nothing is refused by it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.idle
    }

    /// Whether a file that it was read from has changed since.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.filtering.is_outdated()
            || self.inspection.as_ref().is_some_and(|inspection| inspection.is_outdated())
    }

    /// The names of `security.acl.rules`, in their order.
    #[must_use]
    pub fn rule_names(&self) -> Vec<&str> {
        self.rules.names().collect()
    }

    /// Whether there is something that only a name lets pass: then a captured client's word is not enough for it.
    #[must_use]
    pub fn allows_names(&self) -> bool {
        self.filtering.is_allowlist() || self.rules.allow_names()
    }

    /// Whether anything depends on what a server is called: then the name in a ClientHello counts, too.
    #[must_use]
    pub fn asks_names(&self) -> bool {
        !self.idle && (!self.filtering.is_idle() || self.rules.ask_names())
    }

    /// Judges what is asked for before anything is done for it.
    ///
    /// # Errors
    /// The refusal.
    pub fn check(&self, subject: &Subject<'_>) -> Result<Passed, Refusal> {
        if self.idle {
            return Ok(Passed::Whole);
        }
        let passed = match self.rules.decide(subject, subject.address()) {
            Decision::Deny(refusal) => return Err(refusal),
            Decision::Unknown => Passed::UntilAddress,
            Decision::Allow { .. } | Decision::None => Passed::Whole,
        };
        self.filtering.check(subject)?;
        Ok(passed)
    }

    /// Judges the address that would be connected to. True: a rule that names the address lets it pass, whatever class of
    /// address it is.
    ///
    /// # Errors
    /// The refusal.
    pub fn check_address(&self, subject: &Subject<'_>, address: SocketAddr) -> Result<bool, Refusal> {
        if self.rules.is_empty() {
            return Ok(false);
        }
        match self.rules.decide(subject, Some(address.ip())) {
            Decision::Deny(refusal) => Err(refusal),
            Decision::Allow { by_address } => Ok(by_address),
            Decision::Unknown | Decision::None => Ok(false),
        }
    }
}

impl<'a> Subject<'a> {
    /// What is asked for in this way: by `method`, of a request for `path`.
    #[must_use]
    pub fn of(client: &Client, target: &'a Target, method: Option<&'a str>, path: Option<&'a str>) -> Self {
        let authority = target.authority.as_ref();
        let original = target.original_destination;
        Self {
            client: client.address.ip(),
            host: authority.map(|authority| &authority.host),
            // Where it goes, not where it says that it goes.
            port: original.map(|original| original.port()).or(authority.map(|authority| authority.port)),
            original: original.map(|original| original.ip()),
            method,
            url: path.map(|path| (target.scheme, path)),
            identity: None,
        }
    }

    /// The same, asked for by somebody.
    #[must_use]
    pub fn by(self, identity: Option<&'a Identity>) -> Self {
        Self { identity, ..self }
    }

    /// The policy of its context, if there is one.
    #[must_use]
    pub fn own_policy(&self) -> Option<&'a Policy> {
        self.identity?.context.as_ref()?.policy.as_ref()
    }

    /// The address, where it is known already.
    fn address(&self) -> Option<IpAddr> {
        match (self.original, self.host) {
            (Some(original), _) => Some(original),
            (None, Some(Host::Address(address))) => Some(*address),
            (None, _) => None,
        }
    }

    /// For people: what is asked for. Without path and query, which may hold secrets.
    fn place(&self) -> String {
        match (self.host, self.original, self.port) {
            (Some(host), _, Some(port)) => Authority { host: host.clone(), port }.to_string(),
            (Some(host), ..) => host.to_string(),
            (None, Some(original), Some(port)) => SocketAddr::new(original, port).to_string(),
            (None, Some(original), None) => original.to_string(),
            (None, None, _) => "a server without a name".to_owned(),
        }
    }
}
