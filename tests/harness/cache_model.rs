//! What RFC 9111 allows a shared cache to answer, said as plainly as possible and without a cache: every
//! representation that the origin made is remembered, and an answer is judged by what was made until then.
//!
//! Lifetimes and ages are far apart (0, 100 and 1000 seconds against 0, 50 and 500), so that what passes while a
//! history runs decides nothing.

use std::time::{Duration, SystemTime};

use crate::http::Answer;

/// The longest lifetime that weir guesses by default (`cache.default_ttl`).
const LONGEST_GUESS: u64 = 300;

/// What a request asked for.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    pub id: usize,
    pub method: &'static str,
    pub path: String,
    pub accept: &'static str,
    pub language: &'static str,
    pub authorized: bool,
    pub cache_control: &'static str,
    pub range: Option<&'static str>,
    pub if_none_match: Option<String>,
}

/// How the origin answers.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub status: u16,
    pub cache_control: &'static str,
    /// In the field Age. Above 0 only.
    pub age: u64,
    /// How long ago Date is.
    pub made: u64,
    /// Expires, after Date.
    pub expires: Option<u64>,
    /// Last-Modified is a hundred days before Date: a tenth of that is more than the longest guess.
    pub last_modified: bool,
    pub vary: &'static str,
    pub etag: Option<&'static str>,
    /// It takes ranges and answers 304 to a condition that holds.
    pub honours: bool,
    /// The connection ends without an answer.
    pub breaks: bool,
    /// Made for, or last confirmed to, somebody with credentials.
    pub authorized: bool,
}

/// One representation that the origin made.
#[derive(Debug, Clone)]
pub struct Made {
    pub number: usize,
    pub wish: Wish,
    /// As said last, which may have been in a 304.
    pub plan: Plan,
    /// What was said before, if a 304 may have come in the background: nobody knows then which of them came in last.
    pub before: Vec<Plan>,
    /// An unsafe method succeeded since.
    pub removed: bool,
}

/// What the origin said to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Made(usize),
    Renewed(usize),
    /// The rest of it, to whoever has the beginning (If-Range).
    Continued(usize),
    Nothing,
}

/// On what a request, as the origin gets it, makes its answer depend.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    pub if_none_match: Option<&'a str>,
    pub if_range: Option<&'a str>,
}

/// All of one history.
#[derive(Debug, Default)]
pub struct History {
    pub made: Vec<Made>,
    /// By the request's id.
    pub said: Vec<(usize, Said)>,
}

impl Made {
    /// Whether a condition with its entity-tag may hold for this request.
    fn is_current_for(&self, wish: &Wish) -> bool {
        let plan = &self.plan;
        let is_it = self.wish.path == wish.path && self.differs(wish, plan).is_none();
        self.wish.method == "GET" && plan.status == 200 && plan.etag.is_some() && is_it
    }

    /// The field of Vary in which a request is another one than that which this was made for.
    fn differs(&self, wish: &Wish, plan: &Plan) -> Option<&'static str> {
        let same = |name: &str| match name {
            "Accept" => self.wish.accept == wish.accept,
            "X-Language" => self.wish.language == wish.language,
            _ => false,
        };
        plan.vary.split(',').map(str::trim).find(|name| !name.is_empty() && !same(name))
    }

    /// Text in which every number and place is told apart.
    pub fn body(&self) -> String {
        if self.plan.status == 204 { String::new() } else { body(&self.wish.path, self.number) }
    }
}

pub fn body(path: &str, number: usize) -> String {
    format!("{path} {number} abcdefghijklmnopqrstuvwxyz {number}")
}

pub fn etag(kind: &str, number: usize) -> String {
    format!("{kind}\"{number}\"")
}

/// The number in the first entity-tag of a list.
pub fn number_of(tags: &str) -> Option<usize> {
    tags.split('"').nth(1)?.parse().ok()
}

