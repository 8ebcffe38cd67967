//! GET /metrics: Prometheus text format.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::app::{Capture, Running};
use crate::telemetry::metrics::{prometheus, write_metric};

pub(super) fn routes() -> Router<Arc<Running>> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(State(running): State<Arc<Running>>) -> impl IntoResponse {
    let mut text = prometheus();
    let active = running.admission.open() as u64;
    write_metric(&mut text, "active_connections", "Downstream connections that are open.", "gauge", active);
    let uptime = running.started.elapsed().as_secs();
    write_metric(&mut text, "uptime_seconds", "Seconds since the start.", "gauge", uptime);
    if let Capture::On(redirect) = &*running.capture() {
        for (name, value) in redirect.counters().iter() {
            let help = "Decisions of the kernel half; the name says which.";
            write_metric(&mut text, &format!("kernel_{name}_total"), help, "counter", value);
        }
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
