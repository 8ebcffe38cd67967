//! `security.filtering`: lists of names and URLs, and what they come to for a request or a connection.
//!
//! What is listed is told by name: how many lists there are, and how long they are, makes no difference to a look-up.
//! Regular expressions, and what depends on the page that asks, is left out (see [`crate::config::filter_line`]).

mod load;
mod names;
mod patterns;
mod table;
mod url;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

pub use load::ListError;
pub(super) use patterns::Patterns;
pub(super) use url::Url;

use super::{By, Refusal, Subject};
use crate::authority::Host;
use crate::config::{self, ListMode};
use names::Names;

/// Where an entry stands.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::policy) struct Place {
    /// Of [`Filtering::sources`].
    source: u16,
    /// From 1; 0 where the source has none.
    line: u32,
}

/// The lists.
#[derive(Debug, Default)]
pub struct Filtering {
    mode: ListMode,
    unnamed: bool,
    blocked: List,
    allowed: List,
    sources: Vec<Arc<str>>,
    /// The files, and when each was changed last.
    files: Vec<(PathBuf, Option<SystemTime>)>,
    /// Lines of files that say something which weir does not obey.
    left_out: usize,
}

/// Names and patterns.
#[derive(Debug, Default)]
struct List {
    names: Names,
    urls: Patterns,
}

/// An entry that was found.
struct Found {
    important: bool,
    /// As a list would have it, and where it stands.
    shown: String,
}

impl Filtering {
    /// Reads the lists that the configuration names.
    ///
    /// # Errors
    /// [`ListError`]: a file that can't be read, or more than fits.
    pub fn load(config: &config::Filtering) -> Result<Self, ListError> {
        load::load(config)
    }

    /// Whether nothing is refused by it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.mode == ListMode::Blocklist && self.blocked.len() == 0 && self.unnamed
    }

    /// Entries in force: blocked, allowed; and lines of files that were left out.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.blocked.len(), self.allowed.len(), self.left_out)
    }

    /// Whether a file has changed since it was read.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.files.iter().any(|(path, changed)| load::last_change(path) != *changed)
    }

    /// Whether the lists decide on names, so that who captured traffic calls itself so has to be checked.
    #[must_use]
    pub fn is_allowlist(&self) -> bool {
        self.mode == ListMode::Allowlist
    }

    /// What the lists say.
    ///
    /// # Errors
    /// The refusal.
    pub fn check(&self, subject: &Subject<'_>) -> Result<(), Refusal> {
        if self.is_idle() {
            return Ok(());
        }
        let url = match subject.url {
            Some((scheme, path)) if !(self.blocked.urls.is_empty() && self.allowed.urls.is_empty()) => {
                Some(Url::new(scheme, subject.host, subject.port, path))
            }
            _ => None,
        };
        let wanted = Wanted { subject, url: url.as_ref() };
        match self.mode {
            ListMode::Blocklist => self.check_blocked(&wanted),
            ListMode::Allowlist => self.check_allowed(&wanted),
        }
    }

    fn check_blocked(&self, wanted: &Wanted<'_>) -> Result<(), Refusal> {
        if wanted.is_unnamed() && !self.unnamed {
            return Err(self.refuse_unnamed(wanted));
        }
        let Some(blocked) = self.blocked.find(wanted, &self.sources) else { return Ok(()) };
        match self.allowed.find(wanted, &self.sources) {
            Some(allowed) if allowed.important || !blocked.important => Ok(()),
            _ => Err(refuse(wanted, blocked)),
        }
    }

    fn check_allowed(&self, wanted: &Wanted<'_>) -> Result<(), Refusal> {
        if self.allowed.find(wanted, &self.sources).is_none() {
            if wanted.is_unnamed() {
                return if self.unnamed { Ok(()) } else { Err(self.refuse_unnamed(wanted)) };
            }
            let reason = format!("{} is not on the list of what is allowed", wanted.subject.place());
            let rule = "security.filtering.mode: allowlist";
            return Err(Refusal::new(403, By::Filtering, rule, reason));
        }
        match self.blocked.find(wanted, &self.sources) {
            Some(blocked) => Err(refuse(wanted, blocked)),
            None => Ok(()),
        }
    }

    fn refuse_unnamed(&self, wanted: &Wanted<'_>) -> Refusal {
        let place = wanted.subject.place();
        let reason = format!("the connection to {place} tells no name, so no list can judge it");
        Refusal::new(403, By::Filtering, "security.filtering.unnamed", reason)
    }
}

fn refuse(wanted: &Wanted<'_>, blocked: Found) -> Refusal {
    Refusal::new(403, By::Filtering, blocked.shown, format!("{} is blocked", wanted.subject.place()))
}

/// What is looked for.
struct Wanted<'a> {
    subject: &'a Subject<'a>,
    url: Option<&'a Url>,
}

impl Wanted<'_> {
    fn is_unnamed(&self) -> bool {
        !matches!(self.subject.host, Some(Host::Name(_))) && self.subject.original.is_some()
    }
}

impl List {
    fn len(&self) -> usize {
        self.names.len() + self.urls.len()
    }

    fn find(&self, wanted: &Wanted<'_>, sources: &[Arc<str>]) -> Option<Found> {
        let by_name = match wanted.subject.host {
            Some(Host::Name(name)) => self.names.find(name.strip_suffix('.').unwrap_or(name)),
            Some(Host::Address(address)) => self.names.find(&address.to_canonical().to_string()),
            None => None,
        };
        // Whatever the client calls it: this is where the connection goes.
        let by_address = || {
            let original = wanted.subject.original?;
            self.names.find(&original.to_canonical().to_string())
        };
        let found = by_name.or_else(by_address).map(|(entry, name)| Found {
            important: entry.important,
            shown: at(&shown(name, entry.itself, entry.below), entry.place, sources),
        });
        if found.as_ref().is_some_and(|found| found.important) {
            return found;
        }
        let pattern = wanted.url.and_then(|url| self.urls.find(url));
        match (found, pattern) {
            (found @ Some(_), Some(pattern)) if !pattern.important => found,
            (_, Some(pattern)) => Some(Found {
                important: pattern.important,
                shown: at(&pattern.shown(), pattern.place, sources),
            }),
            (found, None) => found,
        }
    }
}

fn shown(name: &str, itself: bool, below: bool) -> String {
    match (itself, below) {
        (true, true) => format!("||{name}^"),
        (false, true) => format!("*.{name}"),
        _ => name.to_owned(),
    }
}

fn at(shown: &str, place: Place, sources: &[Arc<str>]) -> String {
    let source = sources.get(usize::from(place.source)).map_or("", |source| source);
    match place.line {
        0 => format!("`{shown}` of {source}"),
        line => format!("`{shown}` of {source}:{line}"),
    }
}

#[cfg(test)]
mod tests;
