//! How old a stored response is, how long it is fresh, and what may be done with it (RFC 9111 §4.2, RFC 5861,
//! RFC 8246).

use super::date;
use super::directives::{MOST_SECONDS, RequestDirectives, ResponseDirectives, number};
use super::headers::{has, single, values};
use super::{Rules, targeted};
use crate::http::head::ResponseHead;
use crate::http::headers::Headers;

/// When a request was sent and its response received, in milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchanged {
    pub sent: u64,
    pub received: u64,
}

/// What freshness is reckoned from. Times in milliseconds since 1970-01-01 UTC, spans in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    pub received: u64,
    /// corrected_initial_age (RFC 9111 §4.2.3).
    pub initial_age: u64,
    pub lifetime: u64,
    /// The lifetime is a guess of ours.
    pub heuristic: bool,
    /// Never used without validation (no-cache).
    pub always_validate: bool,
    pub forbids_stale: bool,
    pub immutable: bool,
    /// How long past its lifetime it may be used while it is being validated, and while its origin fails.
    pub while_revalidate: u64,
    pub if_error: u64,
}

/// What may be done with a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usable {
    Fresh,
    /// It is stale, and may be used nevertheless: the client takes stale ones.
    Stale,
    /// It may be used now if it is validated in the background (RFC 5861 §3).
    WhileRevalidating,
    /// It has to be validated first.
    Validate,
}

impl Freshness {
    /// Reckons with the fields of a response.
    #[must_use]
    pub fn of(
        response: &ResponseHead,
        directives: &ResponseDirectives,
        guessable: bool,
        exchanged: Exchanged,
        rules: &Rules,
    ) -> Self {
        let headers = &response.headers;
        let received = exchanged.received / 1000;
        // RFC 9110 §6.6.1: who receives a response without Date, or with one that is none, takes the time of receipt.
        let date = single(headers, "date").and_then(|date| date::parse(date, received)).unwrap_or(received);
        let (lifetime, heuristic) = match explicit_lifetime(headers, directives, date, received) {
            Some(lifetime) => (lifetime, false),
            None if guessable => (guessed_lifetime(headers, date, received, rules), true),
            None => (0, true),
        };
        let seconds = |seconds: Option<u64>| seconds.unwrap_or(0) * 1000;
        Self {
            received: exchanged.received,
            initial_age: initial_age(headers, date, exchanged),
            lifetime: lifetime * 1000,
            heuristic,
            always_validate: directives.no_cache,
            forbids_stale: directives.forbids_stale(),
            immutable: directives.immutable,
            while_revalidate: seconds(directives.stale_while_revalidate),
            if_error: seconds(directives.stale_if_error),
        }
    }

    /// current_age (RFC 9111 §4.2.3), in milliseconds. A clock that was set back does not make it younger.
    #[must_use]
    pub fn age(&self, now: u64) -> u64 {
        self.initial_age + now.saturating_sub(self.received)
    }

    /// What is left of its lifetime in milliseconds; negative once it is stale.
    #[must_use]
    pub fn left(&self, now: u64) -> i64 {
        let signed = |span: u64| i64::try_from(span).unwrap_or(i64::MAX);
        signed(self.lifetime) - signed(self.age(now))
    }

    /// What a request allows to be done with it (RFC 9111 §4, §5.2.1).
    #[must_use]
    pub fn usable(&self, request: &RequestDirectives, now: u64) -> Usable {
        if self.always_validate || request.no_cache {
            return Usable::Validate;
        }
        let age = self.age(now);
        // RFC 8246 §2.1: a fresh immutable response is validated only if that is asked for outright.
        let too_old = request.max_age.is_some_and(|most| age > most * 1000 && !self.immutable);
        let left = self.left(now);
        let wanted = request.min_fresh.unwrap_or(0) * 1000;
        if left > i64::try_from(wanted).unwrap_or(i64::MAX) && !too_old {
            return Usable::Fresh;
        }
        if self.forbids_stale || too_old || left > 0 {
            return Usable::Validate;
        }
        let overdue = left.unsigned_abs();
        if overdue < self.while_revalidate && request.min_fresh.is_none() {
            return Usable::WhileRevalidating;
        }
        match request.max_stale {
            Some(most) if most >= MOST_SECONDS || overdue <= most * 1000 => Usable::Stale,
            _ => Usable::Validate,
        }
    }

    /// Whether it may be used although it could not be validated: because the origin answered with an error
    /// (`errors`), or because it can't be reached at all, for `unreachable` milliseconds past its lifetime
    /// (RFC 9111 §4.2.4, RFC 5861 §4).
    #[must_use]
    pub fn usable_in_need(
        &self,
        request: &RequestDirectives,
        errors: bool,
        unreachable: u64,
        now: u64,
    ) -> bool {
        // A client's no-cache asks for a response of the origin, or none.
        if self.forbids_stale || request.no_cache {
            return false;
        }
        let by_request = request.stale_if_error.unwrap_or(0) * 1000;
        let most = self.if_error.max(by_request).max(if errors { 0 } else { unreachable });
        let overdue = self.left(now).min(0).unsigned_abs();
        most > 0 && overdue <= most
    }
}

