//! An app: what URLs call it, the ways to it, and how it was found to be.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::Serialize;

use super::handlers::Framework;
use crate::authority::{Authority, Host, Scheme};
use crate::target::{Reach, Vantage};

/// An app.
#[derive(Debug)]
pub struct Service {
    /// What its URLs call it.
    pub id: Box<str>,
    /// Of a container, of which `id` is the beginning.
    pub full_id: Option<Box<str>>,
    pub name: Box<str>,
    /// What URLs may call it, too, if nobody else is called so.
    pub aliases: Vec<Box<str>>,
    pub origin: Origin,
    /// What is said of its framework; None: what it answers decides.
    pub(super) framework: Option<Framework>,
    /// In the order in which they are tried first.
    pub(super) ways: Vec<Arc<Reach>>,
    /// Why it can't be asked for anything.
    pub stopped: Option<Box<str>>,
    /// The start that this is about.
    pub(super) started: String,
    pub(super) standing: Standing,
}

/// Who has named a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// `services.apps`
    Config,
    /// `POST /services`; forgotten when weir stops.
    Api,
    /// An engine.
    Container,
}

/// How an app has been found to be; by all workers together.
#[derive(Debug)]
pub(super) struct Standing {
    /// The way that was good last.
    way: AtomicUsize,
    /// The framework that its answers look like, by its number.
    framework: AtomicUsize,
    has_answered: AtomicBool,
    fails: AtomicBool,
}

/// How an app is, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is there, and has not answered yet.
    Starting,
    Active,
    /// It has answered before, and could not be reached.
    Unreachable,
    Stopped,
}

impl Service {
    /// An app at a server.
    pub(super) fn at(
        name: &str,
        origin: Origin,
        (scheme, authority): (Scheme, Authority),
        framework: Option<Framework>,
    ) -> Self {
        let service = known_as(name, authority.port);
        let vantage = Vantage::default();
        let way = Arc::new(Reach { kind: "url", service, scheme, at: authority, vantage });
        Self {
            id: name.into(),
            full_id: None,
            name: name.into(),
            aliases: Vec::new(),
            origin,
            framework,
            ways: vec![way],
            stopped: None,
            started: String::new(),
            standing: Standing::default(),
        }
    }

    /// Name, URL and framework, as somebody has said them.
    pub(super) fn as_added(&self) -> Option<(String, String, Option<String>)> {
        let way = self.ways.first()?;
        let framework = self.framework.map(|framework| framework.handler().name().to_owned());
        Some((self.name.to_string(), format!("{}://{}", way.scheme, way.at), framework))
    }

    /// Whether what is known of the one holds for the other.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
            && self.name == other.name
            && self.aliases == other.aliases
            && self.framework == other.framework
            && self.ways == other.ways
            && self.stopped == other.stopped
            && self.started == other.started
    }

    /// What URLs may call it.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let names = std::iter::once(&self.name).chain(&self.aliases).filter(|name| **name != self.id);
        std::iter::once(&*self.id).chain(names.map(|name| &**name))
    }

    /// Who knows what it needs.
    #[must_use]
    pub fn framework(&self) -> Framework {
        let found = || Framework::numbered(self.standing.framework.load(Ordering::Relaxed));
        self.framework.or_else(found).unwrap_or_default()
    }

    /// The ways to it, that which was good last before the others.
    pub fn ways(&self) -> impl Iterator<Item = (usize, &Arc<Reach>)> {
        let (count, last) = (self.ways.len(), self.standing.way.load(Ordering::Relaxed));
        (0..count).map(move |turn| (turn + last) % count).map(|at| (at, &self.ways[at]))
    }

    /// Notes that it was reached by a way.
    pub fn note_reached(&self, way: usize) {
        let standing = &self.standing;
        // Written to only where that is news: workers share the line.
        if standing.way.load(Ordering::Relaxed) != way {
            standing.way.store(way, Ordering::Relaxed);
        }
        if !standing.has_answered.load(Ordering::Relaxed) {
            standing.has_answered.store(true, Ordering::Relaxed);
        }
        if standing.fails.load(Ordering::Relaxed) {
            standing.fails.store(false, Ordering::Relaxed);
        }
    }

    /// Notes that it was reached by none.
    pub fn note_unreached(&self) {
        self.standing.fails.store(true, Ordering::Relaxed);
    }

    /// Notes what its answers look like.
    pub(super) fn note_framework(&self, framework: Framework) {
        self.standing.framework.store(framework.number(), Ordering::Relaxed);
    }

    /// Whether asking it would tell something that is not known.
    pub(super) fn is_to_be_asked(&self) -> bool {
        self.stopped.is_none()
            && !self.ways.is_empty()
            && self.standing.framework.load(Ordering::Relaxed) == UNKNOWN
    }

    #[must_use]
    pub fn state(&self) -> State {
        let Standing { has_answered, fails, .. } = &self.standing;
        match (&self.stopped, fails.load(Ordering::Relaxed), has_answered.load(Ordering::Relaxed)) {
            (Some(_), ..) => State::Stopped,
            (None, _, false) => State::Starting,
            (None, true, true) => State::Unreachable,
            (None, false, true) => State::Active,
        }
    }
}

/// How limits and logs call a service: its addresses may be those of others in other places.
pub(super) fn known_as(id: &str, port: u16) -> Authority {
    Authority { host: Host::Name(format!("{id}.service").to_ascii_lowercase().into()), port }
}

/// No framework's number.
const UNKNOWN: usize = usize::MAX;

impl Default for Standing {
    fn default() -> Self {
        Self {
            way: AtomicUsize::new(0),
            framework: AtomicUsize::new(UNKNOWN),
            has_answered: AtomicBool::new(false),
            fails: AtomicBool::new(false),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(match self {
            Self::Starting => "starting",
            Self::Active => "active",
            Self::Unreachable => "unreachable",
            Self::Stopped => "stopped",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_that_was_good_is_the_first_to_be_tried() {
        let authority = Authority::parse("127.0.0.1:1", None).unwrap();
        let mut service = Service::at("a", Origin::Api, (Scheme::Http, authority), None);
        service.ways = vec![Arc::clone(&service.ways[0]); 3];
        let order = |service: &Service| service.ways().map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!((order(&service), service.state()), (vec![0, 1, 2], State::Starting));
        service.note_reached(1);
        assert_eq!((order(&service), service.state()), (vec![1, 2, 0], State::Active));
        service.note_unreached();
        assert_eq!(service.state(), State::Unreachable);
    }

    #[test]
    fn what_is_said_of_a_framework_counts_more_than_what_is_seen() {
        let server = || (Scheme::Http, Authority::parse("127.0.0.1:1", None).unwrap());
        let (dash, flask) = (Framework::named("dash").unwrap(), Framework::named("flask").unwrap());
        let said = Service::at("a", Origin::Api, server(), Some(dash));
        let unsaid = Service::at("a", Origin::Api, server(), None);
        assert_eq!(unsaid.framework(), Framework::default());
        for service in [&said, &unsaid] {
            service.note_framework(flask);
        }
        assert_eq!((said.framework(), unsaid.framework()), (dash, flask));
    }
}
