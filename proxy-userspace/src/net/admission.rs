//! How many downstream connections there are, and may be: in all, and of one client.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::telemetry::metrics;

/// Places for connections, all workers together.
#[derive(Debug)]
pub struct Admission {
    limit: AtomicUsize,
    open: AtomicUsize,
    /// [`NOBODY`]: nobody is counted.
    per_client: AtomicUsize,
    /// Who has how many; nobody has none.
    clients: Mutex<HashMap<IpAddr, usize>>,
}

/// Stands for no limit.
const NOBODY: usize = usize::MAX;

/// Why there is no place for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `server.limits.connections` are open.
    Full,
    /// Its client has `server.limits.connections_per_client` already.
    Client,
}

impl Admission {
    /// Room for `limit` connections, `per_client` of each client.
    #[must_use]
    pub fn new(limit: usize, per_client: Option<usize>) -> Arc<Self> {
        let (limit, per_client) = (AtomicUsize::new(limit), AtomicUsize::new(per_client.unwrap_or(NOBODY)));
        Arc::new(Self { limit, open: AtomicUsize::new(0), per_client, clients: Mutex::default() })
    }

    /// From now on there is so much room; what is open stays.
    pub fn set_limits(&self, limit: usize, per_client: Option<usize>) {
        self.limit.store(limit, Ordering::Relaxed);
        self.per_client.store(per_client.unwrap_or(NOBODY), Ordering::Relaxed);
    }

    /// A place for one connection. `client` is counted as one of its connections, if it is given.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn admit(self: &Arc<Self>, client: Option<IpAddr>) -> Result<Admitted, Refusal> {
        let most = self.per_client.load(Ordering::Relaxed);
        let client = client.filter(|_| most != NOBODY).map(counted_as);
        if let Some(client) = client
            && !self.count(client, most)
        {
            return Err(Refusal::Client);
        }
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.limit.load(Ordering::Relaxed) {
            self.give_back(client);
            return Err(Refusal::Full);
        }
        Ok(Admitted { admission: Arc::clone(self), client })
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn count(&self, client: IpAddr, most: usize) -> bool {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        match clients.get_mut(&client) {
            Some(count) if *count >= most => return false,
            Some(count) => *count += 1,
            None => drop(clients.insert(client, 1)),
        }
        true
    }

    fn give_back(&self, client: Option<IpAddr>) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = client else { return };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&client);
            }
        }
    }
}

/// Whom an address stands for. Who has an IPv6 network has as many addresses as he likes: a /64 is the least that is
/// given out (RFC 6177).
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    client: Option<IpAddr>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.give_back(self.client);
        metrics::with(|metrics| metrics.closed_connections.increment());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_given_back() {
        let admission = Admission::new(2, None);
        let first = admission.admit(None).unwrap();
        let _second = admission.admit(None).unwrap();
        assert_eq!(admission.admit(None).unwrap_err(), Refusal::Full);
        drop(first);
        assert!(admission.admit(None).is_ok());
        assert_eq!(admission.open(), 1);
    }

    #[test]
    fn a_client_has_no_more_than_its_share() {
        let address = |text: &str| Some(text.parse().unwrap());
        let admission = Admission::new(4, Some(2));
        let (first, _second) =
            (admission.admit(address("192.0.2.1")), admission.admit(address("::ffff:192.0.2.1")));
        assert_eq!(admission.admit(address("192.0.2.1")).unwrap_err(), Refusal::Client);
        // Nobody in particular: a captured program.
        let _captured = admission.admit(None).unwrap();
        let one = admission.admit(address("2001:db8::1")).unwrap();
        assert_eq!(
            admission.admit(address("2001:db8::2")).unwrap_err(),
            Refusal::Full,
            "counted, but there is no room"
        );
        drop(first);
        let _other = admission.admit(address("2001:db8::2:0:0:0:1")).unwrap();
        drop(one);
        assert!(admission.admit(address("2001:db8::3")).is_ok());
        assert_eq!(admission.clients.lock().unwrap().len(), 2, "who has none is forgotten");
    }
}