impl History {
    /// The origin's part: what becomes of a request, by plan.
    pub fn answer(&mut self, wish: &Wish, conditions: Conditions<'_>, plan: Plan) -> Said {
        let is_safe = matches!(wish.method, "GET" | "HEAD" | "OPTIONS");
        let continues = conditions.if_none_match.is_none();
        let tag = conditions.if_none_match.or(conditions.if_range.filter(|tag| tag.starts_with('"')));
        let known = tag.and_then(number_of).filter(|_| plan.honours && matches!(wish.method, "GET" | "HEAD"));
        let current = known.and_then(|number| self.made.get_mut(number));
        let said = match current {
            _ if plan.breaks => Said::Nothing,
            // Without Range, or with one that it does not take, it has nothing to say of what was there.
            Some(made)
                if made.is_current_for(wish)
                    && (!continues || made.plan.honours && made.plan.etag == Some("")) =>
            {
                let kept = made.plan;
                let cache_control =
                    if plan.cache_control.is_empty() { kept.cache_control } else { plan.cache_control };
                made.before.push(kept);
                let in_background =
                    |plan: &Plan| seconds(plan.cache_control, "stale-while-revalidate").is_some();
                if !made.before.iter().any(in_background) {
                    made.before.clear();
                }
                // What is not said anew holds on; Expires, which is a moment, by another Date.
                let expires = kept.expires.map(|after| (after + plan.made).saturating_sub(kept.made));
                let expires = plan.expires.or(expires);
                let authorized = wish.authorized;
                made.plan =
                    Plan { cache_control, age: plan.age, made: plan.made, expires, authorized, ..kept };
                made.removed = false;
                if continues { Said::Continued(made.number) } else { Said::Renewed(made.number) }
            }
            _ => {
                let number = self.made.len();
                let plan = Plan { authorized: wish.authorized, ..plan };
                self.made.push(Made { number, wish: wish.clone(), plan, before: Vec::new(), removed: false });
                Said::Made(number)
            }
        };
        // RFC 9111 §4.4: what was there before a successful unsafe request is no longer.
        if !is_safe && said != Said::Nothing && plan.status < 400 {
            for made in self.made.iter_mut().filter(|made| made.wish.path == wish.path) {
                made.removed = true;
            }
        }
        self.said.push((wish.id, said));
        said
    }

    /// Judges what a client got. Whether it came from store, or why it must not have been given.
    pub fn judge(&self, wish: &Wish, answer: &Answer) -> Result<bool, String> {
        let said: Vec<Said> =
            self.said.iter().filter(|(id, _)| *id == wish.id).map(|(_, said)| *said).collect();
        let Some(number) = answer.field("x-number").map(str::parse::<usize>) else {
            return match answer.status {
                504 if wish.cache_control.contains("only-if-cached") => Ok(false),
                502 if said.contains(&Said::Nothing) => Ok(false),
                status => Err(format!("a {status} that the origin never made")),
            };
        };
        let made = number.ok().and_then(|number| self.made.get(number)).ok_or("an unknown number")?;
        self.content(wish, made, answer)?;
        let validated = [Said::Renewed(made.number), Said::Continued(made.number)]
            .iter()
            .any(|validation| said.contains(validation));
        // The origin's own words, on their way to whom they are for.
        if said.contains(&Said::Made(made.number)) || validated && answer.status == 304 {
            return Ok(false);
        }
        let failed = said.iter().any(|said| match said {
            Said::Nothing => true,
            Said::Made(number) => self.made[*number].plan.status >= 500,
            Said::Renewed(_) | Said::Continued(_) => false,
        });
        let reuse = |plan: &Plan| reusable(wish, made, plan).and_then(|()| timely(wish, plan, failed));
        let as_before = made.before.iter().any(|plan| reuse(plan).is_ok());
        let verdict = match validated {
            _ if as_before => Ok(()),
            true => merged(made, answer),
            false => reuse(&made.plan),
        };
        verdict.map(|()| true)
    }

