//! Errors of the admin API: problem documents (RFC 9457).

use axum::extract::rejection::QueryRejection;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

/// In seconds: the least that the field can say.
const RETRY_AFTER: &str = "1";

/// An error, with a sentence about what to do.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    for_now: bool,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), for_now: false }
    }

    /// Whoever asks again after [`RETRY_AFTER`] seconds may have more luck.
    pub(super) fn for_now(self) -> Self {
        Self { for_now: true, ..self }
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
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let retry_after = self.for_now.then_some([(header::RETRY_AFTER, RETRY_AFTER)]);
        (self.status, content_type, retry_after, document.to_string()).into_response()
    }
}

pub(super) async fn no_such_resource(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is no {} here", uri.path()))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} can't be done to {}", uri.path()))
}
