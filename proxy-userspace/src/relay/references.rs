//! Maps the references in a page of HTML as it passes: those that stand in attributes of tags. Scripts and styles are left
//! alone, and so is a tag that is longer than any should be. A page is never held as a whole.
//!
//! This is not a parser of HTML: it knows where tags, comments and raw text begin and end (WHATWG HTML §13.2.5), which is
//! all that attributes take.

use std::ops::Range;

use super::body::{BodyError, Trailers};
use super::stage::Stage;

/// The longest tag that is looked at.
const MAX_TAG: usize = 64 << 10;

/// Attributes that hold one reference.
const REFERENCES: [&str; 9] =
    ["href", "src", "action", "formaction", "poster", "data", "background", "manifest", "data-src"];

/// Elements with text in which no tag begins (§13.1.2).
const RAW: [&str; 8] = ["script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"];

/// What a page's references become. None: they stay.
pub trait Mapping {
    /// A reference.
    fn reference(&self, url: &str) -> Option<String>;

    /// What `<meta http-equiv=refresh>` has in `content`.
    fn refresh(&self, content: &str) -> Option<String>;
}

/// A page on its way.
pub struct References {
    mapping: Box<dyn Mapping>,
    inside: Inside,
    /// What can't be passed on before more is there.
    held: Vec<u8>,
    out: Vec<u8>,
}

/// Inside what the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    Text,
    Comment,
    /// The raw text of that element.
    Raw(&'static str),
}

impl References {
    #[must_use]
    pub fn new(mapping: Box<dyn Mapping>) -> Self {
        Self { mapping, inside: Inside::Text, held: Vec::new(), out: Vec::new() }
    }

    /// Passes on what is whole; `last`: nothing comes behind it.
    fn pass(&mut self, last: bool) {
        self.out.clear();
        let held = std::mem::take(&mut self.held);
        let mut at = 0;
        while at < held.len() {
            match self.step(&held[at..], last) {
                Some(taken) => at += taken,
                None => break,
            }
        }
        self.held = held;
        self.held.drain(..at);
    }

    /// Passes the next of it on: how many bytes that were. None: more has to be there first.
    fn step(&mut self, rest: &[u8], last: bool) -> Option<usize> {
        let until = match self.inside {
            Inside::Text => return self.text(rest, last),
            Inside::Comment => find(rest, |at| at.starts_with(b"-->")),
            Inside::Raw(name) => find(rest, |at| ends_raw(at, name)),
        };
        let taken = match until {
            Some(end) => {
                self.inside = Inside::Text;
                end
            }
            None if last => rest.len(),
            // What may be the beginning of the end.
            None => rest.len().saturating_sub(LONGEST_END),
        };
        self.out.extend_from_slice(&rest[..taken]);
        // At the end itself, the text goes on with it.
        (taken > 0 || until.is_some()).then_some(taken)
    }

    fn text(&mut self, rest: &[u8], last: bool) -> Option<usize> {
        let Some(start) = rest.iter().position(|byte| *byte == b'<') else {
            self.out.extend_from_slice(rest);
            return Some(rest.len());
        };
        self.out.extend_from_slice(&rest[..start]);
        let tag = &rest[start..];
        let plain = |out: &mut Vec<u8>| {
            out.push(b'<');
            Some(start + 1)
        };
        if tag.starts_with(b"<!--") {
            self.inside = Inside::Comment;
            self.out.extend_from_slice(b"<!--");
            return Some(start + 4);
        }
        if !last && (tag.len() == 1 || b"<!--".starts_with(tag)) {
            return (start > 0).then_some(start);
        }
        if !tag.get(1).is_some_and(u8::is_ascii_alphabetic) {
            return plain(&mut self.out);
        }
        match Tag::parse(tag) {
            Some(parsed) => {
                self.tag(tag, &parsed);
                Some(start + parsed.length)
            }
            None if last || tag.len() > MAX_TAG => plain(&mut self.out),
            None => (start > 0).then_some(start),
        }
    }

