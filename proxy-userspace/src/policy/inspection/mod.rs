//! `security.inspection`: bodies are judged by what is in them, before whoever they are for has seen them.
//!
//! Whoever moves a body gives its beginning here as [`Held`], and asks for the [`Verdict`] on it. It is decoded
//! ([`decode`]) and looked at by every [`Scanner`] on threads of their own (`threads`): judging takes long, and workers
//! have other connections. What is done about a verdict is decided here too ([`Inspection::act`]); that a body is held
//! back, and answered for, is the pipeline's affair.

mod clamd;
mod decode;
mod threads;
mod yara;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use self::threads::{Job, Threads};
pub use super::verdict::Verdict;
use super::{By, Refusal};
use crate::authority::Host;
use crate::config::{self, Access, Direction};
use crate::http::headers::Headers;
use decode::Coding;
pub use yara::RulesError;

/// What looks at content. A scanner is one file here and one line in [`Inspection::load`].
trait Scanner: Send + Sync + std::fmt::Debug {
    /// Looks at `content`, until that time at most. `form` says what it is of the body.
    fn scan(&self, content: &[u8], form: Form, until: Instant) -> Finding;
}

/// In which form content is shown to scanners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As it came, and it is in no coding.
    Plain,
    /// As it came, in a coding: it will be shown decoded too.
    Coded,
    Decoded,
}

