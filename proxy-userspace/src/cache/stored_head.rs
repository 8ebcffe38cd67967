//! The head of a stored response: as little memory as it takes, in the form in which it goes out again.

use std::io::Write;

use super::directives::ResponseDirectives;
use super::{date, storable};
use crate::config::Limits;
use crate::http::head::ResponseHead;
use crate::http::headers::{Headers, Name};
use crate::http::parse::{self, Parsed};
use crate::http::status;

/// Status line and fields of a response, without those that are made anew with every use: framing, Age, Connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredHead {
    status: u16,
    lines: Box<[u8]>,
}

impl StoredHead {
    /// What is kept of a response. `received` in seconds since 1970-01-01 UTC. A part is kept with the head that the
    /// whole would have had.
    #[must_use]
    pub fn of(response: &ResponseHead, directives: &ResponseDirectives, received: u64) -> Self {
        let is_part = response.status == 206;
        let mut lines = if is_part { b"HTTP/1.1 200 OK\r\n".to_vec() } else { status_line(response) };
        let keeps = |name: &[u8], known| {
            let of_part = is_part && name.eq_ignore_ascii_case(b"content-range");
            !of_part && storable::keeps(name, known, &response.headers, directives)
        };
        for field in response.headers.iter().filter(|field| keeps(field.name, field.known)) {
            push(field.name, field.value, &mut lines);
        }
        if !super::headers::has(&response.headers, "date") {
            // RFC 9110 §6.6.1: whoever stores a response without a date writes one.
            lines.extend_from_slice(b"Date: ");
            date::write(received, &mut lines);
            lines.extend_from_slice(b"\r\n");
        }
        Self { status: if is_part { 200 } else { response.status }, lines: lines.into() }
    }

    /// Rebuilds what [`StoredHead::lines`] gave.
    #[must_use]
    pub fn from_lines(status: u16, lines: &[u8]) -> Self {
        Self { status, lines: lines.into() }
    }

    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Each line with its end; without the empty line behind them.
    #[must_use]
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// The values of a field. `name` is in lower case.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.lines.split(|byte| *byte == b'\n').skip(1);
        lines.filter_map(move |line| {
            let (field, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            field.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
        })
    }

    /// It as a head, with `fields` added: lines with their ends. None only if it was damaged where it was kept.
    #[must_use]
    pub fn with(&self, fields: &[u8]) -> Option<ResponseHead> {
        let mut text = Vec::with_capacity(self.lines.len() + fields.len() + 2);
        text.extend_from_slice(&self.lines);
        text.extend_from_slice(fields);
        text.extend_from_slice(b"\r\n");
        parsed(&text)
    }

    /// The same with another status: of a part of it, or of the news that there is no such part.
    #[must_use]
    pub fn with_status(&self, status: u16, fields: &[u8]) -> Option<ResponseHead> {
        if status == self.status {
            return self.with(fields);
        }
        let first = self.lines.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut text = format!("HTTP/1.1 {status} {}\r\n", status::reason(status)).into_bytes();
        text.extend_from_slice(&self.lines[first..]);
        text.extend_from_slice(fields);
        text.extend_from_slice(b"\r\n");
        parsed(&text)
    }

    /// It with the fields of a 304, or of a response to HEAD (RFC 9111 §3.2): those that it brings replace the stored
    /// ones, except where they describe the content that is stored.
    #[must_use]
    pub fn updated(&self, by: &ResponseHead, directives: &ResponseDirectives, received: u64) -> Option<Self> {
        let stored = self.with(b"")?;
        let keeps = |name: &[u8], known| storable::keeps(name, known, &by.headers, directives);
        let brings = |name: &[u8], known: Name| !describes_content(name) && keeps(name, known);
        let is_replaced = |name: &[u8]| {
            let replaces = |field: &[u8]| field.eq_ignore_ascii_case(name);
            by.headers.iter().any(|field| replaces(field.name) && brings(field.name, field.known))
        };
        let mut lines = status_line(&stored);
        // RFC 9111 §4.3.4: what the stored response said of itself when it was made says nothing now.
        let has_date = super::headers::has(&by.headers, "date");
        for field in stored.headers.iter() {
            let outdated = !has_date && field.name.eq_ignore_ascii_case(b"date");
            if !is_replaced(field.name) && !outdated {
                push(field.name, field.value, &mut lines);
            }
        }
        for field in by.headers.iter().filter(|field| brings(field.name, field.known)) {
            push(field.name, field.value, &mut lines);
        }
        if !has_date {
            lines.extend_from_slice(b"Date: ");
            date::write(received, &mut lines);
            lines.extend_from_slice(b"\r\n");
        }
        Some(Self { status: self.status, lines: lines.into() })
    }
}

