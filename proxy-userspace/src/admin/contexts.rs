//! /contexts: identities for one client each. POST makes one, GET tells of all, DELETE /contexts/{id} releases one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::object::{BadObject, Object};
use super::problem::Problem;
use super::resources::{About, Resources, asked, object};
use crate::config;
use crate::policy::Policy;
use crate::policy::auth::{Context, Identity, NewContext};
use crate::policy::rewrite::{NoRoute, Route};
use crate::running::Running;

/// The longest label, in bytes.
const MAX_LABEL: usize = 256;

pub(super) fn changes() -> Resources {
    let count = json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX });
    let rate = json!({ "type": ["integer", "string", "null"] });
    let may_be_left_out = json!({ "anyOf": [count, { "type": "null" }] });
    let limits = asked(
        &json!({
            "requests_per_second": may_be_left_out, "burst": may_be_left_out, "upload": rate, "download": rate,
        }),
        &[],
    );
    let wanted = asked(
        &json!({
            "web_contents_id": { "type": ["integer", "null"], "minimum": 0 },
            "label": { "type": ["string", "null"] },
            "ttl": { "type": ["integer", "string", "null"] },
            "policy": { "type": ["object", "null"] },
            "limits": { "anyOf": [limits, { "type": "null" }] },
            "intercept": { "type": ["boolean", "null"] },
            "route": { "type": ["object", "null"], "additionalProperties": { "type": "string" } },
        }),
        &[],
    );
    let made = object(&json!({
        "id": { "type": "string" }, "username": { "type": "string" }, "password": { "type": "string" },
        "web_contents_id": { "type": ["integer", "null"] },
    }));
    let about = About::new("Makes a context").body(wanted).with_status(201).answers(made).may_fail(&[503]);
    let told = object(&json!({ "contexts": { "type": "array" } }));
    let released = object(&json!({ "released": { "type": "string" }, "username": { "type": "string" } }));
    Resources::new()
        .get("/contexts", list, About::new("All contexts, without passwords").answers(told))
        .post("/contexts", create, about)
        .delete("/contexts/{id}", release, About::new("Releases a context").answers(released))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    web_contents_id: Option<u64>,
    label: Option<Box<str>>,
    /// Seconds, or a duration such as 10min.
    ttl: Option<Value>,
    /// `acl.rules` and `filtering`, as below `security` in the configuration.
    policy: Option<Value>,
    limits: Option<WantedLimits>,
    /// Whether its TLS is intercepted; default: as rules of `tls.intercept` have it.
    intercept: Option<bool>,
    /// The variables of a template, and the `template`, if it is not that of cmux.
    route: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedLimits {
    /// Default: as the configuration has it, and so are the others.
    requests_per_second: Option<u32>,
    /// Default: as many as in a second.
    burst: Option<u32>,
    /// Bytes a second, or a size such as 1MiB: what it may send.
    upload: Option<Value>,
    /// The same for what it may get.
    download: Option<Value>,
}

impl WantedLimits {
    fn checked(&self) -> Result<config::RateLimiting, String> {
        if self.requests_per_second == Some(0) || self.burst == Some(0) {
            return Err("limits: 0 requests; a context that may do nothing need not be made".to_owned());
        }
        if self.burst.is_some() && self.requests_per_second.is_none() {
            return Err("limits: `burst` without `requests_per_second`".to_owned());
        }
        let rate = |name: &str, wanted: &Option<Value>| {
            match wanted {
                None => Ok(0),
                Some(Value::Number(bytes)) => bytes.as_u64().filter(|bytes| *bytes > 0).ok_or(()),
                Some(Value::String(text)) => config::size_of(text).filter(|bytes| *bytes > 0).ok_or(()),
                Some(_) => Err(()),
            }
            .map_err(|()| format!("limits: {name}: bytes a second, or a size such as \"1MiB\""))
        };
        let requests = self.requests_per_second.unwrap_or(1);
        Ok(config::RateLimiting {
            enabled: self.requests_per_second.is_some(),
            requests_per_second: requests,
            burst: self.burst.unwrap_or(requests),
            upload: rate("upload", &self.upload)?,
            download: rate("download", &self.download)?,
        })
    }
}

