//! /backends: the groups of routing.backends, and how their members are. GET tells, POST changes one member.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::object::{BadObject, Object};
use super::problem::Problem;
use super::resources::{About, Resources, asked, object};
use crate::config::MAX_WEIGHT;
use crate::route::{Group, Member, Table};
use crate::running::Running;

pub(super) fn questions() -> Resources {
    let about = About::new("Groups of backends, and how their members are").answers(told());
    Resources::new().get("/backends", list, about)
}

pub(super) fn changes() -> Resources {
    let changes = json!({
        "backend": { "type": "string" },
        "member": { "type": "string" },
        "drain": { "type": "boolean", "description": "no new requests, or some again" },
        "weight": { "type": "integer", "minimum": 0, "maximum": MAX_WEIGHT },
    });
    let about = About::new("Drains a member, enables it, or gives it another weight, until the configuration says something new of it")
        .body(asked(&changes, &["backend", "member"]))
        .answers(told());
    Resources::new().post("/backends", change, about)
}

fn told() -> Value {
    object(&json!({ "backends": { "type": "array" } }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    backend: String,
    member: String,
    drain: Option<bool>,
    weight: Option<u32>,
}

async fn list(State(running): State<Arc<Running>>) -> Json<Value> {
    Json(all(&running.live().routes))
}

async fn change(
    State(running): State<Arc<Running>>,
    change: Result<Object<Change>, BadObject>,
) -> Result<Json<Value>, Problem> {
    let Object(change) = change.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let live = running.live();
    let missing = |what: String| Problem::new(StatusCode::NOT_FOUND, what);
    let group = live.routes.group(&change.backend);
    let group = group.ok_or_else(|| missing(format!("there is no backend `{}`", change.backend)))?;
    let member = group.members().iter().find(|member| *member.name == *change.member);
    let member =
        member.ok_or_else(|| missing(format!("{} has no member `{}`", change.backend, change.member)))?;
    if change.weight.is_some_and(|weight| weight > MAX_WEIGHT) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, format!("`weight` is at most {MAX_WEIGHT}")));
    }
    if (change.drain, change.weight) == (None, None) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "give `drain`, `weight`, or both"));
    }
    if let Some(weight) = change.weight {
        member.set_weight(weight);
    }
    if let Some(drains) = change.drain {
        member.drain(drains);
    }
    group.look_again();
    tracing::info!(
        backend = change.backend,
        member = change.member,
        drain = member.is_draining(),
        weight = member.weight(),
        "a member was changed"
    );
    Ok(Json(all(&live.routes)))
}

fn all(routes: &Table) -> Value {
    let mut groups: Vec<_> = routes.groups().collect();
    groups.sort_by(|one, other| one.settings.name.cmp(&other.settings.name));
    json!({ "backends": groups.into_iter().map(|group| of_group(group)).collect::<Vec<_>>() })
}

fn of_group(group: &Group) -> Value {
    let retries = group.retries();
    json!({
        "name": group.settings.name,
        "balance": group.settings.balance.name(),
        "waiting": group.waiting(),
        "retries": retries.0,
        "retries_denied": retries.1,
        "members": group.members().iter().map(|member| of_member(member)).collect::<Vec<_>>(),
    })
}

fn of_member(member: &Member) -> Value {
    let counts = member.counts();
    json!({
        "name": member.name,
        "url": member.server.to_string(),
        "state": member.state().name(),
        "weight": member.weight(),
        "active": member.active(),
        "requests": counts.requests,
        "failures": counts.failures,
        "ejections": counts.ejections,
        "breaker_openings": counts.openings,
        "check": member.complaint(),
    })
}

/// A metric of members, or of groups: name, type, what it means, and its value.
type Series<T> = (&'static str, &'static str, &'static str, fn(&T) -> u64);

const MEMBERS: [Series<Member>; 6] = [
    ("backend_healthy", "gauge", "1 if the member is fit to be asked, drained or not.", |member| {
        member.is_healthy().into()
    }),
    ("backend_active_requests", "gauge", "Requests and tunnels that the member has under way.", |member| {
        member.active() as u64
    }),
    ("backend_requests_total", "counter", "Requests sent to the member.", |member| member.counts().requests),
    ("backend_failures_total", "counter", "Those that failed, by connection or status.", |member| {
        member.counts().failures
    }),
    ("backend_ejections_total", "counter", "How often it was ejected for failures in a row.", |member| {
        member.counts().ejections
    }),
    ("backend_breaker_openings_total", "counter", "How often its breaker has opened.", |member| {
        member.counts().openings
    }),
];

const GROUPS: [Series<Group>; 3] = [
    ("backend_waiting_requests", "gauge", "Requests that wait for a member.", |group| group.waiting() as u64),
    ("backend_retries_total", "counter", "Requests sent to another member.", |group| group.retries().0),
    ("backend_retries_denied_total", "counter", "Those for which the budget had nothing left.", |group| {
        group.retries().1
    }),
];

/// A few series for each member; the configuration bounds how many there are, and admits no names that would have to be
/// escaped.
pub(super) fn write_metrics(running: &Running, text: &mut String) {
    let routes = &running.live().routes;
    if routes.groups().next().is_none() {
        return;
    }
    // Writing to a String does not fail.
    for (name, kind, help, value) in MEMBERS {
        let _ = write!(text, "# HELP weir_{name} {help}\n# TYPE weir_{name} {kind}\n");
        for group in routes.groups() {
            for member in group.members() {
                let labels = format!("backend=\"{}\",member=\"{}\"", group.settings.name, member.name);
                let _ = writeln!(text, "weir_{name}{{{labels}}} {}", value(member));
            }
        }
    }
    for (name, kind, help, value) in GROUPS {
        let _ = write!(text, "# HELP weir_{name} {help}\n# TYPE weir_{name} {kind}\n");
        for group in routes.groups() {
            let _ = writeln!(text, "weir_{name}{{backend=\"{}\"}} {}", group.settings.name, value(group));
        }
    }
}