/// Appends the field Age: RFC 9111 §5.1. `age` in milliseconds.
pub fn write_age(age: u64, fields: &mut Vec<u8>) {
    // Writing to a Vec does not fail.
    let _ = write!(fields, "Age: {}\r\n", (age / 1000).min(super::directives::MOST_SECONDS));
}

/// Fields that go with the content, not with the response: who has the old content keeps them (RFC 9111 §3.2).
fn describes_content(name: &[u8]) -> bool {
    ["content-encoding", "content-length", "content-md5", "content-range", "etag"]
        .iter()
        .any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}

fn status_line(head: &ResponseHead) -> Vec<u8> {
    let mut line = Vec::with_capacity(512);
    // Writing to a Vec does not fail.
    let _ = write!(line, "HTTP/1.1 {:03} ", head.status);
    line.extend_from_slice(head.reason());
    line.extend_from_slice(b"\r\n");
    line
}

fn push(name: &[u8], value: &[u8], lines: &mut Vec<u8>) {
    for part in [name, b": ", value, b"\r\n"] {
        lines.extend_from_slice(part);
    }
}

fn parsed(text: &[u8]) -> Option<ResponseHead> {
    // It was within its limits when it was received.
    let limits = Limits { head: text.len(), header_count: Limits::MAX_HEADER_COUNT, ..Limits::default() };
    match parse::response(text, &limits) {
        Ok(Parsed::Complete(head, length)) if length == text.len() => Some(head),
        _ => None,
    }
}

/// The values of `name`, joined: for tests and for telling what is stored.
#[must_use]
pub fn joined(headers: &Headers, name: &str) -> String {
    let values: Vec<_> = super::headers::values(headers, name)
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .collect();
    values.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::tests::response;
    use super::*;

    /// 2026-01-01.
    const NOW: u64 = 1_767_225_600;

    fn stored(fields: &str) -> StoredHead {
        let response = response(200, fields);
        StoredHead::of(&response, &ResponseDirectives::of(&response.headers), NOW)
    }

    #[test]
    fn what_is_kept() {
        let head = stored("Date: x\r\nConnection: a\r\nA: 1\r\nB: 2\r\nAge: 3\r\nContent-Length: 5\r\n");
        assert_eq!(String::from_utf8_lossy(head.lines()), "HTTP/1.1 200 OK\r\nDate: x\r\nB: 2\r\n");
        let dated = stored("B: 2\r\n");
        assert_eq!(
            String::from_utf8_lossy(dated.lines()),
            "HTTP/1.1 200 OK\r\nB: 2\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
        );
        let names = dated.values("b").chain(dated.values("date")).count();
        assert_eq!((names, dated.values("b").next(), dated.values("dat").count()), (2, Some(&b"2"[..]), 0));
        let sent = dated.with(b"Age: 7\r\n").unwrap();
        assert_eq!((joined(&sent.headers, "age"), joined(&sent.headers, "b")), ("7".into(), "2".into()));
        let part = dated.with_status(206, b"Age: 7\r\n").unwrap();
        assert_eq!(
            (part.status, part.reason(), joined(&part.headers, "b")),
            (206, &b"Partial Content"[..], "2".into())
        );
        assert!(StoredHead::from_lines(200, b"rubbish").with(b"").is_none());
    }

    #[test]
    fn a_part_is_kept_as_the_whole() {
        let part = response(206, "Date: x\r\nContent-Range: bytes 0-4/10\r\nB: 2\r\n");
        let head = StoredHead::of(&part, &ResponseDirectives::of(&part.headers), NOW);
        assert_eq!(head.status(), 200);
        assert_eq!(String::from_utf8_lossy(head.lines()), "HTTP/1.1 200 OK\r\nDate: x\r\nB: 2\r\n");
    }

    #[test]
    fn an_update_replaces_what_it_brings_but_not_what_describes_the_content() {
        let head = stored(
            "Date: x\r\nETag: \"a\"\r\nContent-Encoding: gzip\r\nContent-Type: a/a\r\nA: 1\r\nA: 2\r\nB: 1\r\n",
        );
        let update = response(
            304,
            "Connection: C\r\nETag: \"b\"\r\nContent-Encoding: br\r\nContent-Length: 9\r\nContent-Type: b/b\r\na: 3\r\nC: 4\r\nD: 5\r\n",
        );
        let updated = head.updated(&update, &ResponseDirectives::of(&update.headers), NOW).unwrap();
        let headers = updated.with(b"").unwrap().headers;
        for (name, value) in [
            ("etag", "\"a\""),
            ("content-encoding", "gzip"),
            ("content-type", "b/b"),
            ("content-length", ""),
            ("a", "3"),
            ("b", "1"),
            ("c", ""),
            ("d", "5"),
            ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ] {
            assert_eq!(joined(&headers, name), value, "{name}");
        }
        assert_eq!(updated.status(), 200);
    }
}