    /// Passes a tag on, with what its attributes become.
    fn tag(&mut self, bytes: &[u8], tag: &Tag) {
        let name = bytes[tag.name.clone()].to_ascii_lowercase();
        if let Some(raw) = RAW.iter().find(|raw| raw.as_bytes() == name) {
            self.inside = Inside::Raw(raw);
        }
        let mut at = 0;
        for attribute in &tag.attributes {
            let Ok(value) = std::str::from_utf8(&bytes[attribute.value.clone()]) else { continue };
            let trimmed = value.trim_ascii();
            let is = |known: &str| bytes[attribute.name.clone()].eq_ignore_ascii_case(known.as_bytes());
            let mapped = if REFERENCES.iter().any(|known| is(known)) {
                self.mapping.reference(trimmed)
            } else if is("srcset") || is("imagesrcset") {
                self.candidates(trimmed)
            } else if is("content") && name == b"meta" {
                self.mapping.refresh(trimmed)
            } else {
                None
            };
            if let Some(mapped) = mapped {
                self.out.extend_from_slice(&bytes[at..attribute.value.start]);
                self.out.extend_from_slice(mapped.as_bytes());
                at = attribute.value.end;
            }
        }
        self.out.extend_from_slice(&bytes[at..tag.length]);
    }

    /// `a.png 1x, b.png 2x`
    fn candidates(&self, value: &str) -> Option<String> {
        let mut changed = false;
        let mapped: Vec<String> = value
            .split(',')
            .map(|candidate| {
                let candidate = candidate.trim_ascii();
                let (url, rest) = candidate.split_at(candidate.find(' ').unwrap_or(candidate.len()));
                let mapped = self.mapping.reference(url);
                changed |= mapped.is_some();
                format!("{}{rest}", mapped.as_deref().unwrap_or(url))
            })
            .collect();
        changed.then(|| mapped.join(", "))
    }
}

/// Bytes of the longest end of raw text or of a comment, but one.
const LONGEST_END: usize = "</textarea".len();

/// `</script`, and what can't be part of a name.
fn ends_raw(at: &[u8], name: &str) -> bool {
    let Some(end) = at.strip_prefix(b"</").and_then(|rest| rest.get(..name.len())) else { return false };
    end.eq_ignore_ascii_case(name.as_bytes())
}

fn find(bytes: &[u8], is_there: impl Fn(&[u8]) -> bool) -> Option<usize> {
    (0..bytes.len()).find(|at| matches!(bytes[*at], b'<' | b'-') && is_there(&bytes[*at..]))
}

/// A start tag that is there as a whole.
struct Tag {
    name: Range<usize>,
    attributes: Vec<Attribute>,
    length: usize,
}

/// With its value, without quotes.
struct Attribute {
    name: Range<usize>,
    value: Range<usize>,
}

impl Tag {
    /// Of bytes that begin with `<` and a letter. None: its end is not there.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let past = |from: usize, is: &dyn Fn(u8) -> bool| {
            Some(from + bytes.get(from..)?.iter().position(|byte| !is(*byte))?)
        };
        let is_blank = |byte: u8| byte.is_ascii_whitespace() || byte == b'/';
        let is_name = |byte: u8| !is_blank(byte) && byte != b'>';
        let end = past(1, &is_name)?;
        let (mut at, mut attributes) = (end, Vec::new());
        loop {
            at = past(at, &is_blank)?;
            if bytes[at] == b'>' {
                return Some(Self { name: 1..end, attributes, length: at + 1 });
            }
            let start = at;
            // The first byte of a name may be an equals sign.
            at = past(at + 1, &|byte| is_name(byte) && byte != b'=')?;
            let name = start..at;
            let equals = past(at, &|byte: u8| byte.is_ascii_whitespace())?;
            if bytes[equals] != b'=' {
                continue;
            }
            at = past(equals + 1, &|byte: u8| byte.is_ascii_whitespace())?;
            let value = match bytes[at] {
                quote @ (b'"' | b'\'') => {
                    let end = past(at + 1, &|byte| byte != quote)?;
                    let value = at + 1..end;
                    at = end + 1;
                    value
                }
                b'>' => at..at,
                _ => {
                    let end = past(at, &|byte: u8| !byte.is_ascii_whitespace() && byte != b'>')?;
                    let value = at..end;
                    at = end;
                    value
                }
            };
            attributes.push(Attribute { name, value });
        }
    }
}

