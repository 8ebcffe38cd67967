//! DNS of captured processes. A query goes to the server that the client asked, from the client's network namespace, as
//! it is but for its id; the answer comes back as it is, and before it does, the kernel half's rules know its names.
//!
//! weir is no resolver here: it asks nothing of its own, doesn't ask again, invents no SERVFAIL, and keeps silent where
//! the server does. DNS over TCP is relayed by `pipeline::dns`. Encrypted DNS (DoT, DoH) is not seen.

mod cache;
mod inspect;
pub mod message;
mod reuse;
mod sockets;
mod unreachable;

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config;
use crate::netns::{self, Namespace};
use crate::redirect::DnsServers;
use crate::telemetry::metrics;

pub use inspect::{Inspection, Verdict};
pub use sockets::Bound;

use cache::{Cache, Key};
use message::{Header, Message};
use sockets::{Arrival, QuerySocket};
use unreachable::Unreachable;

/// How long an answer is waited for. Clients have asked again or given up by then (resolv.conf(5): 5 s by default).
const PATIENCE: Duration = Duration::from_secs(15);

/// Queries that may be under way in one network namespace; more are dropped, as by a server that can't keep up.
const MAX_UNDER_WAY: usize = 1024;

/// RFC 6891 §6.2.5 and what UDP carries at most.
const MAX_MESSAGE: usize = 65_535;

/// Network namespaces that may wait to be taken up.
pub const MAX_DOORS: usize = 256;

/// Errors of a socket in a row after which it is given up.
const MAX_ERRORS: u32 = 100;

/// The sockets in a network namespace.
#[derive(Debug)]
pub struct Door {
    pub sockets: Bound,
    /// None: weir's own.
    pub namespace: Option<Arc<Namespace>>,
}

/// What queries are served with; one thread's.
pub struct Service {
    servers: DnsServers,
    inspection: Inspection,
    cache: RefCell<Cache>,
    ids: Ids,
    /// All that are served.
    places: RefCell<Vec<Weak<Inside>>>,
}

impl Service {
    #[must_use]
    pub fn new(config: &config::Dns, servers: DnsServers, inspection: Inspection) -> Rc<Self> {
        let max_ttl = u32::try_from(config.max_ttl.as_secs()).unwrap_or(u32::MAX);
        let cache = RefCell::new(Cache::new(config.cache_entries, max_ttl));
        let (ids, places) = (Ids::default(), RefCell::default());
        Rc::new(Self { servers, inspection, cache, ids, places })
    }

    /// Serves network namespaces as they come, each until nobody lives there any more. Ends when no more can come and
    /// all are gone.
    pub async fn run(self: Rc<Self>, mut doors: mpsc::Receiver<Door>) {
        let mut serving = JoinSet::new();
        let reuse = reuse::give_back(Rc::clone(&self));
        tokio::pin!(reuse);
        loop {
            tokio::select! {
                () = &mut reuse => {}
                door = doors.recv() => match door {
                    Some(door) => drop(serving.spawn_local(Rc::clone(&self).serve(door))),
                    None => break,
                },
                Some(_) = serving.join_next() => {}
            }
        }
        serving.join_all().await;
    }

    fn note(&self, inside: &Rc<Inside>) {
        let mut places = self.places.borrow_mut();
        places.retain(|place| place.strong_count() > 0);
        places.push(Rc::downgrade(inside));
    }

    async fn serve(self: Rc<Self>, door: Door) {
        let (sockets, refusals) = door.sockets.into_parts();
        let gone = door.namespace.as_ref().map(|namespace| namespace.closed());
        let inside = Rc::new(Inside {
            first_v6: sockets.iter().find_map(QuerySocket::port_v6),
            service: self,
            netns: door.namespace.as_ref().map(|namespace| namespace.cookie()),
            namespace: door.namespace,
            refusals,
            room: Arc::new(Semaphore::new(MAX_UNDER_WAY)),
        });
        inside.service.note(&inside);
        let mut receiving = JoinSet::new();
        for socket in sockets {
            receiving.spawn_local(receive(Rc::clone(&inside), Rc::new(socket)));
        }
        match gone {
            // Dropped, the rest is not waited for.
            Some(gone) => gone.await,
            None => drop(receiving.join_all().await),
        }
    }
}

/// A network namespace that is served.
struct Inside {
    service: Rc<Service>,
    /// The first of the ports on ::1 that stand for IPv6 servers.
    first_v6: Option<u16>,
    /// As the kernel half calls it; None: weir's own.
    netns: Option<u64>,
    namespace: Option<Arc<Namespace>>,
    refusals: Unreachable,
    room: Arc<Semaphore>,
}

