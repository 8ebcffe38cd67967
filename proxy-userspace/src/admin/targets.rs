//! /capture/targets: what is captured by being named. GET tells, POST adds, DELETE removes.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::Value;

use super::capture::unavailable;
use super::object::{BadObject, Object};
use super::problem::Problem;
use crate::config::Selector;
use crate::containers::Origin;
use crate::running::{Capture, Running};

pub(super) fn changes() -> Router<Arc<Running>> {
    Router::new().route("/capture/targets", get(list).post(add).delete(remove))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    /// `KIND:VALUE`
    target: String,
}

async fn list(State(running): State<Arc<Running>>) -> Json<Value> {
    Json(running.targets.state())
}

async fn add(
    State(running): State<Arc<Running>>,
    named: Result<Object<Named>, BadObject>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let selector = selector(named)?;
    match &*running.capture_to_change().await {
        Capture::On(_) => running.targets.add(selector),
        Capture::Off => return Err(unavailable("capture.mode is off")),
        Capture::Detached => return Err(Problem::of_replaced()),
        Capture::Unavailable(error) => return Err(unavailable(&error.to_string())),
    }
    running.targets.look().await;
    Ok((StatusCode::CREATED, Json(running.targets.state())))
}

async fn remove(
    State(running): State<Arc<Running>>,
    named: Result<Object<Named>, BadObject>,
) -> Result<Json<Value>, Problem> {
    let selector = selector(named)?;
    let removed = match &*running.capture_to_change().await {
        Capture::Detached => return Err(Problem::of_replaced()),
        _ => running.targets.remove(&selector),
    };
    match removed {
        None => Err(Problem::new(StatusCode::NOT_FOUND, format!("{selector} is no target"))),
        Some(Origin::Config) => Err(Problem::new(
            StatusCode::CONFLICT,
            format!("{selector} stands in the configuration: remove it from capture.targets"),
        )),
        Some(Origin::Api) => {
            running.targets.look().await;
            Ok(Json(running.targets.state()))
        }
    }
}

fn selector(named: Result<Object<Named>, BadObject>) -> Result<Selector, Problem> {
    let bad = |reason: String| Problem::new(StatusCode::BAD_REQUEST, reason);
    let Object(named) = named.map_err(|error| bad(error.body_text()))?;
    named.target.parse().map_err(|error: crate::config::BadSelector| bad(error.to_string()))
}
