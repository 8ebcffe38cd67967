//! GET /capture: what is captured. POST /capture/exec: a cgroup for one program (`weir exec`).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::problem::Problem;
use super::status;
use crate::app::{Capture, Running};
use crate::redirect::ExecCgroup;

/// How long a new cgroup may stay empty: the program that asked for it moves in at once, or never.
const MOVE_IN: Duration = Duration::from_secs(10);

/// How often it is looked whether a cgroup is empty.
const LOOK: Duration = Duration::from_millis(250);

pub(super) fn questions() -> Router<Arc<Running>> {
    Router::new().route("/capture", get(async |State(running): State<Arc<Running>>| Json(status::capture(&running))))
}

pub(super) fn changes() -> Router<Arc<Running>> {
    Router::new().route("/capture/exec", post(exec))
}

async fn exec(State(running): State<Arc<Running>>) -> Result<(StatusCode, Json<Value>), Problem> {
    let cgroup = {
        let capture = running.capture();
        let redirect = match &*capture {
            Capture::On(redirect) => redirect,
            Capture::Off => return Err(unavailable("capture.mode is off")),
            Capture::Detached => return Err(unavailable("weir is stopping")),
            Capture::Unavailable(error) => return Err(unavailable(&error.to_string())),
        };
        redirect.create_exec_cgroup().map_err(|error| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("can't make a cgroup for it: {error}"))
        })?
    };
    let answer = json!({ "cgroup": cgroup.path(), "id": cgroup.id() });
    tokio::spawn(remove_when_empty(cgroup, running));
    Ok((StatusCode::CREATED, Json(answer)))
}

fn unavailable(reason: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("nothing can be captured: {reason}"))
}

/// Waits until everybody has left the cgroup, and takes it away.
pub(crate) async fn remove_when_empty(cgroup: ExecCgroup, running: Arc<Running>) {
    let moved_in = async {
        while !cgroup.is_populated() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(MOVE_IN, moved_in).await.is_ok() {
        while cgroup.is_populated() {
            tokio::time::sleep(LOOK).await;
        }
    }
    if let Capture::On(redirect) = &*running.capture()
        && let Err(error) = redirect.remove_exec_cgroup(&cgroup)
    {
        tracing::warn!(%error, cgroup = %cgroup.path().display(), "can't remove the cgroup of a captured program");
    }
}
