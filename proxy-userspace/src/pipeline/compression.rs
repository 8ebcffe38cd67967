//! Which responses are compressed, and what their heads then say (RFC 9110 §8.4, §12.5.3).
//!
//! The cache stores content as it came, and what is said here is said with each use: one stored response serves those
//! who take it compressed and those who don't.

use super::Engine;
use super::request::Request;
use crate::cache::range::content_range;
use crate::config::Compression;
use crate::http::coding::{Coding, negotiate};
use crate::http::framing::Framing;
use crate::http::head::{ResponseHead, Version};
use crate::http::headers::{Headers, Name, list_items};
use crate::relay::compress::Compress;
use crate::relay::stage::Stages;
use crate::target::Front;
use crate::telemetry::metrics;

/// Compresses the response behind `head`, if that is worth while and its client takes it; says so in the head, and how
/// its body is then framed.
pub(super) fn compress(
    engine: &Engine,
    request: &Request,
    head: &mut ResponseHead,
    framing: Framing,
    stages: &mut Stages,
) -> Framing {
    compress_unless(engine, request, head, framing, stages, |_| None)
}

/// The same, unless there is something in the coding that was chosen: its length is what `has` returns.
pub(super) fn compress_unless(
    engine: &Engine,
    request: &Request,
    head: &mut ResponseHead,
    framing: Framing,
    stages: &mut Stages,
    has: impl FnOnce(Coding) -> Option<u64>,
) -> Framing {
    let settings = &engine.config.compression;
    if !is_wanted(settings, request) {
        return framing;
    }
    let accept = || values(&request.head.headers, "accept-encoding");
    let is_for_head = request.head.method() == "HEAD";
    if head.status == 304 {
        if negotiate(accept(), &settings.codings).is_some() {
            answer_for_compressed(&request.head.headers, &mut head.headers);
        }
        return framing;
    }
    if head.status == 206 {
        note_choice_of(settings, request, head, content_range(&head.headers).map(|(_, length)| length));
        return framing;
    }
    if !may_change(request, head) || !is_worth_while(settings, head, framing, is_for_head) {
        return framing;
    }
    // Also for who does not take it: other clients of a cache on the way may.
    vary(&mut head.headers);
    // HTTP/1.0 has no other way to say how long a body is than closing the connection.
    let chosen = negotiate(accept(), &settings.codings).filter(|_| request.head.version > Version::Http10);
    let Some(coding) = chosen else { return framing };
    if is_for_head {
        describe(coding, &mut head.headers);
        return framing;
    }
    if let Some(length) = has(coding) {
        describe(coding, &mut head.headers);
        return Framing::Length(length);
    }
    let Some(stage) = Compress::with(coding, settings.effort, settings.max_streams) else {
        metrics::with(|metrics| metrics.compression_skipped.increment());
        return framing;
    };
    metrics::with(|metrics| metrics.compressed_responses.increment());
    describe(coding, &mut head.headers);
    stages.push(Box::new(stage));
    Framing::Chunked
}

/// Says of the head of a whole response with `length` bytes what is said if its content is sent: that it depends on
/// Accept-Encoding. Parts of it, and the news that it is still the same, have to say so, too (RFC 9110 §15.3.7, §15.4.5).
pub(super) fn note_choice(engine: &Engine, request: &Request, whole: &mut ResponseHead, length: u64) {
    let settings = &engine.config.compression;
    if is_wanted(settings, request) {
        note_choice_of(settings, request, whole, Some(length));
    }
}

fn note_choice_of(settings: &Compression, request: &Request, head: &mut ResponseHead, length: Option<u64>) {
    if is_changeable(request, head) && is_compressible(settings, head, length) {
        vary(&mut head.headers);
    }
}

fn is_wanted(settings: &Compression, request: &Request) -> bool {
    let by_front = match request.target.front {
        Front::Gateway => settings.gateway,
        Front::Explicit => settings.explicit,
        // Programs that have not asked for a proxy get what they would have got.
        Front::Captured => false,
    };
    settings.enabled && by_front
}

