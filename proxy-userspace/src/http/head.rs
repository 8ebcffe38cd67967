//! The heads of requests and responses, parsed.

use super::headers::Headers;

/// A request's head.
#[derive(Debug, Clone)]
pub struct RequestHead {
    pub version: Version,
    pub headers: Headers,
    pub(super) method: (usize, usize),
    pub(super) target: (usize, usize),
}

impl RequestHead {
    /// A head without fields.
    #[must_use]
    pub fn new(version: Version, method: &str, target: &str) -> Self {
        let bytes = [method, target].concat().into_bytes();
        let (middle, end) = (method.len(), bytes.len());
        Self { version, headers: Headers::over(bytes), method: (0, middle), target: (middle, end) }
    }

    /// The method, in its own case (RFC 9110 §9.1: methods are case-sensitive).
    #[must_use]
    pub fn method(&self) -> &str {
        self.text(self.method)
    }

    /// The request target as it was sent.
    #[must_use]
    pub fn target(&self) -> &str {
        self.text(self.target)
    }

    fn text(&self, (start, end): (usize, usize)) -> &str {
        // The parser took both from a `str` of the same bytes.
        std::str::from_utf8(&self.headers.bytes()[start..end]).unwrap_or_default()
    }
}

/// A response's head.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    pub version: Version,
    pub status: u16,
    pub headers: Headers,
    pub(super) reason: (usize, usize),
}

impl ResponseHead {
    /// A head without fields.
    #[must_use]
    pub fn new(version: Version, status: u16, reason: &str) -> Self {
        Self { version, status, headers: Headers::over(reason.into()), reason: (0, reason.len()) }
    }

    /// RFC 9110 §15.3.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The reason phrase, which may be empty.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        &self.headers.bytes()[self.reason.0..self.reason.1]
    }
}

/// In which version a message arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http10,
    Http11,
    Http2,
}
