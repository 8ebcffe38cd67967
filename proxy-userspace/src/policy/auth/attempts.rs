//! Wrong passwords, by client: after a few of them each further attempt has to wait, twice as long each time. Attempts of
//! one client take turns, so many at once are no way around that.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Wrong ones that cost nothing: slips.
const FREE: u32 = 3;
/// The wait after the first that does.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// It doubles so often.
const MAX_DOUBLINGS: u32 = 6;
/// The longest that an attempt waits; with more before it, it is refused.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Clients that are remembered. With one more, the one whose last attempt was first is forgotten.
const MAX_CLIENTS: usize = 4096;
/// How long a client is remembered after its last attempt.
const FORGET: Duration = Duration::from_secs(600);

/// The attempts of all clients.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    clients: Mutex<HashMap<IpAddr, State>>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    failures: u32,
    /// When the next attempt may be made.
    next: Instant,
}

impl Attempts {
    /// A client's turn: how long it has to wait for it. Err: too long.
    pub(super) fn turn(&self, client: IpAddr) -> Result<Duration, Duration> {
        self.turn_at(client, Instant::now())
    }

    fn turn_at(&self, client: IpAddr, now: Instant) -> Result<Duration, Duration> {
        let mut clients = self.lock();
        let Some(state) = clients.get_mut(&network(client)) else { return Ok(Duration::ZERO) };
        if now.saturating_duration_since(state.next) > FORGET {
            clients.remove(&network(client));
            return Ok(Duration::ZERO);
        }
        let at = state.next.max(now);
        let wait = at - now;
        if wait > MAX_WAIT {
            return Err(wait);
        }
        if let Some(doublings) = state.failures.checked_sub(FREE) {
            state.next = at + FIRST_WAIT * 2_u32.pow(doublings.min(MAX_DOUBLINGS));
        }
        Ok(wait)
    }

    pub(super) fn failed(&self, client: IpAddr) {
        let now = Instant::now();
        let mut clients = self.lock();
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(&network(client)) {
            let oldest = clients.iter().min_by_key(|(_, state)| state.next).map(|(client, _)| *client);
            oldest.map(|oldest| clients.remove(&oldest));
        }
        let state = clients.entry(network(client)).or_insert(State { failures: 0, next: now });
        state.failures = state.failures.saturating_add(1);
    }

    pub(super) fn succeeded(&self, client: IpAddr) {
        self.lock().remove(&network(client));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, State>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who has one IPv6 address has all of its /64.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_take_turns_and_wait_longer_each_time() {
        let attempts = Attempts::default();
        let client = "2001:db8::1".parse().unwrap();
        // Later than anything that the clock says meanwhile.
        let (now, other) = (Instant::now() + Duration::from_secs(60), "192.0.2.1".parse().unwrap());
        for _ in 0..FREE {
            assert_eq!(attempts.turn_at(client, now), Ok(Duration::ZERO));
            attempts.failed(client);
        }
        let sibling = "2001:db8::ffff".parse().unwrap();
        let later = now + Duration::from_secs(1);
        assert_eq!(attempts.turn_at(client, later), Ok(Duration::ZERO));
        assert_eq!(attempts.turn_at(sibling, later), Ok(FIRST_WAIT));
        attempts.failed(client);
        assert_eq!(attempts.turn_at(client, later), Ok(FIRST_WAIT * 2));
        (0..20).for_each(|_| attempts.failed(client));
        assert_eq!(attempts.turn_at(client, later), Ok(FIRST_WAIT * 4));
        assert!(attempts.turn_at(client, later).is_err());
        assert_eq!(attempts.turn_at(other, later), Ok(Duration::ZERO));
        // It is forgotten in time, or by a right one.
        attempts.succeeded(sibling);
        assert_eq!(attempts.turn_at(client, later), Ok(Duration::ZERO));
    }

    #[test]
    fn those_remembered_are_bounded() {
        let attempts = Attempts::default();
        (0..5000_u32).for_each(|number| attempts.failed(IpAddr::from(number.to_be_bytes())));
        assert_eq!(attempts.lock().len(), MAX_CLIENTS);
    }
}
