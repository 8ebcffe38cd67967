//! Text that is replaced in responses (`security.body_rules`): which, and what their heads then say.

use super::Engine;
use super::request::Request;
use crate::http::framing::Framing;
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::headers::{Headers, Name};
use crate::policy::Policy;
use crate::relay::replace::Replace;
use crate::relay::stage::Stages;
use crate::target::Target;
use crate::telemetry::metrics;

/// How a response is asked for in which text may have to be replaced: as a whole, and in no coding.
pub(super) fn asked(policy: &Policy, target: &Target, path: &str, head: &RequestHead) -> Option<RequestHead> {
    let host = target.authority.as_ref().map(|authority| &authority.host);
    if !policy.body_rules.concern(host, path) {
        return None;
    }
    let is_in_the_way = |name: &[u8]| is_one(name, &["range", "if-range", "accept-encoding"]);
    let mut changed = head.clone();
    changed.headers.retain(|field| !is_in_the_way(field.name));
    changed.headers.push(b"Accept-Encoding", b"identity");
    Some(changed)
}

/// Has text replaced in the response behind `head`, if a rule wants that; says so in the head, and how its body is then
/// framed.
pub(super) fn replace(
    engine: &Engine,
    request: &Request,
    head: &mut ResponseHead,
    framing: Framing,
    stages: &mut Stages,
) -> Framing {
    let is_for_head = request.head.method() == "HEAD";
    if framing == Framing::None && !is_for_head {
        return framing;
    }
    let policy = engine.policy.current();
    let host = request.target.authority.as_ref().map(|authority| &authority.host);
    let replacements = policy.body_rules.of(host, &request.path, &head.headers);
    if replacements.is_empty() {
        return framing;
    }
    if head.status == 206 || is_coded(&head.headers) {
        metrics::with(|metrics| metrics.body_rules_skipped.increment());
        return framing;
    }
    describe(&mut head.headers);
    if framing == Framing::None {
        return framing;
    }
    stages.extend(replacements.into_iter().map(|replacement| Box::new(Replace::new(replacement)) as _));
    Framing::Chunked
}

fn is_coded(headers: &Headers) -> bool {
    headers.iter().any(|field| {
        field.name.eq_ignore_ascii_case(b"content-encoding") && !field.value.eq_ignore_ascii_case(b"identity")
    })
}

/// Takes away what is about the bytes as they were.
fn describe(headers: &mut Headers) {
    const OF_THE_BYTES: &[&str] =
        &["accept-ranges", "content-md5", "content-digest", "repr-digest", "digest"];
    let tag = headers.iter().find(|field| is_one(field.name, &["etag"])).map(|field| field.value.to_vec());
    headers.retain(|field| field.known != Name::ContentLength && !is_one(field.name, OF_THE_BYTES));
    // RFC 9110 §8.8.3: with other rules it would be other bytes.
    if let Some(tag) = tag.filter(|tag| tag.starts_with(b"\"")) {
        headers.retain(|field| !is_one(field.name, &["etag"]));
        headers.push(b"ETag", &[b"W/", tag.as_slice()].concat());
    }
}

fn is_one(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|one| name.eq_ignore_ascii_case(one.as_bytes()))
}
