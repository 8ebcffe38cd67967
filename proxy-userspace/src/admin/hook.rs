//! POST /capture/hook: a container runtime tells of a container before it starts it (see `weir oci-hook`).

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::object::{BadObject, Object};
use super::problem::Problem;
use crate::capture;
use crate::running::Running;

pub(super) fn changes() -> Router<Arc<Running>> {
    Router::new().route("/capture/hook", post(hook))
}

/// The part of the runtime's state that is needed (OCI runtime specification, "State").
#[derive(Debug, Deserialize)]
struct Told {
    id: String,
    pid: u32,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

/// Who manages a container; podman calls itself libpod here.
const MANAGER: (&str, &str) = ("io.container.manager", "libpod");

async fn hook(
    State(running): State<Arc<Running>>,
    told: Result<Object<Told>, BadObject>,
) -> Result<Json<Value>, Problem> {
    let told = told.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()));
    let Object(Told { id, pid, annotations }) = told?;
    let is_podmans = annotations.get(MANAGER.0).is_some_and(|manager| manager == MANAGER.1);
    let starting = capture::Starting { id, pid, is_podmans };
    match capture::about_to_start(&running, &starting).await {
        Ok(selector) => Ok(Json(json!({ "target": selector.map(|selector| selector.to_string()) }))),
        Err(capture::HookError::Replaced) => Err(Problem::of_replaced()),
        Err(error) => {
            tracing::warn!("container {} starts uncaptured: {error}", starting.id);
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
        }
    }
}