/// Whether a response says itself how long it is fresh (RFC 9111 §4.2.1).
#[must_use]
pub fn is_explicit(response: &ResponseHead, directives: &ResponseDirectives) -> bool {
    directives.s_maxage.is_some() || directives.max_age.is_some() || has(&response.headers, "expires")
}

/// The directives that count: those of a targeted field if that is to be looked at and valid, then of Cache-Control.
/// The second value says whether they are targeted: then Expires says nothing (RFC 9213 §2.2).
#[must_use]
pub fn directives(response: &ResponseHead, rules: &Rules) -> (ResponseDirectives, bool) {
    if rules.targeted
        && let Some(directives) = targeted::directives(&response.headers)
    {
        return (directives, true);
    }
    (ResponseDirectives::of(&response.headers), false)
}

/// In seconds (RFC 9111 §4.2.1).
fn explicit_lifetime(headers: &Headers, directives: &ResponseDirectives, date: u64, now: u64) -> Option<u64> {
    if let Some(seconds) = directives.s_maxage.or(directives.max_age) {
        return Some(seconds);
    }
    if !has(headers, "expires") || directives.no_store {
        return None;
    }
    // RFC 9111 §5.3: what is no date, "0" above all, is in the past; two of them are invalid.
    let expires = single(headers, "expires").and_then(|expires| date::parse(expires, now)).unwrap_or(0);
    Some(expires.saturating_sub(date).min(MOST_SECONDS))
}

/// In seconds: a tenth of the time since it was last modified (RFC 9111 §4.2.2), and no more than the configured
/// default. Nothing without Last-Modified: what was made for this request is most often without it.
fn guessed_lifetime(headers: &Headers, date: u64, now: u64, rules: &Rules) -> u64 {
    let modified = single(headers, "last-modified").and_then(|modified| date::parse(modified, now));
    modified.map_or(0, |modified| (date.saturating_sub(modified) / 10).min(rules.default_ttl))
}

