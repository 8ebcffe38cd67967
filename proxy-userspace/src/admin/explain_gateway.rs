//! GET /explain?gateway=URL: which rule of the gateway takes a request, and where to.

use axum::Json;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::explain::{addresses, verdict};
use super::problem::Problem;
use crate::config::{Backend, Forward};
use crate::http::authority::Authority;
use crate::http::headers::Headers;
use crate::route::{Asked, Row};
use crate::running::Running;

/// What becomes of a request. `fields` has a line for each field.
pub(super) async fn gateway(
    running: &Running,
    url: &str,
    method: Option<&str>,
    fields: Option<&str>,
) -> Result<Json<Value>, Problem> {
    let bad = |why: &dyn std::fmt::Display| {
        Problem::new(StatusCode::BAD_REQUEST, format!("gateway `{url}`: {why}; write http://host/path"))
    };
    let rest = url.strip_prefix("http://").ok_or_else(|| bad(&"not an http:// URL"))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority = Authority::parse(authority, Some(80)).map_err(|error| bad(&error))?;
    let mut headers = Headers::default();
    for line in fields.into_iter().flat_map(str::lines) {
        let (name, value) =
            line.split_once(':').ok_or_else(|| bad(&format!("`{line}` is not `Name: value`")))?;
        headers.push(name.as_bytes(), value.trim().as_bytes());
    }
    let path = if path.is_empty() { "/" } else { path };
    let asked = Asked { method: method.unwrap_or("GET"), path, headers: &headers };
    let live = running.live();
    let Some(row) = live.routes.gateway(Some(&authority.host), asked) else {
        return Ok(Json(
            json!({ "gateway": url, "reason": "no rule matches, and there is no default backend" }),
        ));
    };
    let reason = match row {
        Row::Rule(number, rule) => format!("rule {number} of routing.rules: {rule}"),
        Row::Default(_) => "routing.default_backend".into(),
    };
    let forward = row.forward();
    let verdicts = match forward {
        Forward::Server(backend) => of(running, backend).await?,
        Forward::Group(name) => {
            let mut all = Vec::new();
            for member in live.routes.group(name).map(|group| group.members()).unwrap_or_default() {
                for mut verdict in of(running, &member.server).await? {
                    verdict["member"] = (&*member.name).into();
                    verdict["state"] = member.state().name().into();
                    all.push(verdict);
                }
            }
            all
        }
    };
    Ok(Json(json!({
        "gateway": url, "reason": reason, "backend": forward.to_string(), "verdicts": verdicts,
    })))
}

async fn of(running: &Running, backend: &Backend) -> Result<Vec<Value>, Problem> {
    let checked = |address| verdict(running.live().acl.check_named(address));
    let found = addresses(&backend.authority).await?;
    Ok(found.into_iter().map(|address| json!({ "address": address, "proxy": checked(address) })).collect())
}
