//! Which responses may be stored (RFC 9111 §3), and which of their fields (§3.1).
//!
//! Beyond the RFC, what a client could use to make a response that others would not get is not stored: see
//! [`NotStored::Influenced`].

use super::directives::{RequestDirectives, ResponseDirectives};
use super::freshness::{self, Exchanged, Freshness};
use super::headers::{has, values};
use super::not_stored::NotStored;
use super::vary::Selection;
use super::{Rules, conditional, range};
use crate::http::framing::Framing;
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::headers::{Headers, Name, list_items};

/// A response that may be stored: what is to be known of it.
#[derive(Debug, Clone)]
pub struct Storable {
    pub freshness: Freshness,
    pub selection: Selection,
    pub directives: ResponseDirectives,
}

/// Judges a final response, before its body. `names_itself`: its Content-Location is the request's own target.
///
/// # Errors
/// [`NotStored`] says why not.
pub fn check(
    request: &RequestHead,
    body: Framing,
    response: &ResponseHead,
    names_itself: bool,
    exchanged: Exchanged,
    rules: &Rules,
) -> Result<Storable, NotStored> {
    let (directives, _) = freshness::directives(response, rules);
    match request.method() {
        "GET" => check_request(request, body)?,
        // RFC 9110 §9.3.3: what a POST answers is what a GET would get, if it says so and for how long.
        "POST" if names_itself && freshness::is_explicit(response, &directives) => {
            check_request(request, Framing::None)?;
        }
        _ => return Err(NotStored::Method),
    }
    check_status(request, response, &directives)?;
    check_response(request, response, directives, exchanged, rules)
}

/// Judges what a stored response and a 304 have become together: the status and the request's own wishes are no
/// question any more.
///
/// # Errors
/// [`NotStored`]: it must not be kept.
pub fn check_merged(
    request: &RequestHead,
    merged: &ResponseHead,
    exchanged: Exchanged,
    rules: &Rules,
) -> Result<Storable, NotStored> {
    let (directives, _) = freshness::directives(merged, rules);
    if directives.no_store && !directives.must_understand {
        return Err(NotStored::NoStore);
    }
    check_response(request, merged, directives, exchanged, rules)
}

fn check_response(
    request: &RequestHead,
    response: &ResponseHead,
    directives: ResponseDirectives,
    exchanged: Exchanged,
    rules: &Rules,
) -> Result<Storable, NotStored> {
    if directives.private {
        return Err(NotStored::Private);
    }
    // RFC 9111 §3.5
    let for_all = directives.public || directives.must_revalidate || directives.s_maxage.is_some();
    if has(&request.headers, "authorization") && !for_all {
        return Err(NotStored::Authorized);
    }
    let explicit = freshness::is_explicit(response, &directives);
    let guessable = may_guess(request, response, &directives);
    if !explicit && !guessable && !directives.public && !directives.no_cache {
        return Err(NotStored::NoFreshness);
    }
    let selection = Selection::of(&request.headers, &response.headers).ok_or(NotStored::VaryStar)?;
    let freshness = Freshness::of(response, &directives, guessable, exchanged, rules);
    let usable = freshness.left(exchanged.received) > 0 && !freshness.always_validate;
    let validatable = conditional::has_validator(&response.headers);
    if !usable && !validatable && freshness.while_revalidate == 0 && freshness.if_error == 0 {
        // RFC 9111 §4.2.4 lets it be used where the origin can't be reached, but an answer that is stale from the
        // start has hardly been meant for that.
        return Err(if explicit { NotStored::Useless } else { NotStored::NoFreshness });
    }
    Ok(Storable { freshness, selection, directives })
}

/// Whether a stored field goes out again: not what belonged to the connection (RFC 9111 §3.1), nor what is said anew
/// with every use, nor what the response asked not to keep.
#[must_use]
pub fn keeps(name: &[u8], known: Name, response: &Headers, directives: &ResponseDirectives) -> bool {
    let is = |names: &[&str]| names.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()));
    match known {
        known if known.ends_at_hop() => false,
        _ if is(&["age", "proxy-authentication-info"]) => false,
        // RFC 9110 §7.6.1, within the limits that forwarding has, too.
        _ if response.lists(Name::Connection, &String::from_utf8_lossy(name)) => is(&[
            "content-type",
            "content-encoding",
            "content-range",
            "cache-control",
            "vary",
            "date",
            "etag",
        ]),
        _ => !directives.fields_not_kept.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes())),
    }
}