/// In milliseconds (RFC 9111 §4.2.3).
fn initial_age(headers: &Headers, date: u64, exchanged: Exchanged) -> u64 {
    let apparent = (exchanged.received / 1000).saturating_sub(date) * 1000;
    let delay = exchanged.received.saturating_sub(exchanged.sent);
    // RFC 9111 §5.1: of several the first counts, and what is no number does not.
    let first =
        values(headers, "age").next().map(|value| value.split(|byte| *byte == b',').next().unwrap_or(value));
    let given = first.and_then(|age| number(age.trim_ascii())).unwrap_or(0);
    apparent.max(given * 1000 + delay)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{RULES, response};
    use super::*;
    use proptest::prelude::*;

    /// 2026-01-01 00:00:00, a second after the request.
    const RECEIVED: u64 = 1_767_225_600_000;
    const EXCHANGED: Exchanged = Exchanged { sent: RECEIVED, received: RECEIVED };

    fn freshness(fields: &str) -> Freshness {
        let response = response(200, fields);
        let (directives, _) = directives(&response, &RULES);
        Freshness::of(&response, &directives, true, EXCHANGED, &RULES)
    }

    #[track_caller]
    fn check(fields: &str, age: u64, lifetime: u64) {
        let found = freshness(fields);
        assert_eq!((found.age(RECEIVED) / 1000, found.lifetime / 1000), (age, lifetime), "{fields}");
    }

    const DATE: &str = "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n";

    #[test]
    fn lifetimes() {
        check("Cache-Control: max-age=60\r\n", 0, 60);
        check("Cache-Control: max-age=60, s-maxage=5\r\n", 0, 5);
        check("Cache-Control: max-age=60\r\nExpires: 0\r\n", 0, 60);
        check(&format!("{DATE}Expires: Thu, 01 Jan 2026 00:01:00 GMT\r\n"), 0, 60);
        check("Expires: Thu, 01 Jan 2026 00:01:00 GMT\r\nDate: x\r\n", 0, 60);
        check(&format!("{DATE}Expires: 0\r\n"), 0, 0);
        check(
            &format!(
                "{DATE}Expires: Thu, 01 Jan 2026 00:01:00 GMT\r\nExpires: Thu, 01 Jan 2026 00:01:00 GMT\r\n"
            ),
            0,
            0,
        );
        // Both clocks are an hour slow: the difference counts, and the response is an hour old.
        check("Date: Wed, 31 Dec 2025 23:00:00 GMT\r\nExpires: Wed, 31 Dec 2025 23:01:00 GMT\r\n", 3600, 60);
        check("", 0, 0);
    }

    #[test]
    fn guesses() {
        check(&format!("{DATE}Last-Modified: Wed, 31 Dec 2025 23:50:00 GMT\r\n"), 0, 60);
        check(&format!("{DATE}Last-Modified: Wed, 31 Dec 2025 00:00:00 GMT\r\n"), 0, RULES.default_ttl);
        check(&format!("{DATE}Last-Modified: Fri, 02 Jan 2026 00:00:00 GMT\r\n"), 0, 0);
        check(&format!("{DATE}Last-Modified: yesterday\r\n"), 0, 0);
    }

    #[test]
    fn ages() {
        check("Age: 7\r\n", 7, 0);
        check("Date: Wed, 31 Dec 2025 23:59:00 GMT\r\nAge: 7\r\n", 60, 0);
        for (text, age) in [("x", 0), ("-1", 0), ("1.5", 0), ("7, 0", 7), ("7\r\nAge: 0", 7), ("", 0)] {
            check(&format!("Age: {text}\r\n"), age, 0);
        }
        check("Age: 99999999999999999999\r\n", MOST_SECONDS, 0);
    }

    #[track_caller]
    fn check_use(fields: &str, request: RequestDirectives, after: u64, expected: Usable) {
        let usable = freshness(fields).usable(&request, RECEIVED + after * 1000);
        assert_eq!(usable, expected, "{fields} {request:?} after {after} s");
    }

    #[test]
    fn uses() {
        let any = RequestDirectives::default;
        let minute = "Cache-Control: max-age=60\r\n";
        check_use(minute, any(), 59, Usable::Fresh);
        check_use(minute, any(), 60, Usable::Validate);
        check_use("Cache-Control: max-age=60, no-cache\r\n", any(), 0, Usable::Validate);
        check_use(minute, RequestDirectives { no_cache: true, ..any() }, 0, Usable::Validate);
        check_use(minute, RequestDirectives { max_age: Some(0), ..any() }, 1, Usable::Validate);
        check_use(
            "Cache-Control: max-age=60, immutable\r\n",
            RequestDirectives { max_age: Some(0), ..any() },
            1,
            Usable::Fresh,
        );
        check_use(
            "Cache-Control: max-age=60, immutable\r\n",
            RequestDirectives { no_cache: true, ..any() },
            1,
            Usable::Validate,
        );
        check_use(minute, RequestDirectives { min_fresh: Some(30), ..any() }, 31, Usable::Validate);
        check_use(minute, RequestDirectives { max_stale: Some(10), ..any() }, 69, Usable::Stale);
        check_use(minute, RequestDirectives { max_stale: Some(10), ..any() }, 71, Usable::Validate);
        check_use(
            minute,
            RequestDirectives { max_stale: Some(MOST_SECONDS), ..any() },
            7_000_000,
            Usable::Stale,
        );
        let revalidating = "Cache-Control: max-age=60, stale-while-revalidate=10\r\n";
        check_use(revalidating, any(), 65, Usable::WhileRevalidating);
        check_use(revalidating, any(), 71, Usable::Validate);
        for strict in ["must-revalidate", "proxy-revalidate", "s-maxage=60"] {
            let fields = format!("Cache-Control: max-age=60, stale-while-revalidate=10, {strict}\r\n");
            check_use(
                &fields,
                RequestDirectives { max_stale: Some(MOST_SECONDS), ..any() },
                65,
                Usable::Validate,
            );
        }
    }

    #[test]
    fn need() {
        let any = RequestDirectives::default();
        let check = |fields: &str, errors, after: u64, expected| {
            let usable = freshness(fields).usable_in_need(&any, errors, 3_600_000, RECEIVED + after * 1000);
            assert_eq!(usable, expected, "{fields} {errors} {after}");
        };
        check("Cache-Control: max-age=60\r\n", false, 100, true);
        check("Cache-Control: max-age=60\r\n", false, 3700, false);
        check("Cache-Control: max-age=60\r\n", true, 100, false);
        check("Cache-Control: max-age=60, stale-if-error=60\r\n", true, 100, true);
        check("Cache-Control: max-age=60, stale-if-error=60\r\n", true, 121, false);
        for strict in ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=5"] {
            check(&format!("Cache-Control: max-age=60, stale-if-error=60, {strict}\r\n"), false, 100, false);
        }
    }

    proptest! {
        /// Nothing makes a response younger or fresher again.
        #[test]
        fn time_only_ages(max_age in 0u64..10_000, age in 0u64..10_000, early in 0u64..10_000_000, later in 0u64..10_000_000) {
            let found = freshness(&format!("Cache-Control: max-age={max_age}\r\nAge: {age}\r\n"));
            let any = RequestDirectives::default();
            let (early, later) = (RECEIVED + early, RECEIVED + early + later);
            prop_assert!(found.age(later) >= found.age(early));
            if found.usable(&any, later) == Usable::Fresh {
                prop_assert_eq!(found.usable(&any, early), Usable::Fresh);
            }
            prop_assert_eq!(found.usable(&any, later) == Usable::Fresh, later - RECEIVED + age * 1000 < max_age * 1000);
        }
    }
}
