//! Which containers are apps, and how each is reached: by their labels, what the configuration says of them, and their
//! ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::handlers::Framework;
use super::service::{Origin, Service, Standing, known_as};
use crate::authority::{Authority, Host, Scheme};
use crate::config::{COMPOSE_LABEL, Discover, service_name};
use crate::containers::{Inside, Shown};
use crate::netns::Namespace;
use crate::target::{Reach, Vantage};

/// `false`: it is never an app. `true`: it is one, whatever else its labels say.
const ENABLE: &str = "weir.enable";
/// The port that the app listens on.
const PORT: &str = "weir.port";
/// The handler that sees to it.
const FRAMEWORK: &str = "weir.framework";
/// What URLs may call it, beside its id and its name.
const NAME: &str = "weir.name";
/// `https`, if the app speaks TLS.
const SCHEME: &str = "weir.scheme";
/// The service of a Compose project that it is one of.
const COMPOSE_SERVICE: &str = "com.docker.compose.service";

/// Characters of the id that URLs have.
const SHORT_ID: usize = 12;

/// What the configuration says of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configured {
    pub(super) name: Box<str>,
    /// Name or id.
    pub(super) container: Box<str>,
    pub(super) port: Option<u16>,
    pub(super) framework: Option<Framework>,
}

impl Configured {
    fn means(&self, shown: &Shown) -> bool {
        let id = &shown.container.id;
        shown.container.name == self.container
            || self.container.len() >= SHORT_ID && id.starts_with(&*self.container)
    }
}

/// What of a container's description an app is made of.
pub(super) struct Described<'a> {
    pub(super) shown: &'a Shown,
    /// None: it does not run.
    pub(super) inside: Option<&'a Inside>,
    pub(super) namespace: Namespaced,
}

/// Where a container's connections begin.
#[derive(Debug, Clone)]
pub(super) enum Namespaced {
    /// Where weir's own do.
    Here,
    Entered(Arc<Namespace>),
    /// weir may not go there.
    Closed,
}

/// Whether a container is to be an app, by what is known without asking for its description.
pub(super) fn is_wanted(shown: &Shown, discover: Discover, configured: &[Configured]) -> bool {
    if configured.iter().any(|configured| configured.means(shown)) {
        return true;
    }
    let label = |key: &str| shown.labels.get(key).map(String::as_str);
    match (discover, label(ENABLE)) {
        (Discover::Off, _) | (_, Some("false")) => false,
        (_, Some("true")) => true,
        (Discover::Labelled, _) => [PORT, FRAMEWORK, NAME].iter().any(|key| shown.labels.contains_key(*key)),
        // What doesn't run shows no ports; it may have had some.
        (Discover::Exposed, _) => true,
    }
}

/// The app of a container that [is wanted](is_wanted). None: it has no port.
pub(super) fn service(
    described: &Described<'_>,
    discover: Discover,
    configured: &[Configured],
) -> Option<Service> {
    let Described { shown, inside, .. } = described;
    let label = |key: &str| shown.labels.get(key).map(String::as_str);
    let said = configured.iter().find(|configured| configured.means(shown));
    let framework = said.and_then(|said| said.framework);
    let framework = framework.or_else(|| Framework::named(label(FRAMEWORK)?).ok());
    let framework = framework.or_else(|| Framework::of_image(&shown.container.image));
    let exposed = inside.map_or(&[][..], |inside| &inside.exposed);
    let port = said
        .and_then(|said| said.port)
        .or_else(|| label(PORT)?.parse().ok().filter(|port| *port != 0))
        .or_else(|| port_of(shown, exposed, framework));
    let id: Box<str> = shown.container.id.chars().take(SHORT_ID).collect();
    let (ways, stopped) = match (port, inside) {
        (Some(port), Some(_)) => (ways(described, &id, port), None),
        // Without a port it is no app; if it doesn't run, nobody knows.
        (None, Some(_)) if discover == Discover::Exposed && said.is_none() && label(ENABLE).is_none() => {
            return None;
        }
        (None, Some(_)) => (Vec::new(), Some(NO_PORT.into())),
        (_, None) => (Vec::new(), Some(shown.status.clone().into())),
    };
    let aliases = [label(NAME), label(COMPOSE_SERVICE).filter(|_| shown.labels.contains_key(COMPOSE_LABEL))];
    let aliases = aliases.into_iter().flatten().filter_map(service_name).map(Into::into);
    Some(Service {
        id,
        full_id: Some(shown.container.id.clone()),
        name: service_name(&shown.container.name)?.into(),
        aliases: said.map(|said| said.name.clone()).into_iter().chain(aliases).collect(),
        origin: Origin::Container,
        framework,
        ways,
        stopped,
        started: inside.map_or_else(String::new, |inside| inside.started.clone()),
        standing: Standing::default(),
    })
}

