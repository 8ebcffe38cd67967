//! POST /proxy/configure-system and /proxy/unconfigure-system: the system uses this weir, or what it used before.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::object::{BadObject, Object};
use super::problem::Problem;
use super::resources::{About, Resources, asked, object};
use crate::running::{Running, Wish};
use crate::sysproxy::{Configured, Refused, Restored};

pub(super) fn changes() -> Resources {
    let interface = json!({ "type": ["string", "null"] });
    let configure = About::new("Makes weir the system's proxy, and keeps what there was")
        .body(asked(&json!({ "interface": interface }), &[]))
        .answers(object(&json!({
            "configured": { "const": true }, "interface": interface,
            "proxy_target": { "type": "string" }, "original_state": { "type": "object" },
        })))
        .may_fail(&[500, 503]);
    let unconfigure = About::new("Gives the system the proxy settings back that it had")
        .answers(object(&json!({
            "restored": { "const": true }, "interface": interface, "restored_to": { "type": "object" },
        })))
        .may_fail(&[500, 503]);
    Resources::new().post("/proxy/configure-system", configure_system, configure).post(
        "/proxy/unconfigure-system",
        unconfigure_system,
        unconfigure,
    )
}

/// For `GET /proxy/status`.
pub(super) fn status(running: &Running) -> Value {
    let state = running.system_proxy.state();
    let configured = state.configured.as_ref();
    json!({
        "configured": configured.is_some(),
        "interface": configured.and_then(|configured| configured.interface.clone()),
        "proxy_target": configured.map(|configured| &configured.proxy_target),
        "backends": configured.map_or(&[][..], |configured| &configured.backends),
        "warnings": configured.map_or(&state.warnings, |configured| &configured.warnings),
    })
}

/// As part of what `POST /proxy/start` tells.
pub(super) fn started(configured: &Configured) -> Value {
    json!({
        "configured": true, "interface": configured.interface, "original_state": configured.original_state,
    })
}

/// As part of what `POST /proxy/stop` tells.
pub(super) fn stopped(restored: &Restored) -> Value {
    json!({ "restored": true, "interface": restored.interface, "restored_to": restored.restored_to })
}

pub(super) fn problem(refused: &Refused) -> Problem {
    let status = match refused {
        Refused::AlreadyOurs(_) | Refused::NotOurs => StatusCode::CONFLICT,
        Refused::NotRunning => StatusCode::SERVICE_UNAVAILABLE,
        Refused::NoInterface(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refused::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Problem::new(status, refused.to_string())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Default: that of the default route.
    interface: Option<String>,
}

async fn configure_system(
    State(running): State<Arc<Running>>,
    wanted: Result<Option<Object<Wanted>>, BadObject>,
) -> Result<Json<Value>, Problem> {
    let wanted = wanted.map_err(|error| Problem::new(error.status(), error.body_text()))?;
    let Wanted { interface } = wanted.map(|Object(wanted)| wanted).unwrap_or_default();
    let (answer, answered) = oneshot::channel();
    let done = running.ask(Wish::ConfigureSystem { interface, answer }, answered).await;
    let configured = done.ok_or_else(Problem::of_replaced)?.map_err(|refused| problem(&refused))?;
    let mut told = started(&configured);
    told["proxy_target"] = configured.proxy_target.into();
    Ok(Json(told))
}

async fn unconfigure_system(State(running): State<Arc<Running>>) -> Result<Json<Value>, Problem> {
    let (answer, answered) = oneshot::channel();
    let done = running.ask(Wish::UnconfigureSystem(answer), answered).await;
    let restored = done.ok_or_else(Problem::of_replaced)?.map_err(|refused| problem(&refused))?;
    Ok(Json(stopped(&restored)))
}
