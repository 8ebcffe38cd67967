//! Names to addresses, through the system's resolver: /etc/hosts, nsswitch and resolv.conf hold as for any
//! other program. Answers are kept for a fixed short time, as getaddrinfo(3) does not tell their TTL.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a resolver may take before the name counts as unresolvable.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A worker's resolver and its cache.
#[derive(Debug)]
pub struct Resolver {
    ttl: Duration,
    capacity: usize,
    cache: RefCell<HashMap<Box<str>, Answer>>,
}

#[derive(Debug)]
struct Answer {
    addresses: Rc<[IpAddr]>,
    expires: Instant,
}

/// A name that has no addresses, as far as can be found out.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("{name} could not be resolved: {error}")]
    Failed { name: Box<str>, error: io::Error },
    #[error("{name} has no address")]
    Empty { name: Box<str> },
    #[error("{name} could not be resolved within {} s", TIMEOUT.as_secs())]
    TimedOut { name: Box<str> },
}

impl Resolver {
    /// An empty cache of `capacity` names, each good for `ttl`.
    #[must_use]
    pub fn new(ttl: Duration, capacity: usize) -> Self {
        Self { ttl, capacity, cache: RefCell::default() }
    }

    /// The addresses of `name`, in the system's order of preference (RFC 6724), families interleaved
    /// (RFC 8305 §4).
    ///
    /// # Errors
    /// [`DnsError`].
    pub async fn resolve(&self, name: &str) -> Result<Rc<[IpAddr]>, DnsError> {
        let now = Instant::now();
        if let Some(answer) = self.cache.borrow().get(name)
            && answer.expires > now
        {
            return Ok(Rc::clone(&answer.addresses));
        }
        let lookup = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((name, 0)));
        let found = match lookup.await {
            Err(_) => return Err(DnsError::TimedOut { name: name.into() }),
            Ok(Err(error)) => return Err(DnsError::Failed { name: name.into(), error }),
            Ok(Ok(found)) => interleave(found.map(|address| address.ip())),
        };
        if found.is_empty() {
            return Err(DnsError::Empty { name: name.into() });
        }
        let addresses: Rc<[IpAddr]> = found.into();
        self.remember(name, Answer { addresses: Rc::clone(&addresses), expires: now + self.ttl });
        Ok(addresses)
    }

    fn remember(&self, name: &str, answer: Answer) {
        let mut cache = self.cache.borrow_mut();
        if cache.len() >= self.capacity {
            let now = Instant::now();
            cache.retain(|_, answer| answer.expires > now);
        }
        // Full of fresh answers: this one is simply asked for again next time.
        if cache.len() < self.capacity {
            cache.insert(name.into(), answer);
        }
    }
}

fn interleave(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut unique: Vec<IpAddr> = Vec::new();
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    let Some(first) = unique.first().copied() else { return unique };
    let (same, other): (Vec<_>, Vec<_>) = unique.into_iter().partition(|a| a.is_ipv4() == first.is_ipv4());
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    let mut mixed = Vec::new();
    loop {
        let pair = (same.next(), other.next());
        if pair == (None, None) {
            return mixed;
        }
        mixed.extend(pair.0.into_iter().chain(pair.1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_doubles_go() {
        let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let given = parse(&["::1", "::2", "10.0.0.1", "::1", "::3", "10.0.0.2"]);
        let expected = parse(&["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"]);
        assert_eq!(interleave(given.into_iter()), expected);
    }
}
