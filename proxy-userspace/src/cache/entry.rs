//! A stored response, whole and immutable: what is changed by a validation is a new entry with the same body.

use std::net::IpAddr;
use std::sync::Arc;

use super::body::Body;
use super::conditional::Validators;
use super::freshness::{self, Exchanged, Freshness};
use super::headers::single;
use super::range::Span;
use super::storable::Storable;
use super::stored_head::StoredHead;
use super::vary::Selection;
use super::{Rules, date, storable};
use crate::http::head::{RequestHead, ResponseHead};

/// A stored response without its body.
#[derive(Debug, Clone)]
pub struct Stored {
    pub head: StoredHead,
    pub freshness: Freshness,
    pub selection: Selection,
    pub validators: Validators,
    /// What followed the body, as [`crate::http::trailers::section`] has it: kept apart from the head (RFC 9111 §3.1).
    pub trailers: Option<Arc<[u8]>>,
    /// When it was made, in seconds since 1970-01-01 UTC.
    pub date: u64,
    /// The address that it came from, if clients had a say in that: it is given out only while that may be connected to.
    pub from: Option<IpAddr>,
}

impl Stored {
    /// What is kept of a response that may be stored.
    #[must_use]
    pub fn of(response: &ResponseHead, storable: Storable) -> Self {
        let received = storable.freshness.received / 1000;
        Self {
            head: StoredHead::of(response, &storable.directives, received),
            freshness: storable.freshness,
            selection: storable.selection,
            validators: Validators::of(&response.headers),
            trailers: None,
            date: date_of(response, received),
            from: None,
        }
    }

    /// It, from this address.
    #[must_use]
    pub fn from(self, from: Option<IpAddr>) -> Self {
        Self { from, ..self }
    }

    /// It after a 304, or after a response to HEAD that speaks of the same representation (RFC 9111 §4.3.4, §4.3.5).
    /// None where the two can't be put together.
    #[must_use]
    pub fn updated(
        &self,
        request: &RequestHead,
        by: &ResponseHead,
        exchanged: Exchanged,
        rules: &Rules,
    ) -> Option<Updated> {
        let (directives, _) = freshness::directives(by, rules);
        let head = self.head.updated(by, &directives, exchanged.received / 1000)?;
        // The merged head is judged as if it had just been received: its limits hold from now on. An Age of the 304
        // counts, one of the stored response does not.
        let mut age = Vec::new();
        if let Some(value) = single(&by.headers, "age") {
            age.extend_from_slice(b"Age: ");
            age.extend_from_slice(value);
            age.extend_from_slice(b"\r\n");
        }
        let merged = head.with(&age)?;
        let storable = storable::check_merged(request, &merged, exchanged, rules).ok();
        let is_kept = storable.is_some();
        let (freshness, selection) = match storable {
            Some(storable) => (storable.freshness, storable.selection),
            None => {
                let (directives, _) = freshness::directives(&merged, rules);
                let freshness = Freshness::of(&merged, &directives, false, exchanged, rules);
                (freshness, self.selection.clone())
            }
        };
        let validators = Validators::of(&merged.headers);
        let date = date_of(&merged, exchanged.received / 1000);
        let trailers = self.trailers.clone();
        let stored = Self { head, freshness, selection, validators, trailers, date, from: self.from };
        Some(if is_kept { Updated::Keep(stored) } else { Updated::Once(stored) })
    }

    /// Bytes of memory, roughly.
    #[must_use]
    pub fn weight(&self) -> usize {
        let tag = |value: &Option<Box<[u8]>>| value.as_ref().map_or(0, |value| value.len() + ALLOCATION);
        self.head.lines().len()
            + ALLOCATION
            + self.selection.weight()
            + tag(&self.validators.etag)
            + tag(&self.validators.last_modified)
            + self.trailers.as_ref().map_or(0, |trailers| trailers.len() + ALLOCATION)
    }
}

/// A stored response and what was said of it since, put together.
#[derive(Debug)]
pub enum Updated {
    Keep(Stored),
    /// It answers the request that it was made for, and may not be stored any longer.
    Once(Stored),
}

impl Updated {
    /// What is to be stored of it.
    #[must_use]
    pub fn kept(self) -> Option<Stored> {
        match self {
            Self::Keep(stored) => Some(stored),
            Self::Once(_) => None,
        }
    }
}

/// What an allocation costs beside its content.
pub(super) const ALLOCATION: usize = 16;

fn date_of(response: &ResponseHead, received: u64) -> u64 {
    single(&response.headers, "date").and_then(|date| date::parse(date, received)).unwrap_or(received)
}

/// A stored response with its body.
#[derive(Debug, Clone)]
pub struct Entry {
    pub stored: Stored,
    pub body: Body,
    /// Which part of a representation the body is, and how long that is; None for all of it.
    pub part: Option<(Span, u64)>,
}

impl Entry {
    /// Bytes of memory, roughly.
    #[must_use]
    pub fn weight(&self) -> u64 {
        (size_of::<Self>() + 2 * ALLOCATION + self.stored.weight()) as u64 + self.body.weight()
    }
}
