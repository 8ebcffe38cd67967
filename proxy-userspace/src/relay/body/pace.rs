//! How slow a peer may be. A byte now and then keeps every time-out away, and a connection for ever; so whoever has had
//! weir wait for longer than a time-out in all must have moved so many bytes for each second of that. Time in which a peer
//! is not waited for is not its own: a server that has nothing to say yet is not a client that reads slowly.

use std::time::Duration;

use super::{BodyError, Patience};
use crate::net::deadline::{self, TICK};
use crate::relay::tunnel::Side;

/// How long one peer was waited for, in ticks of this worker.
#[derive(Debug, Default)]
pub struct Waited {
    ticks: u64,
}

impl Waited {
    /// A wait, and the bytes that the peer has moved by its end.
    ///
    /// # Errors
    /// [`BodyError::TooSlow`].
    pub fn note(
        &mut self,
        since: u64,
        limit: Duration,
        patience: Patience<'_>,
        moved: u64,
        side: Side,
    ) -> Result<(), BodyError> {
        self.ticks += deadline::ticks().saturating_sub(since);
        let waited = TICK.saturating_mul(u32::try_from(self.ticks).unwrap_or(u32::MAX));
        if waited > limit && moved < patience.least_rate.saturating_mul(waited.as_secs()) {
            return Err(BodyError::TooSlow(side, patience.least_rate));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::deadline::Deadline;

    #[track_caller]
    fn check(seconds: u64, moved: u64, least_rate: u64, expected: bool) {
        std::thread::spawn(move || {
            let deadline = Deadline::new();
            let limit = Duration::from_secs(5);
            let patience =
                Patience { deadline: &deadline, read: limit, write: limit, least_rate, pace: None };
            let since = deadline::ticks();
            (0..seconds * 10).for_each(|_| deadline::tick());
            let noted = Waited::default().note(since, limit, patience, moved, Side::Downstream);
            assert_eq!(noted.is_ok(), expected, "{seconds} s, {moved} bytes at {least_rate}");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn whoever_is_waited_for_too_long_must_have_moved_enough() {
        check(5, 0, 100, true);
        check(6, 599, 100, false);
        check(6, 600, 100, true);
        check(60, 600, 100, false);
        check(60, 0, 0, true);
    }
}
