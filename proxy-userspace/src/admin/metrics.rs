//! GET /metrics: Prometheus text format.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;

use super::resources::{About, Resources};
use super::{guard, problem};
use crate::redirect::RuleState;
use crate::running::{Capture, Running};
use crate::telemetry::metrics::{prometheus, write_metric};

pub(super) fn routes() -> Resources {
    let about = About::new("Metrics in Prometheus' text format").with_media("text/plain");
    Resources::new().get("/metrics", metrics, about)
}

/// The metrics alone, for their own port.
pub(super) fn alone(address: SocketAddr, running: Arc<Running>) -> Router {
    let allowed = guard::AllowedHosts::of(address);
    Router::new()
        .route("/metrics", axum::routing::get(metrics))
        .fallback(problem::no_such_resource)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(from_fn_with_state(allowed, guard::check))
        .with_state(running)
}

async fn metrics(State(running): State<Arc<Running>>) -> impl IntoResponse {
    let mut text = prometheus();
    let active = running.admission.open() as u64;
    write_metric(&mut text, "active_connections", "Downstream connections that are open.", "gauge", active);
    let uptime = running.started.elapsed().as_secs();
    write_metric(&mut text, "uptime_seconds", "Seconds since the start.", "gauge", uptime);
    let contexts = running.auth.contexts.count() as u64;
    write_metric(&mut text, "contexts", "Contexts that have been made and not released.", "gauge", contexts);
    let services = running.services.table().services().len() as u64;
    write_metric(&mut text, "services", "Apps that the gateway serves.", "gauge", services);
    super::backends::write_metrics(&running, &mut text);
    super::cache::write_metrics(&running, &mut text);
    super::execute::write_metrics(&running, &mut text);
    if let Capture::On(redirect) = &*running.capture() {
        for (name, value) in redirect.counters().iter() {
            let help = "Decisions of the kernel half; the name says which.";
            write_metric(&mut text, &format!("kernel_{name}_total"), help, "counter", value);
        }
        write_rules(&mut text, &redirect.rules());
    }
    write_reloads(&mut text, &running);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

fn write_reloads(text: &mut String, running: &Running) {
    let reloads = running.reloads();
    let write = write_metric;
    write(
        text,
        "config_reloads_total",
        "Configurations put in force after the start.",
        "counter",
        reloads.reloads,
    );
    let help = "Configurations that were wrong; the one in force stayed.";
    write(text, "config_reload_failures_total", help, "counter", reloads.failures);
    let help = "1 unless the configuration was wrong when it was read last.";
    write(text, "config_last_reload_successful", help, "gauge", reloads.last_error.is_none().into());
}

/// One series a rule, so at most as many as there may be rules. They begin at 0 when rules are read again.
fn write_rules(text: &mut String, rules: &[RuleState]) {
    let name = "weir_capture_rule_hits_total";
    if !rules.is_empty() {
        let help = "Connections for which the rule was the first to match.";
        // Writing to a String does not fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n");
    }
    for rule in rules {
        // The configuration admits no name that would have to be escaped.
        let _ = writeln!(text, "{name}{{rule=\"{}\",action=\"{}\"}} {}", rule.name, rule.action, rule.hits);
    }
}
