//! Contexts: identities that are made for one client each (a job, an agent, an Electron WebContents), with a name and
//! password of their own, a policy of their own, and counters. They live in memory, until they are released, or for
//! their time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;
use tokio::sync::watch;

use super::Identity;
use super::passwords::{random, random_key};
use crate::config::{CONTEXT_PREFIX, RateLimiting};
use crate::policy::Policy;
use crate::policy::limits::Bucket;
use crate::policy::rewrite::Route;

/// One context.
#[derive(Debug)]
pub struct Context {
    pub id: Box<str>,
    pub label: Option<Box<str>>,
    pub web_contents_id: Option<u64>,
    /// In milliseconds since 1970-01-01 UTC.
    pub created_ms: u64,
    pub expires: Option<Instant>,
    /// Beside that of the configuration: what either refuses is refused.
    pub policy: Option<Policy>,
    /// Where its loopback addresses really are.
    pub route: Option<Route>,
    /// In place of that of the configuration.
    pub limit: Option<RateLimiting>,
    pub bucket: Bucket,
    /// Whether its TLS is intercepted, where no rule says something of that; None: as rules have it.
    pub intercept: Option<bool>,
    pub counters: Counters,
    /// How long what is open may go on, once it is released.
    released: watch::Sender<Option<Duration>>,
    tag: hmac::Tag,
}

/// What a context has done.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests and tunnels that have ended.
    pub flows: AtomicU64,
    pub denied: AtomicU64,
    pub sent_bytes: AtomicU64,
    pub received_bytes: AtomicU64,
}

/// What a context is made of.
#[derive(Debug, Default)]
pub struct NewContext {
    pub web_contents_id: Option<u64>,
    pub label: Option<Box<str>>,
    pub ttl: Option<Duration>,
    pub policy: Option<Policy>,
    pub limit: Option<RateLimiting>,
    pub route: Option<Route>,
    pub intercept: Option<bool>,
}

/// A context that was made. The password is told this once.
pub struct Created {
    pub identity: Arc<Identity>,
    pub password: String,
}

/// There are as many contexts as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {0} contexts, which is security.auth.max_contexts; release some")]
pub struct TooManyContexts(pub usize);

/// All contexts, by name.
pub struct Contexts {
    key: hmac::Key,
    all: RwLock<HashMap<Arc<str>, Arc<Identity>>>,
    /// What a password is compared with that belongs to nobody.
    nobody: hmac::Tag,
}

impl std::fmt::Debug for Contexts {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        text.write_str("Contexts")
    }
}

impl Contexts {
    pub(super) fn new() -> Self {
        let key = random_key();
        let nobody = hmac::sign(&key, &random::<32>());
        Self { key, all: RwLock::default(), nobody }
    }

    /// Makes one more, if there are fewer than `most`.
    ///
    /// # Errors
    /// [`TooManyContexts`].
    pub fn create(&self, new: NewContext, most: usize) -> Result<Created, TooManyContexts> {
        let password = BASE64_URL_SAFE_NO_PAD.encode(random::<24>());
        let id = hex(&random::<16>());
        let number = new.web_contents_id.unwrap_or(0);
        let name: Arc<str> = format!("{CONTEXT_PREFIX}{number}-{}", hex(&random::<8>())).into();
        let context = Context {
            id: id.into(),
            label: new.label,
            web_contents_id: new.web_contents_id,
            created_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            expires: new.ttl.and_then(|ttl| Instant::now().checked_add(ttl)),
            policy: new.policy,
            route: new.route,
            limit: new.limit,
            bucket: Bucket::default(),
            intercept: new.intercept,
            counters: Counters::default(),
            released: watch::Sender::new(None),
            tag: hmac::sign(&self.key, &message(&name, &password)),
        };
        let identity = Arc::new(Identity { name: Arc::clone(&name), context: Some(context) });
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= most {
            return Err(TooManyContexts(all.len()));
        }
        all.insert(name, Arc::clone(&identity));
        Ok(Created { identity, password })
    }

    /// Whose name and password these are. In constant time.
    #[must_use]
    pub fn verify(&self, name: &str, password: &str) -> Option<Arc<Identity>> {
        let found = self.all.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let context = found.as_ref().and_then(|identity| identity.context.as_ref());
        let tag = context.map_or(&self.nobody, |context| &context.tag);
        let is_right = hmac::verify(&self.key, &message(name, password), tag.as_ref()).is_ok();
        let is_somebodys = is_right && context_lives(context);
        found.filter(|_| is_somebodys)
    }

    /// Ends a context: its name is nobody's from now on, and what it has open may go on for `grace`.
    pub fn release(&self, id: &str, grace: Duration) -> Option<Arc<Identity>> {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let has_id =
            |identity: &Arc<Identity>| identity.context.as_ref().is_some_and(|context| *context.id == *id);
        let name = all.iter().find(|(_, identity)| has_id(identity)).map(|(name, _)| Arc::clone(name))?;
        let identity = all.remove(&name)?;
        if let Some(context) = &identity.context {
            context.released.send_replace(Some(grace));
        }
        Some(identity)
    }

    /// Releases those whose time is over.
    pub fn sweep(&self, grace: Duration) {
        let expired = |identity: &Arc<Identity>| !context_lives(identity.context.as_ref());
        let ids: Vec<Box<str>> = self
            .list()
            .iter()
            .filter(|identity| expired(identity))
            .filter_map(|identity| Some(identity.context.as_ref()?.id.clone()))
            .collect();
        for id in ids {
            self.release(&id, grace);
        }
    }

    /// All of them, the oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Identity>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<Arc<Identity>> = all.values().cloned().collect();
        drop(all);
        list.sort_by_key(|identity| identity.context.as_ref().map(|context| context.created_ms));
        list
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Context {
    /// Ready when it was released, and what it has open has had its time.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut released = self.released.subscribe();
        async move {
            // An error: it is gone altogether.
            if let Ok(Some(grace)) = released.wait_for(Option::is_some).await.map(|grace| *grace) {
                tokio::time::sleep(grace).await;
            }
        }
    }
}

fn context_lives(context: Option<&Context>) -> bool {
    context.is_some_and(|context| context.expires.is_none_or(|expires| Instant::now() < expires))
}

fn message(name: &str, password: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0", password.as_bytes()].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Counters {
    /// Counts a flow that has ended.
    pub fn count(&self, is_denied: bool, sent: u64, received: u64) {
        self.flows.fetch_add(1, Ordering::Relaxed);
        self.denied.fetch_add(u64::from(is_denied), Ordering::Relaxed);
        self.sent_bytes.fetch_add(sent, Ordering::Relaxed);
        self.received_bytes.fetch_add(received, Ordering::Relaxed);
    }
}
