//! GET /proxy/status

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::privilege::{self, Assistant};
use crate::running::{Capture, Running};
use crate::telemetry::metrics;

pub(super) fn routes() -> Router<Arc<Running>> {
    Router::new().route("/proxy/status", get(status))
}

async fn status(State(running): State<Arc<Running>>) -> Json<Value> {
    let proxy = running.live().proxy;
    Json(json!({
        "running": proxy.is_some(),
        "port": proxy.map(|proxy| proxy.port()),
        "proxy_url": proxy.map(|proxy| format!("http://{proxy}")),
        "request_count": metrics::sum(|worker| &worker.requests) + metrics::sum(|worker| &worker.tunnels),
        "bytes_forwarded": metrics::sum(|worker| &worker.sent_bytes) + metrics::sum(|worker| &worker.received_bytes),
        "active_connections": running.admission.open(),
        "uptime_seconds": running.started.elapsed().as_secs(),
        "heartbeat_age_ms": running.beats.age().as_millis(),
        "capture": capture(&running),
        "config": running.reloads(),
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "user": nix::unistd::geteuid().as_raw(),
        "capabilities": privilege::held(),
        "assistant": privilege::assistant().map(Assistant::pid),
        "sandbox": privilege::confinement(),
        "predecessors": running.predecessors.pids(),
    }))
}

/// What the kernel says, not what weir meant to do.
pub(super) fn capture(running: &Running) -> Value {
    match &*running.capture() {
        Capture::Off => json!({ "state": "off", "reason": "capture.mode is off" }),
        Capture::Unavailable(error) => json!({ "state": "unavailable", "reason": error.to_string() }),
        Capture::Detached => json!({ "state": "off", "reason": "weir is stopping" }),
        Capture::On(redirect) => {
            let mut state = redirect.state();
            state.problems.extend(running.namespaces.problems());
            let whole = if state.is_whole() { "on" } else { "degraded" };
            json!({
                "state": whole,
                "kernel": state,
                "counters": redirect.counters(),
                "namespaces": running.namespaces.state(),
            })
        }
    }
}