fn check_request(request: &RequestHead, body: Framing) -> Result<(), NotStored> {
    if RequestDirectives::of(&request.headers).no_store {
        return Err(NotStored::RequestNoStore);
    }
    // RFC 9110 §9.3.1: what a body of GET means is between client and server; it is no part of the key.
    if body != Framing::None {
        return Err(NotStored::Body);
    }
    if request.headers.iter().any(|field| influences(field.name)) {
        return Err(NotStored::Influenced);
    }
    Ok(())
}

/// Fields that origins and the proxies before them are known to act on, and that Vary seldom names: whoever sends
/// them could choose what others get from the cache.
fn influences(name: &[u8]) -> bool {
    const FIELDS: &[&str] = &[
        "forwarded",
        "base-url",
        "front-end-https",
        "http-method",
        "proxy-host",
        "request-uri",
        "url-original",
        "x-custom-ip-authorization",
        "x-forwarded",
        "x-host",
        "x-http-destinationurl",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-middleware-prefetch",
        "x-middleware-subrequest",
        "x-original-host",
        "x-original-url",
        "x-override-url",
        "x-proxy-url",
        "x-rewrite-url",
        "x-scheme",
        "x-url-scheme",
        "x-wap-profile",
    ];
    let starts_with = |prefix: &str| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    // Whom a request was forwarded for is in the logs of every origin, and seldom in what it answers.
    (starts_with("x-forwarded-") && !name.eq_ignore_ascii_case(b"x-forwarded-for"))
        || FIELDS.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}

/// RFC 9111 §3: the status is final and, where the cache has to understand it, understood.
fn check_status(
    request: &RequestHead,
    response: &ResponseHead,
    directives: &ResponseDirectives,
) -> Result<(), NotStored> {
    let understood = is_understood(response.status);
    if directives.must_understand && !understood {
        return Err(NotStored::NotUnderstood);
    }
    // RFC 9111 §5.2.2.3: who understands the status ignores the no-store beside must-understand.
    if directives.no_store && !directives.must_understand {
        return Err(NotStored::NoStore);
    }
    match response.status {
        ..200 | 304 => Err(NotStored::Status),
        206 if has(&request.headers, "range") && range::content_range(&response.headers).is_some() => Ok(()),
        206 => Err(NotStored::Partial),
        200 => Ok(()),
        // These answer the preconditions or the range of this very request.
        412 | 416 => Err(NotStored::Status),
        _ if conditional::is_conditional(&request.headers) || has(&request.headers, "range") => {
            Err(NotStored::Status)
        }
        _ => Ok(()),
    }
}

/// RFC 9110 §15: the statuses whose caching requirements are known here.
fn is_understood(status: u16) -> bool {
    matches!(
        status,
        200..=206 | 300..=304 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 428 | 429 | 431 | 451 | 500..=505 | 511
    )
}

/// Whether a lifetime may be guessed (RFC 9111 §4.2.2): for statuses that allow it, or with `public`. Not for what
/// carries cookies: who does not say how long it holds has seldom thought of sharing it.
fn may_guess(request: &RequestHead, response: &ResponseHead, directives: &ResponseDirectives) -> bool {
    let by_status =
        matches!(response.status, 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501);
    let personal = has(&response.headers, "set-cookie") || has(&request.headers, "cookie");
    // RFC 9111 §5.4: Pragma in a response means nothing, but whoever sends it wants no guesses.
    let against = values(&response.headers, "pragma")
        .flat_map(list_items)
        .any(|item| item.eq_ignore_ascii_case(b"no-cache"));
    (by_status || directives.public) && !personal && !against
}

#[cfg(test)]
mod tests {
    use super::super::tests::{RULES, request, response};
    use super::*;

    const NOW: Exchanged = Exchanged { sent: 1_767_225_600_000, received: 1_767_225_600_000 };

    #[track_caller]
    fn check(request_fields: &str, status: u16, fields: &str, expected: Result<(), NotStored>) {
        let found = super::check(
            &request("/", request_fields),
            Framing::None,
            &response(status, fields),
            false,
            NOW,
            &RULES,
        );
        assert_eq!(found.map(drop), expected, "{request_fields} {status} {fields}");
    }

    const FRESH: &str = "Cache-Control: max-age=60\r\n";
    const OLD: &str = "Last-Modified: Wed, 31 Dec 2025 00:00:00 GMT\r\n";

