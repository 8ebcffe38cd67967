//! A URL as patterns compare it.

use std::fmt::Write as _;

use crate::authority::{Authority, Host, Scheme, Shown};
use crate::http::path;

/// In lower case, without a default port, with its path as [`path::comparable`] makes it.
#[derive(Debug)]
pub(in crate::policy) struct Url {
    text: String,
    /// Where the name stands.
    name: (usize, usize),
}

impl Url {
    /// Of a request for `path` there.
    pub(in crate::policy) fn new(scheme: Scheme, host: Option<&Host>, port: Option<u16>, path: &str) -> Self {
        let mut text = String::with_capacity(path.len() + 64);
        // Writing to a String does not fail.
        let _ = write!(text, "{scheme}://");
        let begin = text.len();
        let mut end = begin;
        if let Some(host) = host {
            let host = match host {
                Host::Name(name) => Host::Name(name.strip_suffix('.').unwrap_or(name).into()),
                Host::Address(address) => Host::Address(address.to_canonical()),
            };
            let _ = write!(text, "{host}");
            end = text.len();
            text.truncate(begin);
            let authority = Authority { host, port: port.unwrap_or(scheme.default_port()) };
            let _ = write!(text, "{}", Shown(&authority, scheme));
        }
        let compared = path::comparable(path);
        if !compared.starts_with('/') {
            text.push('/');
        }
        text.push_str(&compared);
        text.make_ascii_lowercase();
        Self { text, name: (begin, end) }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The name, and each name above it.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> + '_ {
        self.parts_of_name().map(|begin| &self.text.as_bytes()[begin..self.name.1])
    }

    /// Where the name begins, and each part of it behind a dot.
    pub(super) fn parts_of_name(&self) -> impl Iterator<Item = usize> + '_ {
        let (begin, end) = self.name;
        let dots = self.text[begin..end].match_indices('.').map(move |(at, _)| begin + at + 1);
        std::iter::once(begin).chain(dots)
    }
}
