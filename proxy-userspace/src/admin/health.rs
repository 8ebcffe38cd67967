//! GET /health/liveness, /health/readiness, /health/startup

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::config::CaptureMode;
use crate::running::{Capture, Running};

pub(super) fn routes() -> Router<Arc<Running>> {
    Router::new()
        .route("/health/liveness", get(liveness))
        .route("/health/readiness", get(readiness))
        .route("/health/startup", get(startup))
}

/// That this is answered is the answer.
async fn liveness() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// The API is served only after everything was started.
async fn startup() -> Json<Value> {
    Json(json!({ "status": "started" }))
}

/// Ready as far as the data plane itself says so: all workers tick, and what must be captured is.
async fn readiness(State(running): State<Arc<Running>>) -> (StatusCode, Json<Value>) {
    let mut reasons = Vec::new();
    let age = running.beats.age();
    if age > running.started.elapsed() {
        reasons.push("not all workers run yet".to_owned());
    } else if age > running.config().capture.heartbeat_timeout {
        reasons.push(format!("a worker has not ticked for {} ms", age.as_millis()));
    }
    match &*running.capture() {
        Capture::Detached => reasons.push("weir is stopping".to_owned()),
        Capture::On(redirect) if !redirect.is_attached() => {
            reasons.push("the kernel half is not attached everywhere; see /proxy/status".to_owned());
        }
        Capture::Unavailable(error) if running.config().capture.mode == CaptureMode::Required => {
            reasons.push(error.to_string());
        }
        Capture::On(_) | Capture::Off | Capture::Unavailable(_) => {}
    }
    match reasons.is_empty() {
        true => (StatusCode::OK, Json(json!({ "status": "ready" }))),
        false => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "not ready", "reasons": reasons })))
        }
    }
}
