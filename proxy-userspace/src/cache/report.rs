//! Cache-Status (RFC 9211): what the cache did with a request, told to whoever gets the response.

use std::io::Write;

use super::not_stored::NotStored;

/// Our name in Cache-Status.
const NAME: &str = "weir";

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered from store. `ttl` is what is left of its freshness, in milliseconds; negative if it is stale.
    Hit { ttl: i64 },
    /// Sent on.
    Forward(Forward),
}

/// A request that was sent on (RFC 9211 §2.2 to §2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    pub why: Why,
    /// The status that the origin answered with, where it is not the one that is passed on.
    pub status: Option<u16>,
    pub stored: bool,
    /// It was answered with the response to another request that was under way.
    pub collapsed: bool,
    /// Why it is not stored.
    pub detail: Option<NotStored>,
}

/// Why a request was sent on (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Bypass,
    Method,
    UriMiss,
    VaryMiss,
    Request,
    Stale,
    Partial,
}

impl Why {
    /// The token.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

impl Outcome {
    /// The value of the field.
    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(64);
        // Writing to a Vec does not fail.
        let _ = match self {
            Self::Hit { ttl } => write!(value, "{NAME}; hit; ttl={}", ttl.div_euclid(1000)),
            Self::Forward(forward) => forward.write(&mut value),
        };
        value
    }
}

impl Forward {
    /// Sent on for this reason, and nothing else is known yet.
    #[must_use]
    pub fn because(why: Why) -> Self {
        Self { why, status: None, stored: false, collapsed: false, detail: None }
    }

    fn write(&self, value: &mut Vec<u8>) -> std::io::Result<()> {
        write!(value, "{NAME}; fwd={}", self.why.as_str())?;
        if let Some(status) = self.status {
            write!(value, "; fwd-status={status}")?;
        }
        if self.stored {
            write!(value, "; stored")?;
        }
        if self.collapsed {
            write!(value, "; collapsed")?;
        }
        match self.detail {
            Some(detail) => write!(value, "; detail=\"{detail}\""),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let check = |outcome: Outcome, expected: &str| {
            assert_eq!(String::from_utf8_lossy(&outcome.value()), expected);
        };
        check(Outcome::Hit { ttl: 59_999 }, "weir; hit; ttl=59");
        check(Outcome::Hit { ttl: -1 }, "weir; hit; ttl=-1");
        let forward = Forward::because(Why::UriMiss);
        check(Outcome::Forward(forward), "weir; fwd=uri-miss");
        check(Outcome::Forward(Forward { stored: true, ..forward }), "weir; fwd=uri-miss; stored");
        check(
            Outcome::Forward(Forward { why: Why::Stale, status: Some(304), collapsed: true, ..forward }),
            "weir; fwd=stale; fwd-status=304; collapsed",
        );
        check(
            Outcome::Forward(Forward { detail: Some(NotStored::NoStore), ..forward }),
            "weir; fwd=uri-miss; detail=\"no-store\"",
        );
    }
}
