//! What requests other than GET do to stored responses (RFC 9111 §4.3.5, §4.4).

use std::sync::Arc;

use super::fetch::Fetch;
use crate::cache::conditional::Validators;
use crate::cache::entry::{Entry, Updated};
use crate::cache::freshness::Exchanged;
use crate::cache::{self, headers};
use crate::http::head::ResponseHead;
use crate::http::headers::Name;

impl Fetch<'_> {
    /// What the answer to a request means for what is stored.
    pub(super) fn effects(&self, head: &ResponseHead) {
        match self.asked().method() {
            "GET" | "HEAD" if head.status == 304 => self.freshen(head),
            "GET" | "OPTIONS" | "TRACE" => {}
            "HEAD" if head.status == 200 => self.update(head),
            "HEAD" => {}
            // RFC 9111 §4.4: a method that is not known may be unsafe; an error has changed nothing.
            _ if (200..400).contains(&head.status) => self.invalidate(head),
            _ => {}
        }
    }

    /// RFC 9111 §4.4, and for the URIs that the response names, as far as they are of the same origin: nobody else's
    /// entries are a server's to remove.
    fn invalidate(&self, head: &ResponseHead) {
        self.cache().invalidate(self.key());
        let named =
            ["location", "content-location"].iter().flat_map(|name| headers::values(&head.headers, name));
        for reference in named.filter_map(|value| std::str::from_utf8(value).ok()) {
            if let Some(key) = self.key().of_reference(reference) {
                self.cache().invalidate(&key);
            }
        }
    }

    /// RFC 9111 §4.3.4: a 304 to a condition of the client's own speaks of what is stored, too, if it has its validator.
    fn freshen(&self, head: &ResponseHead) {
        let confirmed = Validators::of(&head.headers);
        let Some(variants) = self.cache().find(self.key()) else { return };
        let Some(stored) = variants.select(&self.asked().headers) else { return };
        if confirmed.are_there() && stored.stored.validators.are_confirmed_by(&confirmed) {
            self.merge(stored, head);
        }
    }

    /// RFC 9111 §4.3.5: a response to HEAD speaks of what a GET would have got. It renews what is stored, or shows it
    /// to be out of date.
    fn update(&self, head: &ResponseHead) {
        let request = self.asked();
        let Some(variants) = self.cache().find(self.key()) else { return };
        let length =
            head.headers.first(Name::ContentLength).and_then(|length| std::str::from_utf8(length).ok());
        let confirmed = Validators::of(&head.headers);
        for stored in variants.selected(&request.headers) {
            let has = stored.part.map_or(stored.body.len(), |(_, length)| length);
            let same = length.is_none_or(|length| length.parse() == Ok(has))
                && stored.stored.head.status() == 200
                && stored.stored.validators.are_confirmed_by(&confirmed);
            match same {
                true => self.merge(stored, head),
                false => self.cache().replace(self.key(), stored, None),
            }
        }
    }

    /// Puts what is stored and a later word on it together; if that may not be stored, nothing is any longer.
    fn merge(&self, stored: &Arc<Entry>, head: &ResponseHead) {
        let exchanged = Exchanged { sent: self.sent(), received: cache::now() };
        let updated = stored.stored.updated(self.asked(), head, exchanged, &self.rules());
        let entry = updated.and_then(Updated::kept);
        let entry = entry.map(|updated| Arc::new(Entry { stored: updated, ..Entry::clone(stored) }));
        self.cache().replace(self.key(), stored, entry.as_ref());
    }
}