/// For people: why it can't be asked.
const NO_PORT: &str = "it exposes no TCP port; the label weir.port says which it is";

/// The port that an app listens on, where nobody says it: the one that is published, or exposed; of several, the one that
/// its framework listens on if nothing else is said, or any framework; or the first.
fn port_of(shown: &Shown, exposed: &[u16], framework: Option<Framework>) -> Option<u16> {
    let mut published: Vec<u16> =
        shown.ports.iter().filter(|port| port.published.is_some()).map(|port| port.inside).collect();
    let mut all: Vec<u16> =
        shown.ports.iter().map(|port| port.inside).chain(exposed.iter().copied()).collect();
    for ports in [&mut published, &mut all] {
        ports.sort_unstable();
        ports.dedup();
    }
    let candidates = if published.is_empty() { all } else { published };
    let usual = |framework: Framework| framework.handler().port().filter(|port| candidates.contains(port));
    match framework {
        Some(framework) => usual(framework).or(candidates.first().copied()).or(framework.handler().port()),
        None => Framework::all().find_map(usual).or(candidates.first().copied()),
    }
}

/// The ways to a container, the surest first: from inside, where its own loopback addresses are, and no other container's;
/// by its addresses, as its neighbours reach it; by the port that the host leads to it.
fn ways(described: &Described<'_>, id: &str, port: u16) -> Vec<Arc<Reach>> {
    let Described { shown, namespace, .. } = described;
    let scheme = match shown.labels.get(SCHEME).map(String::as_str) {
        Some("https") => Scheme::Https,
        _ => Scheme::Http,
    };
    let way = |kind, address: IpAddr, port, namespace: Option<Arc<Namespace>>| {
        Arc::new(Reach {
            kind,
            service: known_as(id, port),
            scheme,
            at: Authority { host: Host::Address(address), port },
            vantage: Vantage { source: None, namespace },
        })
    };
    let mut ways = Vec::new();
    match namespace {
        Namespaced::Here => ways.push(way("host", Ipv4Addr::LOCALHOST.into(), port, None)),
        Namespaced::Entered(inside) => {
            ways.push(way("namespace", Ipv4Addr::LOCALHOST.into(), port, Some(Arc::clone(inside))));
        }
        Namespaced::Closed => {}
    }
    ways.extend(shown.addresses.iter().map(|address| way("address", *address, port, None)));
    let published = shown.ports.iter().filter(|shown| shown.inside == port).filter_map(|port| port.published);
    for (address, port) in published {
        let address = match address {
            IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            address => address,
        };
        ways.push(way("published", address, port, None));
    }
    if resolves_containers() {
        let host = Host::parse(&shown.container.name).ok();
        ways.extend(host.map(|host| {
            let at = Authority { host, port };
            Arc::new(Reach {
                kind: "name",
                service: known_as(id, port),
                scheme,
                at,
                vantage: Vantage::default(),
            })
        }));
    }
    ways
}

/// Whether names of containers are resolved here by their engine: weir is in one of its networks. Elsewhere such a name
/// may be somebody else's.
fn resolves_containers() -> bool {
    let servers = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    servers.lines().any(|line| line.split_whitespace().eq(["nameserver", "127.0.0.11"]))
}
