//! Errors of the admin API: problem documents (RFC 9457).

use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

/// An error, with a sentence about what to do.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    /// To ask again may help at once.
    asks_again: bool,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), asks_again: false }
    }

    /// This weir can't any more; the one that has taken its place, if there is one, can.
    pub(super) fn of_replaced() -> Self {
        let detail = "weir is stopping, or another one has taken its place".to_owned();
        Self { status: StatusCode::SERVICE_UNAVAILABLE, detail, asks_again: true }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut response =
            (self.status, [(header::CONTENT_TYPE, "application/problem+json")], document.to_string())
                .into_response();
        if self.asks_again {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("0"));
        }
        response
    }
}

pub(super) async fn no_such_resource(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is no {} here", uri.path()))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} can't be done to {}", uri.path()))
}
