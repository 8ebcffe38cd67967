//! What changes what is captured is not answered any more once another weir has been told what that is: who asks then, is
//! to ask that one. Questions are answered as ever.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::running::Running;

/// A handler whose change goes on after its answer takes the [`crate::running::Change`] from the request's extensions.
pub(super) async fn check(State(running): State<Arc<Running>>, mut request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    let Some(change) = running.changes.begin() else {
        let detail = "another weir is taking this one's place; ask again in a moment";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).for_now().into_response();
    };
    request.extensions_mut().insert(change.clone());
    let response = next.run(request).await;
    drop(change);
    response
}
