//! Keeps web pages away from the admin API: a browser on this host must not become somebody's hand in it
//! (DNS rebinding, cross-site requests).

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// The values of Host that mean this API.
#[derive(Debug, Clone)]
pub(super) struct AllowedHosts(Arc<[String]>);

impl AllowedHosts {
    pub(super) fn of(address: SocketAddr) -> Self {
        let port = address.port();
        Self(
            [
                address.to_string(),
                format!("localhost:{port}"),
                format!("127.0.0.1:{port}"),
                format!("[::1]:{port}"),
            ]
            .into(),
        )
    }

    fn accept(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host_is_ours =
            host.is_some_and(|host| self.0.iter().any(|allowed| allowed.eq_ignore_ascii_case(host)));
        let origin_is_ours = headers.get(header::ORIGIN).is_none_or(|origin| {
            let origin = origin.to_str().unwrap_or_default();
            self.0.iter().any(|allowed| origin == format!("http://{allowed}"))
        });
        let site = headers.get("sec-fetch-site").map(|site| site.to_str().unwrap_or_default());
        host_is_ours && origin_is_ours && site.is_none_or(|site| matches!(site, "same-origin" | "none"))
    }
}

pub(super) async fn check(State(allowed): State<AllowedHosts>, request: Request, next: Next) -> Response {
    if allowed.accept(request.headers()) {
        return match is_json(request.headers()) {
            true => next.run(request).await,
            false => Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bodies are application/json here")
                .into_response(),
        };
    }
    let detail = "this API answers only requests for its own host, from no other site";
    Problem::new(StatusCode::FORBIDDEN, detail).into_response()
}

/// A form, or text, is what a page may send without being asked whether it may (the Fetch standard, "CORS-safelisted").
fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_none_or(|value| {
        let media_type = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        media_type.eq_ignore_ascii_case(b"application/json")
            || media_type.len() > 5 && media_type[media_type.len() - 5..].eq_ignore_ascii_case(b"+json")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &[(&'static str, &'static str)], expected: bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().unwrap());
        }
        let allowed = AllowedHosts::of("127.0.0.1:22140".parse().unwrap());
        assert_eq!(allowed.accept(&headers), expected, "{fields:?}");
    }

    #[test]
    fn bodies_are_json() {
        for (media_type, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("multipart/form-data; boundary=x", false),
            ("text/plain; application/json", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, media_type.parse().unwrap());
            assert_eq!(is_json(&headers), expected, "{media_type}");
        }
        assert!(is_json(&HeaderMap::new()));
    }

    #[test]
    fn only_this_host_and_no_other_site() {
        check(&[("host", "127.0.0.1:22140")], true);
        check(&[("host", "localhost:22140")], true);
        check(&[], false);
        check(&[("host", "evil.example:22140")], false);
        check(&[("host", "127.0.0.1")], false);
        check(&[("host", "localhost:22140"), ("origin", "http://localhost:22140")], true);
        check(&[("host", "localhost:22140"), ("origin", "http://evil.example")], false);
        check(&[("host", "localhost:22140"), ("origin", "null")], false);
        check(&[("host", "localhost:22140"), ("sec-fetch-site", "cross-site")], false);
        check(&[("host", "localhost:22140"), ("sec-fetch-site", "none")], true);
    }
}
