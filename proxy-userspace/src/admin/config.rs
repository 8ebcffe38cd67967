//! GET /config: the configuration as it was read last, without secrets. POST /config/reload: it is read again, and what can
//! change while weir runs is put in force.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::problem::Problem;
use crate::running::{Reloaded, Running, Wish};

pub(super) fn for_owner() -> Router<Arc<Running>> {
    Router::new().route("/config", get(show)).route("/config/reload", post(reload))
}

async fn show(State(running): State<Arc<Running>>) -> Json<Value> {
    let (live, reloads) = (running.live(), running.reloads());
    Json(json!({ "keys": live.effective.json_with_origins(), "reloads": reloads }))
}

async fn reload(State(running): State<Arc<Running>>) -> Result<Json<Reloaded>, Problem> {
    let (answer, answered) = oneshot::channel();
    let reloaded = running.ask(Wish::Reload(answer), answered).await.ok_or_else(Problem::of_replaced)?;
    let wrong = |error: crate::running::NotReloaded| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
    };
    reloaded.map(Json).map_err(wrong)
}
