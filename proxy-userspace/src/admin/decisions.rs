//! GET /capture/events: each decision of the kernel half from now on, as NDJSON.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::StreamExt as _;
use tokio::sync::broadcast::error::RecvError;

use super::Replaced;
use super::problem::Problem;
use crate::redirect::Decision;
use crate::running::{Capture, Running};

pub(super) fn routes() -> Router<Arc<Running>> {
    Router::new().route("/capture/events", get(follow))
}

/// Ends when another weir has taken this one's place: that one decides then.
async fn follow(
    State(running): State<Arc<Running>>,
    Extension(replaced): Extension<Replaced>,
) -> Result<Response, Problem> {
    let live = running.following.follow();
    let told = match &mut *running.capture() {
        Capture::On(redirect) => redirect.tell_decisions(true).map_err(|error| error.to_string()),
        _ => Err("nothing is captured, so nothing is decided".to_owned()),
    };
    told.map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error))?;
    let stream = futures_util::stream::unfold((live, true), |(mut live, first)| async move {
        if first {
            // So that the follower knows when it has begun.
            return Some((Ok::<_, Infallible>(Bytes::from_static(b"\n")), (live, false)));
        }
        loop {
            match live.recv().await {
                Ok(decision) => return Some((Ok(line(&decision)), (live, false))),
                // A follower that is too slow misses some.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let stream = stream.take_until(replaced.wait());
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response())
}

fn line(decision: &Decision) -> Bytes {
    // Plain data: serialising it does not fail.
    let mut line = serde_json::to_vec(decision).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
