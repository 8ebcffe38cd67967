//! Apps that the gateway serves below a prefix of its own: each under its id, `/proxy/{id}/`.
//!
//! Which apps there are, how each is reached, and what each has to be told to work under a prefix is known here. A
//! request's way there is the pipeline's affair: nothing here sends or receives one.

pub mod handlers;
pub mod page;
pub mod path;
pub mod prefix;
mod table;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::authority::{Authority, Host, Scheme};
use crate::config::{self, service_name, service_target};
use crate::policy::current::{Follower, Shared};
use crate::target::{Reach, Vantage};
use handlers::{Framework, UnknownFramework};
pub use table::Table;

/// Services that may be registered while weir runs.
const MAX_ADDED: usize = 1024;

/// All services; shared by those who change them and those who use them.
#[derive(Debug)]
pub struct Services {
    table: Arc<Shared<Table>>,
    known: Mutex<Known>,
}

/// Where services come from; each replaces its own.
#[derive(Debug, Default)]
struct Known {
    prefix: Option<Box<str>>,
    configured: Vec<Arc<Service>>,
    added: Vec<Arc<Service>>,
}

/// An app.
#[derive(Debug)]
pub struct Service {
    /// What its URLs call it.
    pub id: Box<str>,
    pub name: Box<str>,
    pub origin: Origin,
    /// What is said of its framework; None: what its answers look like decides.
    framework: Option<Framework>,
    /// In the order in which they are tried first.
    ways: Vec<Arc<Reach>>,
    standing: Standing,
}

/// Who has named a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// `services.apps`
    Config,
    /// `POST /services`; forgotten when weir stops.
    Api,
}

/// How an app has been found to be; by all workers together.
#[derive(Debug, Default)]
struct Standing {
    /// The way that was good last.
    way: AtomicUsize,
    has_answered: AtomicBool,
    fails: AtomicBool,
}

/// How an app is, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nobody has asked for it yet.
    Unknown,
    Active,
    /// It was asked, and could not be reached.
    Unreachable,
}

/// Why a service is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotAService {
    #[error("`{0}` is no name for a service: letters, digits, `-`, `_` and `.`, the first a letter or digit")]
    Name(String),
    #[error("{0}")]
    Target(String),
    #[error("{0}")]
    Framework(#[from] UnknownFramework),
    #[error("there is a service `{0}` already; DELETE /services/{0} removes it, if it was added so")]
    Taken(Box<str>),
    #[error("{MAX_ADDED} services have been added; remove one first")]
    TooMany,
}

impl Services {
    /// Those of the configuration.
    ///
    /// # Errors
    /// One that can't be, for people.
    pub fn new(config: &config::Services) -> Result<Self, String> {
        let services = Self { table: Shared::new(Table::default()), known: Mutex::default() };
        services.configure(configured(config)?, config.prefix.clone());
        Ok(services)
    }

    /// Has those of a configuration be in force from now on. What is known of an app that is still there stays known.
    pub fn configure(&self, configured: Configured, prefix: Option<Box<str>>) {
        let mut known = self.lock();
        let old = std::mem::take(&mut known.configured);
        let same = |new: &Service| old.iter().find(|old| old.is_same(new)).cloned();
        known.configured =
            configured.0.into_iter().map(|new| same(&new).unwrap_or_else(|| Arc::new(new))).collect();
        known.prefix = prefix;
        self.tell(&known);
    }

    /// A service more, from here on.
    ///
    /// # Errors
    /// [`NotAService`]
    pub fn add(
        &self,
        name: &str,
        target: &str,
        framework: Option<&str>,
    ) -> Result<Arc<Service>, NotAService> {
        let name = service_name(name).ok_or_else(|| NotAService::Name(name.to_owned()))?;
        let (scheme, authority) = service_target(target).map_err(NotAService::Target)?;
        let framework = framework.map(Framework::named).transpose()?;
        let service = Arc::new(Service::at(name, Origin::Api, scheme, authority, framework));
        let mut known = self.lock();
        if known.configured.iter().chain(&known.added).any(|other| *other.name == *name) {
            return Err(NotAService::Taken(name.into()));
        }
        if known.added.len() == MAX_ADDED {
            return Err(NotAService::TooMany);
        }
        known.added.push(Arc::clone(&service));
        self.tell(&known);
        Ok(service)
    }

    /// A service less, if it was [added](Self::add).
    pub fn remove(&self, name: &str) -> Option<Arc<Service>> {
        let mut known = self.lock();
        let at = known.added.iter().position(|service| *service.name == *name)?;
        let removed = known.added.remove(at);
        self.tell(&known);
        Some(removed)
    }

