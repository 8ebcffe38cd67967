//! Heads between HTTP/2, as the `h2` crate gives and takes them, and the form in which the rest of weir has them.
//!
//! `h2` and `http` have checked by then what RFC 9113 §8.2 and §8.3 ask: names are tokens in lower case, values hold no
//! control character, pseudo-fields are complete, connection-specific fields absent. What is left is checked here.

use ::h2::ext::Protocol;
use ::http::header::{HeaderMap, HeaderName, HeaderValue};
use ::http::{Method, Request, Response, StatusCode, Uri};

use super::authority::Scheme;
use super::forward::{Form, Pseudonym, end_to_end_fields};
use super::framing::Framing;
use super::head::{RequestHead, ResponseHead, Version};
use super::headers::{Headers, Name};
use super::parse::BadHead;
use super::status;
use super::trailers::passed_on;
use super::websocket;
use crate::config::Limits;

/// The bytes that RFC 9113 §6.5.2 adds to each field's name and value.
const FIELD_OVERHEAD: usize = 32;

/// A request's head. Its target is in origin-form, except for CONNECT; the authority is for the caller.
///
/// # Errors
/// [`BadHead`]: over a limit, or not to be written in another version without changing its meaning.
pub fn request(request: &Request<()>, limits: &Limits) -> Result<RequestHead, BadHead> {
    let uri = request.uri();
    let target = match uri.path_and_query() {
        Some(path) => path.as_str(),
        None => uri.authority().map_or("", |authority| authority.as_str()),
    };
    if target.len() > limits.url {
        return Err(BadHead::LongTarget);
    }
    // What h2 lets through there is more than a request line can carry.
    if target.bytes().any(|byte| byte <= b' ' || byte >= 0x7f || byte == b'#') {
        return Err(BadHead::Syntax("bad character in :path"));
    }
    let mut head = RequestHead::new(Version::Http2, request.method().as_str(), target);
    let fields = request.headers();
    let size: usize =
        fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum();
    if size + target.len() > limits.head {
        return Err(BadHead::TooLarge);
    }
    // Cookies may come in crumbs, which count as one field (RFC 9113 §8.2.3).
    let crumbs = fields.get_all(COOKIE).iter().count();
    if fields.len() - crumbs.saturating_sub(1) > limits.header_count {
        return Err(BadHead::TooManyFields);
    }
    // RFC 9113 §8.2.1: whoever reads lines would not see the white space that another one counts.
    let padded = |value: &HeaderValue| value.as_bytes().trim_ascii().len() != value.len();
    if fields.values().any(padded) {
        return Err(BadHead::Syntax("white space around a field's value"));
    }
    for (name, value) in fields.iter().filter(|(name, _)| crumbs < 2 || *name != COOKIE) {
        head.headers.push(name.as_str().as_bytes(), value.as_bytes());
    }
    if crumbs > 1 {
        let crumbs: Vec<_> = fields.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        head.headers.push(COOKIE.as_bytes(), &crumbs.join(b"; ".as_slice()));
    }
    Ok(head)
}

const COOKIE: &str = "cookie";

/// Fields that follow a body.
#[must_use]
pub fn trailers(fields: &HeaderMap) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in fields {
        headers.push(name.as_str().as_bytes(), value.as_bytes());
    }
    headers
}

/// Trailers for an HTTP/2 peer: those that may be sent on.
#[must_use]
pub fn sent_trailers(headers: &Headers) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for field in passed_on(headers) {
        append(&mut fields, field.name, field.value);
    }
    fields
}

