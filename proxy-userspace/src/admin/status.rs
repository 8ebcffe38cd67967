//! GET /proxy/status

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::resources::{About, Resources, object};
use crate::privilege::{self, Assistant};
use crate::running::{Capture, Running};
use crate::telemetry::metrics;

pub(super) fn routes() -> Resources {
    let reloads = object(&json!({
        "reloads": { "type": "integer" }, "failures": { "type": "integer" },
        "last_error": { "type": ["string", "null"] }, "needs_restart": { "type": "array" },
    }));
    let status_of = object(&json!({
        "running": { "type": "boolean" }, "port": { "type": ["integer", "null"] },
        "proxy_url": { "type": ["string", "null"] }, "request_count": { "type": "integer" },
        "bytes_forwarded": { "type": "integer" }, "active_connections": { "type": "integer" },
        "uptime_seconds": { "type": "integer" }, "capture": { "type": "object" }, "config": reloads,
        "version": { "type": "string" }, "pid": { "type": "integer" },
    }));
    let about = About::new("Whether and where the proxy runs, and what it has done").answers(status_of);
    Resources::new().get("/proxy/status", status, about)
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

/// Why the kernel half holds weir for dead, if it does.
fn lifeless(running: &Running) -> Option<String> {
    let (age, most) = (running.beats.age(), running.config().capture.heartbeat_timeout);
    (age > most).then(|| {
        format!(
            "one of weir's threads has shown no life for {} ms: `capture.fail` decides about new connections until it \
             does; if it stays so, start weir again",
            age.as_millis()
        )
    })
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
            state.problems.extend(running.targets.problems());
            state.problems.extend(lifeless(running));
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
