//! The record of one request or tunnel: who, where, what, and how it ended.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::authority::Authority;
use crate::target::{Client, Front, Target};

/// One request or tunnel. Filled in on its way; recorded once, at its end.
#[derive(Debug, Clone, Serialize)]
pub struct Flow {
    /// Grows by one with each flow of this weir.
    pub id: u64,
    /// When it began, in milliseconds since 1970-01-01 UTC.
    pub started_ms: u64,
    pub front: Front,
    #[serde(flatten)]
    pub client: Client,
    /// Who the client has proved to be: a user, or a context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
    /// What the client asked for, as `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Where a captured connection was going.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_destination: Option<SocketAddr>,
    /// The address that weir connected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<SocketAddr>,
    /// The one of routing.backends that it was sent to, and the member of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<Arc<str>>,
    /// How many members were tried, that one included.
    #[serde(skip_serializing_if = "is_zero")]
    pub tries: u32,
    pub protocol: Protocol,
    /// weir has taken the server's place in TLS.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub intercepted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Cow<'static, str>>,
    /// The request target, secrets redacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The status that the client got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Bytes of content from the client that the upstream took.
    pub sent: u64,
    /// Bytes of content from the upstream that the client took.
    pub received: u64,
    /// What the cache did with it; absent where no cache was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheUse>,
    /// The one of `capture.rules` that redirected it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// Policy's verdict, if it was not simply to allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Cow<'static, str>>,
    /// The rule that it comes from, as the configuration or a list has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict_rule: Option<Cow<'static, str>>,
    /// How it ended: `complete`, or what went wrong.
    pub end: Cow<'static, str>,
    pub timings: Timings,
    #[serde(skip)]
    began: Option<Instant>,
}

/// What the bytes turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Http1,
    Http2,
    Tls,
    Socks5,
    Dns,
    Opaque,
}

/// What the cache did with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheUse {
    /// Answered from store, fresh.
    Hit,
    /// Answered from store although it was stale.
    StaleHit,
    /// Answered from store after its origin was asked.
    Revalidated,
    /// Answered with the response to another request, as that arrived.
    Collapsed,
    /// Sent on, for this reason (`fwd` in RFC 9211 §2.2).
    Forward(&'static str),
}

impl CacheUse {
    /// As the flow's record says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::StaleHit => "stale-hit",
            Self::Revalidated => "revalidated",
            Self::Collapsed => "collapsed",
            Self::Forward(why) => why,
        }
    }
}

impl Serialize for CacheUse {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Durations in microseconds; absent where the phase did not take place.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Timings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_us: Option<u64>,
    /// From the end of the request, as far as it was sent by then, to the response's head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttfb_us: Option<u64>,
    pub total_us: u64,
}

impl Flow {
    /// A flow that begins now.
    #[must_use]
    pub fn begin(client: &Client, target: &Target, protocol: Protocol) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            started_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| micros(since) / 1000),
            front: target.front,
            client: client.clone(),
            user: None,
            authority: target.authority.as_ref().map(authority_text),
            original_destination: target.original_destination,
            upstream: None,
            backend: None,
            member: None,
            tries: 0,
            protocol,
            intercepted: target.intercepted,
            method: None,
            url: None,
            status: None,
            sent: 0,
            received: 0,
            cache: None,
            rule: target.rule.as_ref().map(|rule| Arc::clone(rule.name())),
            verdict: None,
            verdict_rule: None,
            end: Cow::Borrowed(CUT_OFF),
            timings: Timings::default(),
            began: Some(Instant::now()),
        }
    }

    /// Stops the clock; called where the flow is recorded.
    pub fn stop(&mut self) {
        self.timings.total_us = self.began.map_or(0, |began| micros(began.elapsed()));
    }
}

/// A method's name for a record. The usual ones need no memory.
#[must_use]
pub fn method(name: &str) -> Cow<'static, str> {
    const USUAL: [&str; 8] = ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT"];
    match USUAL.into_iter().find(|usual| *usual == name) {
        Some(usual) => Cow::Borrowed(usual),
        None => Cow::Owned(name.to_owned()),
    }
}

/// In one allocation: most are longer than what a String begins with.
fn authority_text(authority: &Authority) -> String {
    let mut text = String::with_capacity(32);
    authority.spell(|part| text.push_str(part));
    text
}

/// Text for a line of a log or terminal: a URL may hold control characters beyond ASCII.
#[must_use]
pub fn printable(text: String) -> String {
    if text.contains(char::is_control) { text.replace(char::is_control, "\u{fffd}") } else { text }
}

/// One line of the access log.
impl fmt::Display for Flow {
    fn fmt(&self, line: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.started_ms / 1000;
        write!(line, "{seconds}.{:03} {} {}", self.started_ms % 1000, self.front, self.client)?;
        write!(line, " {}", self.method.as_deref().unwrap_or("-"))?;
        match (&self.url, &self.authority, self.original_destination) {
            (Some(url), ..) => write!(line, " {url}")?,
            (None, Some(authority), _) => write!(line, " {authority}")?,
            (None, None, Some(address)) => write!(line, " {address}")?,
            (None, None, None) => write!(line, " -")?,
        }
        match self.upstream {
            Some(address) => write!(line, " via {address}")?,
            None => write!(line, " via -")?,
        }
        let protocol = match self.protocol {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
            Protocol::Tls => "tls",
            Protocol::Socks5 => "socks5",
            Protocol::Dns => "dns",
            Protocol::Opaque => "opaque",
        };
        match self.status {
            Some(status) => write!(line, " {protocol} {status}")?,
            None => write!(line, " {protocol} -")?,
        }
        write!(line, " sent={} received={}", self.sent, self.received)?;
        write!(line, " {:.1}ms", self.timings.total_us as f64 / 1000.0)?;
        if let Some(cache) = self.cache {
            write!(line, " cache={}", cache.as_str())?;
        }
        if let (Some(backend), Some(member)) = (&self.backend, &self.member) {
            write!(line, " backend={backend} member={member} tries={}", self.tries)?;
        }
        if self.intercepted {
            write!(line, " intercepted")?;
        }
        if let Some(user) = &self.user {
            write!(line, " user={user}")?;
        }
        if let Some(rule) = &self.rule {
            write!(line, " rule={rule}")?;
        }
        if let Some(verdict) = &self.verdict {
            write!(line, " verdict=\"{verdict}\"")?;
        }
        write!(line, " {}", self.end)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What a flow says of its end until it has one: it was dropped on its way.
const CUT_OFF: &str = "cut off: weir stopped or failed";

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Whole microseconds of a duration; saturating.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
