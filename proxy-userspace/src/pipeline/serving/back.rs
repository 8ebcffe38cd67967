//! What an app answers, as its client is to get it: fields of the head, and references in pages.

use super::find::COOKIE;
use crate::authority::Authority;
use crate::http::framing::Framing;
use crate::http::head::ResponseHead;
use crate::http::headers::{Field, Headers, Name, list_items};
use crate::pipeline::request::Request;
use crate::relay::references::{Mapping, References};
use crate::relay::replaced::Replaced;
use crate::relay::stage::Stages;
use crate::services::prefix::Root;
use crate::target::Hop;
use crate::telemetry::metrics;

/// Tells the head of an app's response as its client knows the app.
pub(in crate::pipeline) fn map_back(request: &Request, hop: &Hop, head: &mut ResponseHead) {
    let (Some(app), Hop::Service(way)) = (request.app(), hop) else { return };
    let root = Root {
        prefix: &app.prefix,
        own: [request.target.authority.as_ref(), Some(&way.at)],
        is_led: app.is_led,
    };
    let mapped = |field: Field<'_>| {
        std::str::from_utf8(field.value).ok().and_then(|value| root.field(field.name, value))
    };
    if !head.headers.iter().any(|field| mapped(field).is_some()) {
        return;
    }
    let all: Vec<(Vec<u8>, Vec<u8>)> = head
        .headers
        .iter()
        .map(|field| {
            let value = mapped(field).map_or_else(|| field.value.to_vec(), String::into_bytes);
            (field.name.to_vec(), value)
        })
        .collect();
    head.headers.retain(|_| false);
    all.iter().for_each(|(name, value)| head.headers.push(name, value));
}

/// Has the content behind `head` changed on its way, if it is a page of an app's, or what its handler wants changed. Says
/// so in the head; returns how the body is framed then.
pub(in crate::pipeline) fn rewrite(
    request: &Request,
    head: &mut ResponseHead,
    framing: Framing,
    stages: &mut Stages,
) -> Framing {
    let Some(app) = request.app().filter(|app| app.rewrites) else { return framing };
    let is_page = is_of_type(&head.headers, &["text/html", "application/xhtml+xml"]);
    let is_data = !is_page && is_of_type(&head.headers, &["application/json"]);
    if !(is_page || is_data) || !may_change(head) {
        return framing;
    }
    if is_page {
        let key = app.prefix.rsplit('/').next().unwrap_or_default();
        let cookie = format!("{COOKIE}={key}; Path=/; HttpOnly; SameSite=Lax");
        head.headers.push(b"Set-Cookie", cookie.as_bytes());
    }
    let handler = app.service.framework().handler();
    let replacements = handler.replacements(&app.asked());
    if head.status == 304 || !is_page && replacements.is_empty() {
        return framing;
    }
    describe(&mut head.headers);
    if framing == Framing::None {
        return framing;
    }
    metrics::with(|metrics| metrics.service_rewrites.increment());
    if is_page {
        let way = app.service.ways().next().map(|(_, way)| way.at.clone());
        let own = [request.target.authority.clone(), way];
        stages.push(Box::new(References::new(Box::new(Page { prefix: app.prefix.clone(), own }))));
    }
    if !replacements.is_empty() {
        stages.push(Box::new(Replaced::new(replacements)));
    }
    Framing::Chunked
}

/// An app's page, as its client knows it.
struct Page {
    prefix: String,
    own: [Option<Authority>; 2],
}

impl Page {
    fn root(&self) -> Root<'_> {
        let [client, app] = &self.own;
        Root { prefix: &self.prefix, own: [client.as_ref(), app.as_ref()], is_led: false }
    }
}

impl Mapping for Page {
    fn reference(&self, url: &str) -> Option<String> {
        self.root().reference(url)
    }

    fn refresh(&self, content: &str) -> Option<String> {
        self.root().refresh(content)
    }
}

fn is_of_type(headers: &Headers, types: &[&str]) -> bool {
    values(headers, "content-type").any(|value| {
        let media_type = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        types.iter().any(|known| media_type.eq_ignore_ascii_case(known.as_bytes()))
    })
}

/// Whether it is there whole and in no coding, and nobody forbids it.
fn may_change(head: &ResponseHead) -> bool {
    let is_coded =
        values(&head.headers, "content-encoding").any(|coding| !coding.eq_ignore_ascii_case(b"identity"));
    let is_fixed = values(&head.headers, "cache-control")
        .flat_map(list_items)
        .any(|item| item.eq_ignore_ascii_case(b"no-transform"));
    head.status >= 200 && !matches!(head.status, 204..=206 | 226) && !is_coded && !is_fixed
}

/// Makes a head that of changed content: its length is another, its parts can't be asked for, and what is said of its
/// bytes is said of others (RFC 9110 §8.8.3, RFC 9530).
fn describe(headers: &mut Headers) {
    let weak =
        values(headers, "etag").next().filter(|tag| tag.starts_with(b"\"")).map(|tag| [b"W/", tag].concat());
    const STALE: [&str; 5] = ["accept-ranges", "content-digest", "repr-digest", "digest", "content-md5"];
    headers.retain(|field| {
        let is = |known: &str| field.name.eq_ignore_ascii_case(known.as_bytes());
        field.known != Name::ContentLength
            && !STALE.iter().any(|known| is(known))
            && !(weak.is_some() && is("etag"))
    });
    if let Some(weak) = weak {
        headers.push(b"ETag", &weak);
    }
}

fn values<'a>(headers: &'a Headers, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes()))
        .map(|field| field.value)
}
