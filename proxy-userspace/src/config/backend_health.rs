//! `check`, `outliers`, `breaker` and `retries` of an entry of `routing.backends`: which members are fit to be asked, and
//! what becomes of a request whose member was not.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::kinds::{Fault, choice, duration, none_or, number, quoted, size};
use super::section::Section;

/// How a group finds out which of its members are fit, and what it does about those that are not.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendHealth {
    pub check: Check,
    pub outliers: Outliers,
    pub breaker: Breaker,
    pub retries: Retries,
}

/// `check`: members are asked, whether or not there are requests for them.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// Default off.
    pub kind: CheckKind,
    /// What is asked for. Default /.
    pub path: Box<str>,
    /// What it is asked as; none: as the member's own name. Default none.
    pub host: Option<Box<str>>,
    /// Statuses of the fit. Default 200-399.
    pub statuses: RangeInclusive<u16>,
    /// Between two checks of a member, give or take a tenth. Default 5s.
    pub interval: Duration,
    /// How long one may take. Default 2s.
    pub timeout: Duration,
    /// So many in a row have a member come back. Default 2.
    pub rise: u32,
    /// So many failures in a row, and it gets no requests. Default 3.
    pub fall: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckKind {
    Off,
    /// A connection.
    Tcp,
    /// A GET.
    Http,
}

/// `outliers`: members whose requests fail get none for a while.
#[derive(Debug, Clone, PartialEq)]
pub struct Outliers {
    /// Failures in a row. Default 5; 0 means never.
    pub failures: u32,
    /// Statuses that are failures. Default 500-599.
    pub statuses: RangeInclusive<u16>,
    /// How long the first time; each time in a row that much longer. Default 30s.
    pub ejection: Duration,
    /// Percent of the members that may be out at one time for this. Default 50.
    pub max_share: u32,
}

/// `breaker`: a member of whose requests too many fail is left alone, and then tried with one.
#[derive(Debug, Clone, PartialEq)]
pub struct Breaker {
    /// Percent of requests that fail. Default 0, off.
    pub share: u32,
    /// Of at least so many. Default 20.
    pub requests: u32,
    /// Within this time. Default 10s.
    pub window: Duration,
    /// How long it is left alone. Default 5s.
    pub open: Duration,
}

/// `retries`: requests that fail are sent to another member, where that can do no harm.
#[derive(Debug, Clone, PartialEq)]
pub struct Retries {
    /// Beside the first one. Default 2.
    pub attempts: u32,
    /// Statuses for which others are asked. Default 502-504.
    pub statuses: RangeInclusive<u16>,
    /// Retries in percent of requests, all together. Default 20.
    pub budget: u32,
    /// And so many a second beside that. Default 10.
    pub per_second: u32,
    /// How long one member may take to answer before another is asked. Default none: server.timeouts.read.
    pub timeout: Option<Duration>,
    /// Largest body that is kept to be sent again, in bytes. Default 64KiB.
    pub body: usize,
}

pub(super) fn read(s: &mut Section<'_, '_>) -> BackendHealth {
    BackendHealth {
        check: s.section("check", check),
        outliers: s.section("outliers", |s| Outliers {
            failures: s.read("failures", 5, number(0..=1000)),
            statuses: s.read("statuses", 500..=599, statuses),
            ejection: s.read("ejection", 30 * SECOND, duration(MILLISECOND..=DAY)),
            max_share: s.read("max_share", 50, number(0..=100)),
        }),
        breaker: s.section("breaker", |s| Breaker {
            share: s.read("share", 0, number(0..=100)),
            requests: s.read("requests", 20, number(1..=1_000_000)),
            window: s.read("window", 10 * SECOND, duration(MILLISECOND..=HOUR)),
            open: s.read("open", 5 * SECOND, duration(MILLISECOND..=HOUR)),
        }),
        retries: s.section("retries", |s| Retries {
            attempts: s.read("attempts", 2, number(0..=10)),
            statuses: s.read("statuses", 502..=504, statuses),
            budget: s.read("budget", 20, number(0..=100)),
            per_second: s.read("per_second", 10, number(0..=100_000)),
            timeout: s.read("timeout", None, none_or(duration(MILLISECOND..=HOUR))),
            body: s.read("body", 64 << 10, size(0..=16 << 20)),
        }),
    }
}

fn check(s: &mut Section<'_, '_>) -> Check {
    const KINDS: &[(&str, CheckKind)] =
        &[("off", CheckKind::Off), ("tcp", CheckKind::Tcp), ("http", CheckKind::Http)];
    Check {
        kind: s.read("kind", CheckKind::Off, choice(KINDS)),
        path: s.read("path", "/".into(), path),
        host: s.read("host", None, none_or(host)),
        statuses: s.read("statuses", 200..=399, statuses),
        interval: s.read("interval", 5 * SECOND, duration(100 * MILLISECOND..=DAY)),
        timeout: s.read("timeout", 2 * SECOND, duration(10 * MILLISECOND..=HOUR)),
        rise: s.read("rise", 2, number(1..=100)),
        fall: s.read("fall", 3, number(1..=100)),
    }
}

/// `200`, or `200-399`.
fn statuses(text: &str) -> Result<RangeInclusive<u16>, Fault> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.trim().parse().ok().filter(|status| (100..=599).contains(status));
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => {
            Err(format!("{} is neither a status such as 200 nor a range such as 200-399", quoted(text))
                .into())
        }
    }
}

/// It goes into a request as it is.
fn path(text: &str) -> Result<Box<str>, Fault> {
    if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.into());
    }
    Err(format!("{} is not a path such as /health", quoted(text)).into())
}

fn host(text: &str) -> Result<Box<str>, Fault> {
    match crate::authority::Authority::parse(text, Some(80)) {
        Ok(_) => Ok(text.into()),
        Err(error) => Err(format!("{} is not a host: {error}", quoted(text)).into()),
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use crate::config::tests::load_files;

    #[track_caller]
    fn check(settings: &str, expected: &str) {
        let text = format!("routing:\n  backends: [{{name: shop, members: [], {settings}}}]\n");
        let errors = load_files(&[text.as_bytes()], &[], &[]).unwrap_err();
        assert!(errors.contains(expected), "{settings}:\n{errors}");
    }

    #[test]
    fn wrong_settings() {
        check("check: {kind: ping}", "routing.backends.check.kind: `ping` is not one of off, tcp, http");
        check("check: {path: health}", "`health` is not a path such as /health");
        check("check: {path: \"/a b\"}", "`/a b` is not a path such as /health");
        check("check: {statuses: 399-200}", "`399-200` is neither a status such as 200");
        check("check: {statuses: 2xx}", "`2xx` is neither a status such as 200");
        check("check: {host: 'a b'}", "`a b` is not a host");
        check("outliers: {max_share: 101}", "`101` is outside 0 to 100");
        check(
            "retries: {atempts: 1}",
            "routing.backends.retries.atempts: unknown key (did you mean `attempts`?)",
        );
    }
}