/// What a scanner says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    Nothing,
    /// What was found, by the name that its rule gives it.
    Match(String),
    /// It has no verdict, and why.
    Undecided(Cow<'static, str>),
    /// The same, and its own setting says what then.
    Failed(Cow<'static, str>),
}

/// What bodies are judged by, and how.
#[derive(Debug)]
pub struct Inspection {
    settings: config::Inspection,
    scanners: Arc<[Box<dyn Scanner>]>,
    rules: usize,
    /// Other settings, or other rules, have another.
    fingerprint: u64,
    /// With the time of their last change when they were read.
    files: Vec<(PathBuf, Option<SystemTime>)>,
    threads: Threads,
    /// Bytes that are held.
    held: Arc<AtomicU64>,
}

/// The beginning of a body, held back. It counts until it is dropped.
#[derive(Debug)]
pub struct Held {
    content: Vec<u8>,
    counted: u64,
    held: Arc<AtomicU64>,
}

impl Held {
    /// What there is of it.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.held.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

impl Inspection {
    /// What the configuration says, rules compiled. None: nothing is looked at.
    ///
    /// # Errors
    /// [`RulesError`]: a file can't be used.
    pub fn load(settings: &config::Inspection) -> Result<Option<Arc<Self>>, RulesError> {
        if !settings.enabled {
            return Ok(None);
        }
        let rules = yara::Rules::compile(settings)?;
        let fingerprint = rules.fingerprint ^ xxhash_rust::xxh3::xxh3_64(format!("{settings:?}").as_bytes());
        let mut scanners: Vec<Box<dyn Scanner>> = Vec::new();
        let (count, files) = (rules.count, rules.files);
        if count > 0 {
            scanners.push(Box::new(rules.scanner));
        }
        if let Some(address) = &settings.clamd.address {
            scanners.push(Box::new(clamd::Clamd::new(address.clone(), settings.clamd.timeout)));
        }
        Ok(Some(Arc::new(Self {
            scanners: scanners.into(),
            rules: count,
            fingerprint,
            files,
            threads: Threads::new(settings.threads),
            held: Arc::default(),
            settings: settings.clone(),
        })))
    }

    /// Whether bodies in this direction, to or from this server, are looked at.
    #[must_use]
    pub fn wants(&self, direction: Direction, host: Option<&Host>) -> bool {
        let by_direction = match direction {
            Direction::Request => self.settings.requests,
            Direction::Response => self.settings.responses,
        };
        by_direction
            && !host.is_some_and(|host| self.settings.except.iter().any(|pattern| pattern.matches(host)))
    }

    /// What it is known by: what other rules, or the same ones with other settings, have judged is not judged by these.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Rules that are in force.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.rules
    }

    /// Whether a clamd is asked.
    #[must_use]
    pub fn asks_clamd(&self) -> bool {
        self.settings.clamd.address.is_some()
    }

    /// Whether a file has changed since it was read.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        let changed = |path: &PathBuf| std::fs::metadata(path).and_then(|file| file.modified()).ok();
        self.files.iter().any(|(path, when)| changed(path) != *when)
    }

    /// How long a body may take to arrive.
    #[must_use]
    pub fn max_wait(&self) -> Duration {
        self.settings.max_wait
    }

    /// A body's beginning, of which there is nothing yet. `length` is what was said of it.
    #[must_use]
    pub fn hold(&self, length: Option<u64>) -> Held {
        let room = length.unwrap_or(0).min(self.settings.max_size);
        let room = usize::try_from(room).unwrap_or(0).min(FIRST_ROOM);
        Held { content: Vec::with_capacity(room), counted: 0, held: Arc::clone(&self.held) }
    }

    /// Adds to it. False: no more is to be held of this body.
    pub fn take(&self, held: &mut Held, content: &[u8]) -> bool {
        let all = self.held.fetch_add(content.len() as u64, Ordering::Relaxed) + content.len() as u64;
        held.counted += content.len() as u64;
        held.content.extend_from_slice(content);
        held.counted < self.settings.max_size && all < self.settings.memory
    }

    /// Judges what is held of a body, which is all of it if it is `whole`; `headers` say how it is coded.
    pub async fn judge(&self, held: Held, whole: bool, headers: &Headers) -> (Verdict, Arc<Held>) {
        let held = Arc::new(held);
        if self.scanners.is_empty() || held.content.is_empty() {
            return (Verdict::Clean, held);
        }
        let codings = Coding::of(headers);
        let until = Instant::now() + self.settings.timeout;
        let job = Job {
            content: Arc::clone(&held),
            codings: codings.as_ref().cloned().unwrap_or_default(),
            whole,
            until,
            bounds: decode::Bounds { decoded: self.settings.max_decoded, ratio: self.settings.max_ratio },
            scanners: Arc::clone(&self.scanners),
        };
        let judged = match self.threads.run(job) {
            None => Verdict::Undecided("too many bodies wait to be judged".into()),
            // What takes no heed of its time is not waited for.
            Some(verdict) => match tokio::time::timeout(self.settings.timeout + GRACE, verdict).await {
                Ok(Ok(verdict)) => verdict,
                Ok(Err(_)) => Verdict::Undecided("judging it has failed".into()),
                Err(_) => Verdict::Undecided(TOO_LONG.into()),
            },
        };
        match (judged, codings) {
            (Verdict::Clean, Err(unknown)) => (Verdict::Undecided(unknown.into()), held),
            (verdict, _) => (verdict, held),
        }
    }

    /// What is done about a verdict on a body of which `whole` was judged.
    ///
    /// # Errors
    /// The refusal.
    pub fn act(&self, verdict: Verdict, whole: bool, direction: Direction) -> Result<(), Refusal> {
        let body = match direction {
            Direction::Request => "the request's body",
            Direction::Response => "the response's body",
        };
        let refused = |rule: String, reason: String| Err(Refusal::new(403, By::Inspection, rule, reason));
        let of = |key: &str| format!("security.inspection.{key}");
        match verdict {
            Verdict::Match(rule) => refused(rule.clone(), format!("{body} matches {rule}")),
            Verdict::Undecided(why) if self.settings.undecided == Access::Deny => {
                refused(of("undecided"), format!("{body} can't be judged: {why}"))
            }
            Verdict::ClamdFailed(why) if self.settings.clamd.on_failure == Access::Deny => {
                refused(of("clamd.on_failure"), format!("{body} can't be judged: {why}"))
            }
            _ if !whole && self.settings.partial == Access::Deny => refused(
                of("partial"),
                format!("{body} is larger, or takes longer, than can be held back to be judged"),
            ),
            Verdict::Clean | Verdict::Undecided(_) | Verdict::ClamdFailed(_) => Ok(()),
        }
    }
}

/// Whatever length is announced, no more than this is set aside before it arrives.
const FIRST_ROOM: usize = 1 << 20;

/// What a thread may take beyond the time that it has, before nobody waits for it any more.
const GRACE: Duration = Duration::from_millis(500);

const TOO_LONG: &str = "that takes longer than security.inspection.timeout";

#[cfg(test)]
mod tests;
