//! GET /capture/existing: connections that were there before capture. POST /capture/recapture: ends them.

use std::io;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::problem::Problem;
use super::resources::{About, Resources, object};
use crate::redirect::Redirect;
use crate::running::{Capture, Running};

/// On the Unix socket only: it tells where everybody's programs are connected to.
pub(super) fn for_owner() -> Resources {
    let told = object(&json!({ "sockets": { "type": "array" } }));
    let about = |summary| About::new(summary).may_fail(&[503]);
    Resources::new()
        .get("/capture/existing", existing, about("Connections from before capture").answers(told))
        .post("/capture/recapture", recapture, about("Ends them").answers(object(&json!({}))))
}

async fn existing(State(running): State<Arc<Running>>) -> Result<Json<Value>, Problem> {
    look(running, |redirect| Ok(json!({ "sockets": redirect.existing()? }))).await
}

async fn recapture(State(running): State<Arc<Running>>) -> Result<Json<Value>, Problem> {
    look(running, |redirect| Ok(json!(redirect.recapture()?))).await
}

/// All of /proc is read: not on the thread that answers.
async fn look(
    running: Arc<Running>,
    look: impl FnOnce(&Redirect) -> io::Result<Value> + Send + 'static,
) -> Result<Json<Value>, Problem> {
    let looked = tokio::task::spawn_blocking(move || match &*running.capture() {
        Capture::On(redirect) => look(redirect),
        _ => Err(io::Error::other("nothing is captured")),
    });
    let failed = |error: &dyn std::fmt::Display| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("can't look for connections: {error}"))
    };
    match looked.await {
        Ok(result) => result.map(Json).map_err(|error| failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}