async fn receive(inside: Rc<Inside>, socket: Rc<QuerySocket>) {
    let mut buffer = vec![0; MAX_MESSAGE].into_boxed_slice();
    let mut errors = 0;
    while errors < MAX_ERRORS {
        let (length, arrival) = match socket.receive(&mut buffer).await {
            Ok(Some(received)) => received,
            Ok(None) => continue,
            Err(error) => {
                // What ICMP says of answers that went nowhere comes here, too.
                tracing::debug!(%error, "can't receive a query");
                errors += 1;
                continue;
            }
        };
        errors = 0;
        metrics::with(|metrics| metrics.dns_queries.increment());
        let Ok(room) = Arc::clone(&inside.room).try_acquire_owned() else {
            metrics::with(|metrics| metrics.dns_dropped.increment());
            continue;
        };
        let query = buffer[..length].to_vec();
        let (inside, socket) = (Rc::clone(&inside), Rc::clone(&socket));
        tokio::task::spawn_local(async move {
            inside.answer(&socket, &query, &arrival).await;
            drop(room);
        });
    }
}

impl Inside {
    async fn answer(&self, socket: &QuerySocket, query: &[u8], arrival: &Arrival) {
        let Some(server) = self.service.servers.find(self.netns, arrival.slot) else { return };
        let parsed = Message::parse(query);
        let key = self.key(server, query, parsed.as_ref());
        if let Some(key) = &key
            && let Some(answer) = self.service.cache.borrow().look_up(key, [query[0], query[1]])
        {
            metrics::with(|metrics| metrics.dns_cache_hits.increment());
            return self.deliver(socket, query, parsed.as_ref(), &answer, (server, arrival));
        }
        match timeout(PATIENCE, self.ask(server, query)).await {
            Ok(Ok(Some(answer))) => {
                if let (Some(key), Some(response)) = (key, Message::parse(&answer)) {
                    self.service.cache.borrow_mut().store(key, &answer, &response);
                }
                self.deliver(socket, query, parsed.as_ref(), &answer, (server, arrival));
            }
            Ok(Err(error)) => {
                metrics::with(|metrics| metrics.dns_failures.increment());
                tracing::debug!(%server, %error, "a query could not be forwarded");
                self.refusals.tell(arrival.client, arrival.to);
            }
            // As silent as the server.
            Ok(Ok(None)) | Err(_) => metrics::with(|metrics| metrics.dns_failures.increment()),
        }
    }

    fn key(&self, server: SocketAddr, query: &[u8], parsed: Option<&Message>) -> Option<Key> {
        self.service.cache.borrow().key(self.netns.unwrap_or(0), server, query, parsed)
    }

    /// Gives the client an answer, if it may have it.
    fn deliver(
        &self,
        socket: &QuerySocket,
        query: &[u8],
        asked: Option<&Message>,
        answer: &[u8],
        (server, arrival): (SocketAddr, &Arrival),
    ) {
        match judge(&self.service.inspection, self.netns, server, (query, asked), answer) {
            Some(answer) => socket.send(&answer, arrival),
            None => metrics::with(|metrics| metrics.dns_failures.increment()),
        }
    }

    /// The server's answer, with the query's id. None: this query is none that anybody would answer.
    ///
    /// # Errors
    /// The server can't be reached, or nobody listens there.
    async fn ask(&self, server: SocketAddr, query: &[u8]) -> io::Result<Option<Vec<u8>>> {
        if Header::of(query).is_none_or(|header| header.is_response) {
            return Ok(None);
        }
        // A port of its own, and an id that nobody can guess: answers can't be forged from aside (RFC 5452 §9).
        let socket = self.udp_socket(Domain::for_address(server)).await?;
        socket.connect(&server.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let id = self.service.ids.next();
        let mut asked = query.to_vec();
        asked[..2].copy_from_slice(&id);
        socket.send(&asked).await?;
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            let length = socket.recv(&mut buffer).await?;
            if message::answers(&asked, &buffer[..length]) {
                let mut answer = buffer[..length].to_vec();
                answer[..2].copy_from_slice(&query[..2]);
                return Ok(Some(answer));
            }
        }
    }

    async fn udp_socket(&self, domain: Domain) -> io::Result<Socket> {
        let new = move || netns::socket(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP));
        match &self.namespace {
            None => new(),
            Some(namespace) => namespace.make(new).await,
        }
    }
}

/// What the client gets for this answer; None: nothing. `query`, also as it was parsed.
#[must_use]
pub fn judge<'a>(
    inspection: &Inspection,
    netns: Option<u64>,
    server: SocketAddr,
    query: (&[u8], Option<&Message>),
    answer: &'a [u8],
) -> Option<std::borrow::Cow<'a, [u8]>> {
    let header = Header::of(answer)?;
    if !header.asks_one() {
        // Maintenance, or an error without the question: no addresses in it.
        return Some(answer.into());
    }
    // What weir can't read its clients should not read either: they might read an address in it.
    let response = Message::parse(answer)?;
    match inspection.judge(netns, server, &response) {
        Verdict::Pass => Some(answer.into()),
        Verdict::Refuse => Some(message::refusal(query.0, query.1?).into()),
    }
}

/// Ids of queries: each a keyed hash (SipHash) of the next number, with a key from the kernel.
#[derive(Default)]
struct Ids {
    key: RandomState,
    count: std::cell::Cell<u64>,
}

impl Ids {
    fn next(&self) -> [u8; 2] {
        let count = self.count.get().wrapping_add(1);
        self.count.set(count);
        let [a, b, ..] = self.key.hash_one(count).to_ne_bytes();
        [a, b]
    }
}
