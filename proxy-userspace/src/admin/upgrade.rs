//! POST /upgrade: another weir takes this one's place.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::problem::Problem;
use crate::running::{Running, Upgrade};

pub(super) fn changes() -> Router<Arc<Running>> {
    Router::new().route("/upgrade", post(answer))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// Default: as this one was started.
    binary: Option<PathBuf>,
}

/// The answer comes when it is done, from the old weir.
async fn answer(State(running): State<Arc<Running>>, body: Bytes) -> Result<Json<Value>, Problem> {
    let bad = |reason: String| Problem::new(StatusCode::BAD_REQUEST, reason);
    let Wish { binary } = match body.is_empty() {
        true => Wish::default(),
        false => serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?,
    };
    if binary.as_ref().is_some_and(|binary| !binary.is_absolute()) {
        return Err(bad("the binary's path must begin with `/`".into()));
    }
    let (answer, answered) = oneshot::channel();
    let asked = running.upgrades.try_send(Upgrade { binary, answer });
    asked.map_err(|_| Problem::new(StatusCode::CONFLICT, "an upgrade is under way already".to_owned()))?;
    match answered.await {
        Ok(Ok(pid)) => Ok(Json(json!({ "pid": pid }))),
        Ok(Err(reason)) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, reason)),
        Err(_) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "weir is stopping".to_owned())),
    }
}
