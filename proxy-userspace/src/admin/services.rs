//! /services: the apps that the gateway serves. GET tells of all, POST adds one, DELETE /services/{name} removes one that
//! was added.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::object::{BadObject, Object};
use super::problem::Problem;
use super::resources::{About, Resources, asked, object};
use crate::running::Running;
use crate::services::{NotAService, page};

pub(super) fn changes() -> Resources {
    let text = json!({ "type": "string" });
    let wanted = asked(
        &json!({ "name": text, "target": text, "framework": { "type": ["string", "null"] } }),
        &["name", "target"],
    );
    let one = || {
        object(&json!({
            "id": { "type": "string" }, "name": { "type": "string" }, "framework": { "type": "string" },
            "state": { "type": "string" }, "from": { "type": "string" }, "url": { "type": ["string", "null"] },
        }))
    };
    let all = object(&json!({ "services": { "type": "array" } }));
    let removed = object(&json!({ "removed": { "type": "string" } }));
    let add = About::new("An app more for the gateway").body(wanted).with_status(201).answers(one());
    Resources::new()
        .get("/services", list, About::new("The apps that the gateway serves").answers(all))
        .post("/services", self::add, add.may_fail(&[503]))
        .delete("/services/{name}", remove, About::new("An app less").answers(removed))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// What URLs call it.
    name: String,
    /// `http://host:port`
    target: String,
    framework: Option<String>,
}

async fn list(State(running): State<Arc<Running>>) -> Json<Value> {
    Json(page::list(&running.services.table()))
}

async fn add(
    State(running): State<Arc<Running>>,
    wanted: Result<Object<Wanted>, BadObject>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let Object(wanted) = wanted.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let added = running.services.add(&wanted.name, &wanted.target, wanted.framework.as_deref());
    let service = added.map_err(|error| {
        let status = match error {
            NotAService::Taken(_) => StatusCode::CONFLICT,
            NotAService::TooMany => StatusCode::SERVICE_UNAVAILABLE,
            NotAService::Name(_) | NotAService::Target(_) | NotAService::Framework(_) => {
                StatusCode::BAD_REQUEST
            }
        };
        Problem::new(status, error.to_string())
    })?;
    let table = running.services.table();
    Ok((StatusCode::CREATED, Json(page::about(&service, table.prefix().unwrap_or_default()))))
}

async fn remove(
    State(running): State<Arc<Running>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    if running.services.remove(&name).is_some() {
        return Ok(Json(json!({ "removed": name })));
    }
    Err(match running.services.table().find(&name) {
        None => Problem::new(StatusCode::NOT_FOUND, format!("there is no service {name}")),
        Some(_) => Problem::new(
            StatusCode::CONFLICT,
            format!("{name} was not added here: remove it from services.apps"),
        ),
    })
}
