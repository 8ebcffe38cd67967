//! GET /explain: what would happen to a connection, by the same rules, and which of them decides.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::http::authority::{Authority, Host};
use crate::running::{Capture, Running};

pub(super) fn routes() -> Router<Arc<Running>> {
    Router::new().route("/explain", get(explain))
}

#[derive(Debug, Deserialize)]
struct Would {
    /// `host:port`.
    destination: String,
    /// The process that would connect.
    pid: Option<u32>,
}

async fn explain(
    State(running): State<Arc<Running>>,
    would: Result<Query<Would>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(would) = would?;
    let authority = Authority::parse(&would.destination, None).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("destination `{}`: {error}", would.destination))
    })?;
    let mut verdicts = Vec::new();
    for address in addresses(&authority).await? {
        let kernel = match would.pid {
            Some(pid) => Some(kernel_verdict(&running, pid, address)?),
            None => None,
        };
        let proxy = match running.acl.check(address) {
            Ok(()) => json!({ "verdict": "allow" }),
            Err(denied) => json!({ "verdict": "deny", "reason": denied.reason }),
        };
        verdicts.push(json!({ "address": address, "connect": kernel, "proxy": proxy }));
    }
    Ok(Json(json!({ "destination": authority.to_string(), "pid": would.pid, "verdicts": verdicts })))
}

/// What the kernel half would do with the process's connect().
fn kernel_verdict(running: &Running, pid: u32, address: SocketAddr) -> Result<Value, Problem> {
    let direct = |reason: &str| json!({ "verdict": "direct", "reason": reason });
    Ok(match &*running.capture() {
        Capture::Off => direct("capture.mode is off"),
        Capture::Detached => direct("weir is stopping"),
        Capture::Unavailable(error) => direct(&error.to_string()),
        Capture::On(redirect) => {
            let explained = redirect
                .explain(pid, address)
                .map_err(|error| Problem::new(StatusCode::NOT_FOUND, format!("process {pid}: {error}")))?;
            json!({ "verdict": explained.verdict, "reason": explained.reason })
        }
    })
}

async fn addresses(authority: &Authority) -> Result<Vec<SocketAddr>, Problem> {
    match &authority.host {
        Host::Address(address) => Ok(vec![SocketAddr::new(*address, authority.port)]),
        Host::Name(name) => {
            let found = tokio::net::lookup_host((&**name, authority.port)).await.map_err(|error| {
                Problem::new(StatusCode::BAD_REQUEST, format!("{name} could not be resolved: {error}"))
            })?;
            Ok(found.collect())
        }
    }
}