impl Stage for References {
    fn content<'a>(&'a mut self, content: &'a [u8]) -> Result<&'a [u8], BodyError> {
        self.held.extend_from_slice(content);
        self.pass(false);
        Ok(&self.out)
    }

    fn end(&mut self, _: &Trailers) -> Result<&[u8], BodyError> {
        self.pass(true);
        Ok(&self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Below;

    impl Mapping for Below {
        fn reference(&self, url: &str) -> Option<String> {
            (url.starts_with('/') && !url.starts_with("//")).then(|| format!("/p{url}"))
        }

        fn refresh(&self, content: &str) -> Option<String> {
            content
                .strip_prefix("0;url=")
                .and_then(|url| self.reference(url))
                .map(|url| format!("0;url={url}"))
        }
    }

    fn mapped(page: &[u8], size: usize) -> Vec<u8> {
        let mut stage = References::new(Box::new(Below));
        let mut out = Vec::new();
        for part in page.chunks(size) {
            out.extend_from_slice(stage.content(part).unwrap());
        }
        out.extend_from_slice(stage.end(&None).unwrap());
        out
    }

    #[track_caller]
    fn check(page: &str, expected: &str) {
        for size in 1..=page.len() {
            let out = String::from_utf8(mapped(page.as_bytes(), size)).unwrap();
            assert_eq!(out, expected, "in parts of {size}");
        }
    }

    #[test]
    fn references_in_attributes() {
        check("<a href=\"/x?a=b&amp;c\">/x</a>", "<a href=\"/p/x?a=b&amp;c\">/x</a>");
        check(
            "<A HREF='/x' class=b><br/><img src=/y alt=\"a>b\">",
            "<A HREF='/p/x' class=b><br/><img src=/p/y alt=\"a>b\">",
        );
        check("<form action = \" /x \" ><base href=/>", "<form action = \"/p/x\" ><base href=/p/>");
        check("<img srcset='/a 1x, b 2x,/c'>", "<img srcset='/p/a 1x, b 2x, /p/c'>");
        check(
            "<meta http-equiv=refresh content='0;url=/x'>",
            "<meta http-equiv=refresh content='0;url=/p/x'>",
        );
        check("<link rel=x href=/s.css><link href=//cdn/x>", "<link rel=x href=/p/s.css><link href=//cdn/x>");
        check("<div title='<a href=\"/x\">' href>", "<div title='<a href=\"/x\">' href>");
    }

    #[test]
    fn what_is_no_tag_stays() {
        check("<!-- <a href=/x> --><a href=/x>", "<!-- <a href=/x> --><a href=/p/x>");
        check(
            "<script src=/s>'<a href=\"/x\">'</scr</script><a href=/x>",
            "<script src=/p/s>'<a href=\"/x\">'</scr</script><a href=/p/x>",
        );
        check("<title><a href=/x></TITLE><a href=/x>", "<title><a href=/x></TITLE><a href=/p/x>");
        check(
            "a < b <3 </a href=/x> <!doctype html> <?x href=/x?>",
            "a < b <3 </a href=/x> <!doctype html> <?x href=/x?>",
        );
        check("<a href=\"/x", "<a href=\"/x");
        check("text <", "text <");
    }

    #[test]
    fn a_tag_without_an_end_is_not_waited_for_for_ever() {
        let page = [b"<a href=\"/x".as_slice(), &vec![b'y'; 2 * MAX_TAG]].concat();
        let mut stage = References::new(Box::new(Below));
        let mut out = stage.content(&page).unwrap().to_vec();
        assert_eq!(out.len(), page.len(), "it goes on as it is");
        out.extend_from_slice(stage.end(&None).unwrap());
        assert_eq!(out, page);
    }

    proptest! {
        #[test]
        fn parts_make_no_difference_and_nothing_is_lost(
            page in "(<|>|/|a|script|style|!--|-->|--| href=|'|\"|=|x| |</script>|ä){0,40}",
            size in 1..20_usize,
        ) {
            let whole = mapped(page.as_bytes(), usize::MAX);
            prop_assert_eq!(&mapped(page.as_bytes(), size), &whole);
            let without = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("/p/", "/").replace(char::is_whitespace, "");
            prop_assert_eq!(without(&whole), without(page.as_bytes()));
        }
    }
}
