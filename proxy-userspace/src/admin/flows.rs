//! GET /flows: the last flows as JSON, or all from now on as NDJSON.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::sync::broadcast::{self, error::RecvError};

use super::Replaced;
use super::problem::Problem;
use crate::net::deadline::TICK;
use crate::running::Running;
use crate::telemetry::flow::Flow;

pub(super) fn routes() -> Router<Arc<Running>> {
    Router::new().route("/flows", get(flows))
}

#[derive(Debug, Deserialize)]
struct Wanted {
    /// At most so many of the last flows.
    #[serde(default = "all")]
    count: usize,
    /// Only those of captured programs in this cgroup.
    cgroup: Option<u64>,
    /// Goes on with every new flow, a line each.
    #[serde(default)]
    follow: bool,
}

fn all() -> usize {
    usize::MAX
}

impl Wanted {
    fn wants(&self, flow: &Flow) -> bool {
        let cgroup = flow.client.process.as_ref().map(|process| process.cgroup);
        self.cgroup.is_none_or(|wanted| cgroup == Some(wanted))
    }
}

async fn flows(
    State(running): State<Arc<Running>>,
    Extension(replaced): Extension<Replaced>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(wanted) = wanted?;
    let live = wanted.follow.then(|| running.flows.follow());
    if live.is_none() {
        // What has just ended is still with its worker, until that ticks: whoever asks now wants to see it.
        tokio::time::sleep(TICK + TICK / 2).await;
    }
    let mut last = running.flows.last(usize::MAX);
    last.retain(|flow| wanted.wants(flow));
    last.drain(..last.len().saturating_sub(wanted.count));
    match live {
        None => Ok(Json(last).into_response()),
        Some(live) => Ok(follow(&last, live, wanted, replaced)),
    }
}

/// Ends when another weir has taken this one's place: that one is asked for all further flows.
fn follow(
    last: &[Arc<Flow>],
    live: broadcast::Receiver<Arc<Flow>>,
    wanted: Wanted,
    replaced: Replaced,
) -> Response {
    let start: Vec<u8> = last.iter().flat_map(|flow| line(flow)).collect();
    let stream =
        futures_util::stream::unfold((live, wanted, Some(start)), |(mut live, wanted, start)| async {
            if let Some(start) = start {
                return Some((Ok::<_, Infallible>(Bytes::from(start)), (live, wanted, None)));
            }
            loop {
                match live.recv().await {
                    Ok(flow) if wanted.wants(&flow) => {
                        return Some((Ok(Bytes::from(line(&flow))), (live, wanted, None)));
                    }
                    // A follower that is too slow misses flows; the ids show how many.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
    let stream = stream.take_until(replaced.wait());
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response()
}

fn line(flow: &Flow) -> Vec<u8> {
    // A flow is plain data: serialising it does not fail.
    let mut line = serde_json::to_vec(flow).unwrap_or_default();
    line.push(b'\n');
    line
}