/// A response for an HTTP/2 client. `via` is our name in Via; a response of weir's own has none.
#[must_use]
pub fn response(head: &ResponseHead, framing: Framing, via: Option<&Pseudonym>) -> Response<()> {
    let mut response = Response::new(());
    // A status that is none was refused when the head was parsed.
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let fields = response.headers_mut();
    for field in end_to_end_fields(&head.headers) {
        append(fields, field.name, field.value);
    }
    match framing {
        Framing::Length(length) => {
            fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        // The length that a HEAD or 304 announces belongs to the representation: it is passed on.
        Framing::None if !matches!(head.status, 100..=199 | 204) => {
            if let Some(length) = head.headers.first(Name::ContentLength) {
                append(fields, CONTENT_LENGTH.as_bytes(), length);
            }
        }
        Framing::Chunked => announce_trailers(&head.headers, fields),
        Framing::None | Framing::UntilClose => {}
    }
    match via {
        Some(via) => append_via(fields, head.version, via),
        // RFC 9110 §11.7.1: what a proxy itself asks of its client.
        None => head
            .headers
            .all(Name::ProxyAuthenticate)
            .for_each(|challenge| append(fields, b"proxy-authenticate", challenge)),
    }
    response
}

/// A request for an HTTP/2 server. None: its target has no place in a URI.
#[must_use]
pub fn onward(head: &RequestHead, form: &Form<'_>, via: &Pseudonym) -> Option<Request<()>> {
    let scheme = match form.host.1 {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let websocket = form.upgrade && websocket::is_asked_for(head);
    let uri = match head.method() {
        // RFC 9113 §8.5.
        "CONNECT" => Uri::builder().authority(form.target),
        _ => Uri::builder().scheme(scheme).authority(form.host.to_string()).path_and_query(form.target),
    };
    let mut request = Request::new(());
    *request.uri_mut() = uri.build().ok()?;
    *request.method_mut() = Method::from_bytes(head.method().as_bytes()).ok()?;
    if websocket {
        // RFC 8441 §4.
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
    }
    let fields = request.headers_mut();
    let replaced = |name: &[u8]| form.forwarded.is_some_and(|forwarded| forwarded.replaces(name));
    let stays = |name: &[u8]| replaced(name) || websocket && websocket::is_of_handshake(name);
    for field in end_to_end_fields(&head.headers).filter(|field| !stays(field.name)) {
        append(fields, field.name, field.value);
    }
    if let Some(forwarded) = &form.forwarded {
        let mut lines = Vec::new();
        forwarded.write(&head.headers, &mut lines);
        for line in lines.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            if let Some(colon) = line.iter().position(|byte| *byte == b':') {
                append(fields, &line[..colon], line[colon + 1..].trim_ascii());
            }
        }
    }
    match form.framing {
        Framing::Length(length) => drop(fields.insert(CONTENT_LENGTH, HeaderValue::from(length))),
        Framing::Chunked => announce_trailers(&head.headers, fields),
        Framing::None | Framing::UntilClose => {}
    }
    // RFC 9113 §8.2.2: the one thing that may be said of it; gRPC asks for it.
    if head.headers.lists(Name::Te, "trailers") {
        fields.insert("te", HeaderValue::from_static("trailers"));
    }
    append_via(fields, head.version, via);
    Some(request)
}

/// A response's head.
#[must_use]
pub fn response_head(response: &Response<()>) -> ResponseHead {
    let status = response.status().as_u16();
    let mut head = ResponseHead::new(Version::Http2, status, status::reason(status));
    for (name, value) in response.headers() {
        head.headers.push(name.as_str().as_bytes(), value.as_bytes());
    }
    head
}

const CONTENT_LENGTH: &str = "content-length";

/// RFC 9110 §6.6.2: what is going to follow.
fn announce_trailers(headers: &Headers, fields: &mut HeaderMap) {
    for value in headers.all(Name::Trailer) {
        append(fields, b"trailer", value);
    }
}

fn append_via(fields: &mut HeaderMap, version: Version, via: &Pseudonym) {
    let mut value = Vec::new();
    via.write_after(version, &mut value);
    append(fields, b"via", &value);
}

/// Adds a field. One that has no place in HTTP/2 was parsed from HTTP/1, which allows the same names and values.
fn append(fields: &mut HeaderMap, name: &[u8], value: &[u8]) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        fields.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse::{self, Parsed};

    #[track_caller]
    fn check_request(build: ::http::request::Builder, expected: Result<&str, BadHead>) {
        let limits = Limits { url: 64, head: 512, header_count: 4, ..Limits::default() };
        let parsed = request(&build.body(()).unwrap(), &limits).map(|head| {
            let fields = head.headers.iter().map(|field| {
                format!(" {}={}", String::from_utf8_lossy(field.name), String::from_utf8_lossy(field.value))
            });
            format!("{} {}{}", head.method(), head.target(), fields.collect::<String>())
        });
        assert_eq!(parsed.as_deref().map_err(|error| *error), expected);
    }

    #[test]
    fn requests() {
        let get = |uri: &str| Request::builder().uri(uri);
        check_request(get("http://a/b?c").header("x", "1"), Ok("GET /b?c x=1"));
        check_request(get("http://a/").header("cookie", "a=1"), Ok("GET / cookie=a=1"));
        check_request(
            get("http://a/").header("cookie", "a=1").header("x", "1").header("cookie", "b=2"),
            Ok("GET / x=1 cookie=a=1; b=2"),
        );
        check_request(Request::builder().method("CONNECT").uri("a:443"), Ok("CONNECT a:443"));
        let crumbs = (0..9).fold(get("http://a/"), |build, _| build.header("cookie", "a"));
        check_request(crumbs, Ok("GET / cookie=a; a; a; a; a; a; a; a; a"));
        let many = (0..5).fold(get("http://a/"), |build, _| build.header("x", "1"));
        check_request(many, Err(BadHead::TooManyFields));
        check_request(get("http://a/").header("x", "1".repeat(480)), Err(BadHead::TooLarge));
        check_request(get(&format!("http://a/{}", "b".repeat(64))), Err(BadHead::LongTarget));
        check_request(
            get("http://a/").header("x", "1 "),
            Err(BadHead::Syntax("white space around a field's value")),
        );
        check_request(get("http://a/\u{e9}"), Err(BadHead::Syntax("bad character in :path")));
    }

    #[track_caller]
    fn check_response(head: &str, framing: Framing, expected: &[(&str, &str)]) {
        let head = format!("{head}\r\n\r\n");
        let Ok(Parsed::Complete(head, _)) = parse::response(head.as_bytes(), &Limits::default()) else {
            panic!("not a head")
        };
        let response = response(&head, framing, Some(&Pseudonym::new(1)));
        let fields: Vec<_> =
            response.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(fields, expected);
    }

    #[test]
    fn responses() {
        let via = ("via", "1.1 weir-00000001");
        check_response(
            "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTransfer-Encoding: chunked\r\nX-End: 2\r\nUpgrade: h2c",
            Framing::Chunked,
            &[("x-end", "2"), via],
        );
        check_response(
            "HTTP/1.1 200 OK\r\nContent-Length: 5",
            Framing::Length(5),
            &[("content-length", "5"), via],
        );
        check_response(
            "HTTP/1.1 304 No\r\nContent-Length: 5",
            Framing::None,
            &[("content-length", "5"), via],
        );
        check_response("HTTP/1.1 204 No\r\nContent-Length: 5", Framing::None, &[via]);
        check_response("HTTP/1.0 200 OK", Framing::UntilClose, &[("via", "1.0 weir-00000001")]);
    }

    #[test]
    fn trailers_lose_what_comes_too_late() {
        let mut headers = Headers::default();
        headers.push(b"Grpc-Status", b"0");
        headers.push(b"Content-Length", b"5");
        headers.push(b"Authorization", b"x");
        headers.push(b"Connection", b"close");
        let sent = sent_trailers(&headers);
        assert_eq!(sent.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["grpc-status"]);
        assert_eq!(trailers(&sent).iter().count(), 1);
    }
}