    /// The right bytes, whatever the age.
    fn content(&self, wish: &Wish, made: &Made, answer: &Answer) -> Result<(), String> {
        let whole = made.body();
        let text = answer.text();
        let expected = match (wish.method, answer.status) {
            ("HEAD", _) | (_, 304) => "",
            (_, 206) => {
                let span = answer.field("content-range").ok_or("206 without Content-Range")?;
                let (first, last) = span
                    .strip_prefix("bytes ")
                    .and_then(|span| span.strip_suffix(&format!("/{}", whole.len())))
                    .and_then(|span| span.split_once('-'))
                    .ok_or_else(|| format!("Content-Range {span} of {} bytes", whole.len()))?;
                let ends: Option<(usize, usize)> = first.parse().ok().zip(last.parse().ok());
                let (first, last) = ends.ok_or("no numbers in Content-Range")?;
                whole.get(first..=last).ok_or("Content-Range beyond the end")?
            }
            _ => &whole,
        };
        if text != expected {
            return Err(format!("{text:?} in place of {expected:?}"));
        }
        if made.wish.path != wish.path {
            return Err(format!("what was made for {}", made.wish.path));
        }
        match answer.status {
            206 if wish.range.is_none() => Err("a part that nobody asked for".to_owned()),
            304 if wish.if_none_match.is_none() => Err("a 304 that nobody asked for".to_owned()),
            304 if wish.if_none_match.as_deref().and_then(number_of) != Some(made.number) => {
                Err("a 304 for what the client does not have".to_owned())
            }
            206 | 304 if made.plan.status == 200 => Ok(()),
            status if status == made.plan.status => Ok(()),
            status => Err(format!("{status} in place of {}", made.plan.status)),
        }
    }
}

fn says(cache_control: &str, directive: &str) -> bool {
    cache_control.split(',').any(|item| item.trim() == directive)
}

fn seconds(cache_control: &str, directive: &str) -> Option<u64> {
    cache_control
        .split(',')
        .find_map(|item| item.trim().strip_prefix(directive)?.strip_prefix('=')?.parse().ok())
}

/// RFC 9111 §4.3.4: who gets what was validated gets what the 304 said of it.
fn merged(made: &Made, answer: &Answer) -> Result<(), String> {
    let (said, told) = (made.plan.cache_control, answer.field("cache-control").unwrap_or_default());
    if said == told {
        Ok(())
    } else {
        Err(format!("Cache-Control is {told:?}, and the origin's last word was {said:?}"))
    }
}

/// Whether it may be stored for, and selected by, this request at all (RFC 9111 §3, §3.5, §4, §4.1, §4.4).
fn reusable(wish: &Wish, made: &Made, plan: &Plan) -> Result<(), String> {
    let (by, control) = (&made.wish, plan.cache_control);
    if by.method != "GET" || !matches!(wish.method, "GET" | "HEAD") {
        return Err(format!("{} answers {}", by.method, wish.method));
    }
    if made.removed {
        return Err("it was invalidated".to_owned());
    }
    if says(control, "no-store") && !says(control, "must-understand") || says(by.cache_control, "no-store") {
        return Err("no-store".to_owned());
    }
    if says(control, "private") {
        return Err("private".to_owned());
    }
    let for_all = ["public", "must-revalidate"].iter().any(|item| says(control, item));
    if plan.authorized && !for_all && seconds(control, "s-maxage").is_none() {
        return Err("made for somebody with credentials".to_owned());
    }
    if let Some(name) = made.differs(wish, plan) {
        return Err(format!("made for another {name}"));
    }
    Ok(())
}