    /// Those of now.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        self.table.latest()
    }

    /// For a worker.
    #[must_use]
    pub fn follow(&self) -> Follower<Table> {
        self.table.follow()
    }

    fn tell(&self, known: &Known) {
        let services = known.configured.iter().chain(&known.added).cloned();
        self.table.replace(Table::new(known.prefix.clone(), services.collect()));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The services of a configuration, each of which can be.
#[derive(Debug)]
pub struct Configured(Vec<Service>);

/// Looks up what a configuration names.
///
/// # Errors
/// What is wrong with it, for people.
pub fn configured(config: &config::Services) -> Result<Configured, String> {
    let mut services: Vec<Service> = Vec::new();
    for app in &config.apps {
        let framework = app.framework.as_deref().map(Framework::named).transpose();
        let framework = framework.map_err(|error| format!("services.apps: {}: {error}", app.name))?;
        if services.iter().any(|other| other.name == app.name) {
            return Err(format!("services.apps: {} is there twice", app.name));
        }
        let (scheme, authority) = app.target.clone();
        services.push(Service::at(&app.name, Origin::Config, scheme, authority, framework));
    }
    Ok(Configured(services))
}

impl Service {
    /// An app at a server.
    fn at(
        name: &str,
        origin: Origin,
        scheme: Scheme,
        authority: Authority,
        framework: Option<Framework>,
    ) -> Self {
        let vantage = Vantage::default();
        let service = known_as(name, authority.port);
        let way = Arc::new(Reach { kind: "url", service, scheme, at: authority, vantage });
        Self {
            id: name.into(),
            name: name.into(),
            origin,
            framework,
            ways: vec![way],
            standing: Standing::default(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
            && self.name == other.name
            && self.framework == other.framework
            && self.ways == other.ways
    }

    /// What URLs may call it.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.id).chain((self.name != self.id).then_some(&*self.name))
    }

    /// Who knows what it needs.
    #[must_use]
    pub fn framework(&self) -> Framework {
        self.framework.unwrap_or_default()
    }

    /// The ways to it, that which was good last before the others.
    pub fn ways(&self) -> impl Iterator<Item = (usize, &Arc<Reach>)> {
        let (count, last) = (self.ways.len(), self.standing.way.load(Ordering::Relaxed));
        (0..count).map(move |turn| (turn + last) % count).map(|at| (at, &self.ways[at]))
    }

    /// Notes that it was reached by a way.
    pub fn note_reached(&self, way: usize) {
        // Written to only where that is news: workers share the line.
        if self.standing.way.load(Ordering::Relaxed) != way {
            self.standing.way.store(way, Ordering::Relaxed);
        }
        if !self.standing.has_answered.load(Ordering::Relaxed) {
            self.standing.has_answered.store(true, Ordering::Relaxed);
        }
        if self.standing.fails.load(Ordering::Relaxed) {
            self.standing.fails.store(false, Ordering::Relaxed);
        }
    }

    /// Notes that it was reached by none.
    pub fn note_unreached(&self) {
        self.standing.fails.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn state(&self) -> State {
        let Standing { has_answered, fails, .. } = &self.standing;
        match (fails.load(Ordering::Relaxed), has_answered.load(Ordering::Relaxed)) {
            (true, _) => State::Unreachable,
            (false, true) => State::Active,
            (false, false) => State::Unknown,
        }
    }
}

/// How limits and logs call a service: its addresses may be those of others in other places.
fn known_as(id: &str, port: u16) -> Authority {
    Authority { host: Host::Name(format!("{id}.service").to_ascii_lowercase().into()), port }
}

impl fmt::Display for State {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(match self {
            Self::Unknown => "unknown",
            Self::Active => "active",
            Self::Unreachable => "unreachable",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_come_and_go() {
        let services = Services::new(&config::Services::default()).unwrap();
        let follower = services.follow();
        services.add("one", "http://127.0.0.1:1", None).unwrap();
        assert!(matches!(services.add("one", "http://127.0.0.1:2", None), Err(NotAService::Taken(_))));
        assert!(matches!(services.add("../x", "http://127.0.0.1:2", None), Err(NotAService::Name(_))));
        assert!(matches!(services.add("x", "127.0.0.1", None), Err(NotAService::Target(_))));
        assert!(matches!(services.add("x", "http://a", Some("no")), Err(NotAService::Framework(_))));
        assert_eq!(&*follower.current().find("one").unwrap().id, "one");
        assert!(services.remove("one").is_some() && services.remove("one").is_none());
        assert!(follower.current().find("one").is_none());
    }

    #[test]
    fn the_way_that_was_good_is_the_first_to_be_tried() {
        let authority = Authority::parse("127.0.0.1:1", None).unwrap();
        let mut service = Service::at("a", Origin::Api, Scheme::Http, authority, None);
        service.ways = vec![Arc::clone(&service.ways[0]); 3];
        let order = |service: &Service| service.ways().map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!((order(&service), service.state()), (vec![0, 1, 2], State::Unknown));
        service.note_reached(1);
        assert_eq!((order(&service), service.state()), (vec![1, 2, 0], State::Active));
        service.note_unreached();
        assert_eq!(service.state(), State::Unreachable);
    }
}
