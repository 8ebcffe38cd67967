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
use crate::running::{NotUpgraded, Running, Upgrade};

pub(super) fn changes() -> Router<Arc<Running>> {
    Router::new().route("/upgrade", post(answer))
}

/// Over TCP, whatever token is given: who may have any program run in weir's place is weir's user.
pub(super) fn refused() -> Router<Arc<Running>> {
    let problem = || {
        Problem::new(
            StatusCode::FORBIDDEN,
            "this is answered on the Unix socket only (`weir upgrade` without --admin, or with the socket's path)",
        )
    };
    Router::new().route("/upgrade", post(async move || problem()))
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
        false if body.trim_ascii_start().first() != Some(&b'{') => {
            return Err(bad("the body is no JSON object".into()));
        }
        false => serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?,
    };
    if binary.as_ref().is_some_and(|binary| !binary.is_absolute()) {
        return Err(bad("the binary's path must begin with `/`".into()));
    }
    let (answer, answered) = oneshot::channel();
    let asked = running.upgrades.try_send(Upgrade { binary, answer });
    let under_way = |error: NotUpgraded| Problem::new(StatusCode::CONFLICT, error.to_string());
    asked.map_err(|_| under_way(NotUpgraded::UnderWay))?;
    match answered.await {
        Ok(Ok(pid)) => Ok(Json(json!({ "pid": pid }))),
        Ok(Err(error @ NotUpgraded::UnderWay)) => Err(under_way(error)),
        Ok(Err(NotUpgraded::Failed(reason))) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, reason)),
        Err(_) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "weir is stopping".to_owned())),
    }
}