async fn create(
    State(running): State<Arc<Running>>,
    wanted: Result<Object<Wanted>, BadObject>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let bad = |reason: String| Problem::new(StatusCode::BAD_REQUEST, reason);
    let Object(wanted) = wanted.map_err(|error| bad(error.body_text()))?;
    let settings = running.policy.latest().auth.clone();
    if settings.mode == config::AuthMode::Off {
        let why = "security.auth.mode is off, so nobody could use a context; set it to optional or required";
        return Err(Problem::new(StatusCode::CONFLICT, why));
    }
    if wanted.label.as_ref().is_some_and(|label| label.len() > MAX_LABEL) {
        return Err(bad(format!("label: longer than {MAX_LABEL} bytes")));
    }
    let route = wanted.route.map(route).transpose().map_err(|why| bad(format!("route: {why}")))?;
    let limit = wanted.limits.as_ref().map(WantedLimits::checked).transpose().map_err(bad)?;
    if wanted.intercept == Some(true) && !running.config().tls.intercept.enabled {
        let why = "intercept: tls.intercept.enabled is off, so there is no authority for it; turn it on and restart";
        return Err(Problem::new(StatusCode::CONFLICT, why));
    }
    let ttl = wanted.ttl.as_ref().map(ttl).transpose().map_err(bad)?;
    let policy = match wanted.policy {
        // A list of its own may be long.
        Some(policy) => Some(tokio::task::spawn_blocking(move || read_policy(&policy)).await),
        None => None,
    };
    let policy = policy.map(|read| read.unwrap_or_else(|_| Err("weir is stopping".to_owned())));
    let policy = policy.transpose().map_err(|why| bad(format!("policy: {why}")))?;
    let new = NewContext {
        web_contents_id: wanted.web_contents_id,
        label: wanted.label,
        ttl: ttl.or(Some(settings.context_ttl).filter(|ttl| !ttl.is_zero())),
        policy,
        route,
        intercept: wanted.intercept,
        limit,
    };
    let created = running
        .auth
        .contexts
        .create(new, settings.max_contexts)
        .map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let context = created.identity.context.as_ref();
    Ok((
        StatusCode::CREATED,
        Json(json!({
            "id": context.map(|context| &context.id),
            "username": created.identity.name,
            "password": created.password,
            "web_contents_id": context.and_then(|context| context.web_contents_id),
        })),
    ))
}

async fn list(State(running): State<Arc<Running>>) -> Json<Value> {
    let all = running.auth.contexts.list();
    let shown = all.iter().filter_map(|identity| Some(show(identity, identity.context.as_ref()?)));
    Json(json!({ "contexts": shown.collect::<Vec<_>>() }))
}

async fn release(
    State(running): State<Arc<Running>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let grace = running.policy.latest().auth.release_grace;
    match running.auth.contexts.release(&id, grace) {
        Some(identity) => Ok(Json(json!({ "released": id, "username": identity.name }))),
        None => Err(Problem::new(StatusCode::NOT_FOUND, format!("there is no context {id}"))),
    }
}

fn show(identity: &Identity, context: &Context) -> Value {
    let counters = &context.counters;
    let left = context.expires.map(|expires| expires.saturating_duration_since(Instant::now()).as_secs());
    json!({
        "id": context.id, "username": identity.name, "label": context.label,
        "web_contents_id": context.web_contents_id, "created_ms": context.created_ms,
        "expires_in_seconds": left, "has_policy": context.policy.is_some(), "has_route": context.route.is_some(),
        "intercept": context.intercept,
        "flows": counters.flows.load(Ordering::Relaxed), "denied": counters.denied.load(Ordering::Relaxed),
        "sent_bytes": counters.sent_bytes.load(Ordering::Relaxed),
        "received_bytes": counters.received_bytes.load(Ordering::Relaxed),
    })
}

fn route(mut wanted: BTreeMap<String, String>) -> Result<Route, NoRoute> {
    let template = wanted.remove("template");
    let variables: Vec<_> = wanted.into_iter().collect();
    Route::new(template.as_deref(), &variables)
}

fn ttl(value: &Value) -> Result<Duration, String> {
    let found = match value {
        Value::Number(seconds) => seconds.as_u64().map(Duration::from_secs),
        Value::String(text) => config::duration_of(text),
        _ => None,
    };
    found
        .filter(|ttl| !ttl.is_zero())
        .ok_or_else(|| "ttl: seconds, or a duration such as \"10min\"".to_owned())
}

fn read_policy(policy: &Value) -> Result<Policy, String> {
    let security = config::security_of(&policy.to_string()).map_err(|errors| errors.to_string())?;
    Policy::load(&security).map_err(|error| error.to_string())
}