    #[test]
    fn responses() {
        check("", 200, FRESH, Ok(()));
        check("", 200, "", Err(NotStored::NoFreshness));
        check("", 200, "ETag: \"a\"\r\n", Ok(()));
        check("", 200, OLD, Ok(()));
        check("", 201, OLD, Err(NotStored::NoFreshness));
        check("", 599, OLD, Err(NotStored::NoFreshness));
        check("", 599, &format!("{OLD}Cache-Control: public\r\n"), Ok(()));
        check("", 599, FRESH, Ok(()));
        check("", 599, "Cache-Control: max-age=60, must-understand\r\n", Err(NotStored::NotUnderstood));
        check("", 200, "Cache-Control: max-age=60, must-understand, no-store\r\n", Ok(()));
        check("", 200, "Cache-Control: max-age=60, no-store\r\n", Err(NotStored::NoStore));
        check("", 200, "Cache-Control: max-age=60, private\r\n", Err(NotStored::Private));
        check("", 200, "Cache-Control: max-age=60, private=\"x\"\r\n", Ok(()));
        check("", 200, "Cache-Control: no-cache\r\nETag: \"a\"\r\n", Ok(()));
        check("", 200, "Cache-Control: no-cache\r\n", Err(NotStored::NoFreshness));
        check("", 200, "Cache-Control: max-age=0\r\n", Err(NotStored::Useless));
        check("", 200, &format!("{FRESH}Vary: *\r\n"), Err(NotStored::VaryStar));
        check("", 206, FRESH, Err(NotStored::Partial));
        check("", 304, FRESH, Err(NotStored::Status));
        check("", 404, FRESH, Ok(()));
        check("", 200, &format!("{FRESH}Set-Cookie: a=b\r\n"), Ok(()));
        check("", 200, &format!("{OLD}Set-Cookie: a=b\r\n"), Err(NotStored::NoFreshness));
        check("Cookie: a=b\r\n", 200, OLD, Err(NotStored::NoFreshness));
        check("", 200, &format!("{OLD}Pragma: no-cache\r\n"), Err(NotStored::NoFreshness));
    }

    #[test]
    fn requests() {
        check("Cache-Control: no-store\r\n", 200, FRESH, Err(NotStored::RequestNoStore));
        check("Authorization: x\r\n", 200, FRESH, Err(NotStored::Authorized));
        for directive in ["public", "must-revalidate", "s-maxage=5"] {
            check(
                "Authorization: x\r\n",
                200,
                &format!("Cache-Control: max-age=60, {directive}\r\n"),
                Ok(()),
            );
        }
        for field in [
            "X-Forwarded-Host",
            "x-forwarded-anything",
            "Forwarded",
            "X-Original-URL",
            "X-HTTP-Method-Override",
        ] {
            check(&format!("{field}: x\r\n"), 200, FRESH, Err(NotStored::Influenced));
        }
        check("If-Match: \"a\"\r\n", 412, FRESH, Err(NotStored::Status));
        check("If-Match: \"a\"\r\n", 404, FRESH, Err(NotStored::Status));
        check("Range: bytes=9-\r\n", 416, FRESH, Err(NotStored::Status));
        check("Range: bytes=9-\r\n", 200, FRESH, Ok(()));
        check("Range: bytes=9-\r\n", 206, FRESH, Err(NotStored::Partial));
        let part = format!("{FRESH}Content-Range: bytes 9-9/10\r\n");
        check("Range: bytes=9-\r\n", 206, &part, Ok(()));
        check("", 206, &part, Err(NotStored::Partial));
    }

    #[test]
    fn a_body_is_no_part_of_the_key() {
        let found =
            super::check(&request("/", ""), Framing::Length(1), &response(200, FRESH), false, NOW, &RULES);
        assert_eq!(found.map(drop), Err(NotStored::Body));
    }

    #[test]
    fn kept_fields() {
        let head = response(
            200,
            "Connection: a, cache-control\r\nCache-Control: no-cache=b\r\nA: 1\r\nB: 2\r\nC: 3\r\nAge: 4\r\nKeep-Alive: 5\r\nContent-Length: 6\r\n",
        );
        let directives = ResponseDirectives::of(&head.headers);
        let kept: Vec<_> = head
            .headers
            .iter()
            .filter(|field| keeps(field.name, field.known, &head.headers, &directives))
            .map(|field| String::from_utf8_lossy(field.name).into_owned())
            .collect();
        assert_eq!(kept, ["Cache-Control", "C"]);
    }
}
