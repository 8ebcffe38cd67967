//! Apps that the gateway serves below a prefix of its own: each under its id, `/proxy/{id}/`.
//!
//! Which apps there are, how each is reached, and what each has to be told to work under a prefix is known here. A
//! request's way there is the pipeline's affair: nothing here sends or receives one, but for the look at what an app's
//! first page looks like (`probe`).

mod container;
pub mod handlers;
pub mod page;
pub mod path;
pub mod prefix;
mod probe;
mod service;
mod table;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::config::{self, AppPlace, Discover, service_name, service_target};
use crate::policy::current::{Follower, Shared};
use handlers::{Framework, UnknownFramework};
pub use probe::{Allowed, probe};
pub use service::{Origin, Service, State};
pub use table::Table;
pub use watch::watch;

/// Services that may be registered while weir runs.
const MAX_ADDED: usize = 1024;

/// All services; shared by those who change them and those who use them.
#[derive(Debug)]
pub struct Services {
    table: Arc<Shared<Table>>,
    known: Mutex<Known>,
    /// There may be an app of which nothing is known yet.
    news: Notify,
}

/// Where services come from; each replaces its own.
#[derive(Debug, Default)]
struct Known {
    prefix: Option<Box<str>>,
    discover: Discover,
    configured: Vec<Arc<Service>>,
    added: Vec<Arc<Service>>,
    /// What the configuration says of containers.
    containers: Vec<container::Configured>,
    /// By the sockets of their engines.
    found: BTreeMap<PathBuf, Vec<Arc<Service>>>,
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
        let table = Shared::new(Table::default());
        let services = Self { table, known: Mutex::default(), news: Notify::new() };
        services.configure(configured(config)?);
        Ok(services)
    }

    /// Has those of a configuration be in force from now on. What is known of an app that is still there stays known.
    pub fn configure(&self, configured: Configured) {
        let mut known = self.lock();
        let Configured { prefix, discover, services, containers } = configured;
        known.configured = kept(&known.configured, services);
        (known.prefix, known.discover, known.containers) = (prefix, discover, containers);
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
        let target = service_target(target).map_err(NotAService::Target)?;
        let framework = framework.map(Framework::named).transpose()?;
        let service = Arc::new(Service::at(name, Origin::Api, target, framework));
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

    /// Those that were added, as [`Services::add`] takes them: name, target, framework.
    #[must_use]
    pub fn added(&self) -> Vec<(String, String, Option<String>)> {
        self.lock().added.iter().filter_map(|service| service.as_added()).collect()
    }

    /// Notes which containers of an engine are services now.
    fn found(&self, engine: &Path, found: Vec<Service>) {
        let mut known = self.lock();
        let old = known.found.get(engine).map_or(&[][..], Vec::as_slice);
        let found = kept(old, found);
        let is_news =
            old.len() != found.len() || !old.iter().zip(&found).all(|(old, new)| Arc::ptr_eq(old, new));
        if is_news {
            known.found.insert(engine.to_owned(), found);
            self.tell(&known);
        }
    }

    /// Whether containers are looked at, at all.
    fn wants_containers(&self) -> bool {
        let known = self.lock();
        known.prefix.is_some() && (known.discover != Discover::Off || !known.containers.is_empty())
    }

    /// Which are to be services.
    fn wanted_containers(&self) -> (Discover, Vec<container::Configured>) {
        let known = self.lock();
        (known.discover, known.containers.clone())
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
        let named = known.configured.iter().chain(&known.added);
        let services = named.chain(known.found.values().flatten()).cloned();
        self.table.replace(Table::new(known.prefix.clone(), services.collect()));
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The new ones, but for those that are the same as an old one.
fn kept(old: &[Arc<Service>], new: Vec<Service>) -> Vec<Arc<Service>> {
    let same = |new: &Service| old.iter().find(|old| old.is_same(new)).cloned();
    new.into_iter().map(|new| same(&new).unwrap_or_else(|| Arc::new(new))).collect()
}

/// What a configuration says of services, all of which can be.
#[derive(Debug)]
pub struct Configured {
    prefix: Option<Box<str>>,
    discover: Discover,
    services: Vec<Service>,
    containers: Vec<container::Configured>,
}

/// Looks up what a configuration names.
///
/// # Errors
/// What is wrong with it, for people.
pub fn configured(config: &config::Services) -> Result<Configured, String> {
    let (mut services, mut containers) = (Vec::new(), Vec::new());
    for (index, app) in config.apps.iter().enumerate() {
        let framework = app.framework.as_deref().map(Framework::named).transpose();
        let framework = framework.map_err(|error| format!("services.apps: {}: {error}", app.name))?;
        if config.apps[..index].iter().any(|other| other.name == app.name) {
            return Err(format!("services.apps: {} is there twice", app.name));
        }
        match &app.place {
            AppPlace::Server(scheme, authority) => {
                let server = (*scheme, authority.clone());
                services.push(Service::at(&app.name, Origin::Config, server, framework));
            }
            AppPlace::Container(container, port) => containers.push(container::Configured {
                name: app.name.clone(),
                container: container.clone(),
                port: *port,
                framework,
            }),
        }
    }
    Ok(Configured { prefix: config.prefix.clone(), discover: config.discover, services, containers })
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
}