/// Whether nobody forbids it, and content is what it seems: whole, and in no coding.
fn may_change(request: &Request, head: &ResponseHead) -> bool {
    // 206 has parts of other bytes; 226 differences to others.
    let has_content = (200..600).contains(&head.status) && !matches!(head.status, 204 | 205 | 206 | 226);
    let is_part = head.headers.iter().any(|field| field.name.eq_ignore_ascii_case(b"content-range"));
    has_content && !is_part && is_changeable(request, head)
}

/// Whether nobody forbids it, and it is in no coding.
fn is_changeable(request: &Request, head: &ResponseHead) -> bool {
    let no_transform = |headers: &Headers| {
        values(headers, "cache-control")
            .flat_map(list_items)
            .any(|item| item.eq_ignore_ascii_case(b"no-transform"))
    };
    // Digests are of the bytes as they are (RFC 9530 §2, §3).
    let is_fixed = |name: &[u8]| {
        ["content-encoding", "content-digest", "repr-digest", "digest", "content-md5"]
            .iter()
            .any(|fixed| name.eq_ignore_ascii_case(fixed.as_bytes()))
    };
    !head.headers.iter().any(|field| is_fixed(field.name))
        && !no_transform(&head.headers)
        // RFC 9111 §5.2.1.6
        && !no_transform(&request.head.headers)
}

fn is_worth_while(settings: &Compression, head: &ResponseHead, framing: Framing, is_for_head: bool) -> bool {
    let length = match framing {
        Framing::Length(length) => Some(length),
        Framing::Chunked | Framing::UntilClose => None,
        // What a GET would have brought.
        Framing::None if is_for_head => {
            let length = head.headers.first(Name::ContentLength);
            length.and_then(|length| std::str::from_utf8(length).ok()?.parse().ok())
        }
        Framing::None => return false,
    };
    is_compressible(settings, head, length)
}

/// Whether content of this type, and of so many bytes as far as that is known, is worth it.
fn is_compressible(settings: &Compression, head: &ResponseHead, length: Option<u64>) -> bool {
    let mut types = values(&head.headers, "content-type");
    let (Some(content_type), None) = (types.next(), types.next()) else { return false };
    length.is_none_or(|length| length >= settings.min_size.max(1))
        && settings.types.iter().any(|pattern| pattern.matches(content_type))
}

/// Makes a head that of the compressed content.
fn describe(coding: Coding, headers: &mut Headers) {
    weaken(headers);
    // Its parts can't be asked for: they would be parts of the other bytes.
    headers.retain(|field| {
        field.known != Name::ContentLength && !field.name.eq_ignore_ascii_case(b"accept-ranges")
    });
    headers.push(b"Content-Encoding", coding.name().as_bytes());
}

/// RFC 9110 §8.8.3: the compressed bytes are not those that a strong validator names; each time they may be others.
fn weaken(headers: &mut Headers) {
    let Some(weak) = values(headers, "etag").next().and_then(weakened) else { return };
    headers.retain(|field| !field.name.eq_ignore_ascii_case(b"etag"));
    headers.push(b"ETag", &weak);
}

fn weakened(tag: &[u8]) -> Option<Vec<u8>> {
    tag.starts_with(b"\"").then(|| [b"W/", tag].concat())
}

/// A client that has the content compressed, knows it by the weak validator: a 304 with the strong one would not be
/// about what it has (RFC 9110 §15.4.5, RFC 9111 §4.3.4).
fn answer_for_compressed(request: &Headers, headers: &mut Headers) {
    let Some(weak) = values(headers, "etag").next().and_then(weakened) else { return };
    let mut has = values(request, "if-none-match").flat_map(list_items);
    if has.any(|tag| tag == weak) {
        weaken(headers);
        vary(headers);
    }
}

fn vary(headers: &mut Headers) {
    let covers = |name: &[u8]| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding");
    let covered = values(headers, "vary").flat_map(list_items).any(covers);
    if !covered {
        headers.push(b"Vary", b"Accept-Encoding");
    }
}

fn values<'a>(headers: &'a Headers, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes()))
        .map(|field| field.value)
}