/// Whether it may be used without asking (RFC 9111 §4.2, §5.2; RFC 5861).
fn timely(wish: &Wish, plan: &Plan, failed: bool) -> Result<(), String> {
    let control = plan.cache_control;
    if says(control, "no-cache") {
        return Err("no-cache, and nobody was asked".to_owned());
    }
    // RFC 5861 §4: what the request demands is no ground to withhold what an error would replace it with; weir
    // holds to the demand all the same, and so does this.
    if says(wish.cache_control, "no-cache") {
        return Err("the request said no-cache, and nobody was asked".to_owned());
    }
    let lifetime = lifetime(plan);
    let age = plan.age.max(plan.made);
    // RFC 8246 §2: asking would bring nothing new.
    let is_settled = says(control, "immutable") && lifetime > age;
    if seconds(wish.cache_control, "max-age").is_some_and(|limit| age > limit) && !failed && !is_settled {
        return Err("older than the request allows".to_owned());
    }
    let wanted = seconds(wish.cache_control, "min-fresh").unwrap_or(0);
    if lifetime > age && (lifetime - age >= wanted || failed) {
        return Ok(());
    }
    let strict = ["must-revalidate", "proxy-revalidate"].iter().any(|item| says(control, item))
        || seconds(control, "s-maxage").is_some();
    if strict {
        return Err(format!("stale ({age} s of {lifetime}), which it forbids"));
    }
    let past = age.saturating_sub(lifetime);
    let within = |directive| seconds(control, directive).is_some_and(|limit| past <= limit);
    let accepted = says(wish.cache_control, "max-stale")
        || seconds(wish.cache_control, "max-stale").is_some_and(|limit| past <= limit);
    // RFC 9111 §4.2.4: also where the origin can't be reached.
    if accepted || within("stale-while-revalidate") || failed {
        return Ok(());
    }
    Err(format!("stale: {age} s of {lifetime}"))
}

fn lifetime(plan: &Plan) -> u64 {
    let control = plan.cache_control;
    let explicit = seconds(control, "s-maxage").or_else(|| seconds(control, "max-age")).or(plan.expires);
    explicit.unwrap_or_else(|| {
        let guessable = matches!(plan.status, 200 | 204 | 301 | 404) || says(control, "public");
        if plan.last_modified && guessable { LONGEST_GUESS } else { 0 }
    })
}

/// The origin's words.
pub fn response(said: Said, history: &History, wish: &Wish, range: Option<&str>) -> Vec<u8> {
    let (number, status) = match said {
        Said::Nothing => return Vec::new(),
        Said::Renewed(number) => (number, 304),
        Said::Continued(number) => (number, 206),
        Said::Made(number) => (number, history.made[number].plan.status),
    };
    let made = &history.made[number];
    let plan = made.plan;
    let date = SystemTime::now() - Duration::from_secs(plan.made);
    let day = Duration::from_secs(86_400);
    let mut head = format!("X-Number: {number}\r\nDate: {}\r\n", httpdate::fmt_http_date(date));
    let mut add = |name: &str, value: &str| head.push_str(&format!("{name}: {value}\r\n"));
    if !plan.cache_control.is_empty() {
        add("Cache-Control", plan.cache_control);
    }
    if plan.age > 0 {
        add("Age", &plan.age.to_string());
    }
    if let Some(after) = plan.expires {
        add("Expires", &httpdate::fmt_http_date(date + Duration::from_secs(after)));
    }
    if plan.last_modified {
        add("Last-Modified", &httpdate::fmt_http_date(date - day * 100));
    }
    if !plan.vary.is_empty() {
        add("Vary", plan.vary);
    }
    if let Some(kind) = plan.etag {
        add("ETag", &etag(kind, number));
    }
    let whole = made.body();
    let takes_ranges = status == 206 || status == 200 && plan.honours && wish.method == "GET";
    let (status, content) = match range.filter(|_| takes_ranges).and_then(|range| span(range, whole.len())) {
        Some((first, last)) => {
            add("Content-Range", &format!("bytes {first}-{last}/{}", whole.len()));
            (206, &whole[first..=last])
        }
        None => (status, &whole[..]),
    };
    if !matches!(status, 204 | 304) {
        add("Content-Length", &content.len().to_string());
    }
    let content = if wish.method == "HEAD" || matches!(status, 204 | 304) { "" } else { content };
    format!("HTTP/1.1 {status} Said\r\n{head}\r\n{content}").into_bytes()
}

/// One range of bytes that is there.
fn span(range: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let span = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first, last.min(length - 1)),
        (Ok(first), Err(_)) => (first, length - 1),
        (Err(_), Ok(last)) => (length - last, length - 1),
        (Err(_), Err(_)) => return None,
    };
    (span.0 <= span.1).then_some(span)
}
