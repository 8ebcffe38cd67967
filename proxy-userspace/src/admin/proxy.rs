//! POST /proxy/start and /proxy/stop: the explicit proxy listens, or not, while everything else goes on. GET
//! /proxy/setup-guide: what a person would type to use it.
//!
//! The system's own proxy settings are not changed here: `system_proxy` in the answers is null.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::problem::Problem;
use crate::running::{NotStarted, Running, Wish};

pub(super) fn questions() -> Router<Arc<Running>> {
    Router::new().route("/proxy/setup-guide", get(guide))
}

pub(super) fn changes() -> Router<Arc<Running>> {
    Router::new().route("/proxy/start", post(start)).route("/proxy/stop", post(stop))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Default: as the configuration has it. 0 is any free one.
    port: Option<u16>,
    /// Default: server.host. Another one has to be a loopback address.
    listen_host: Option<IpAddr>,
    /// Whether the system is to use it.
    #[serde(default = "yes")]
    #[expect(
        dead_code,
        reason = "read by what sets the system's proxy; without it the answer's part is null"
    )]
    system_proxy: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Serialize)]
struct Told {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    system_proxy: Option<Value>,
}

async fn start(
    State(running): State<Arc<Running>>,
    wanted: Result<Option<Json<Wanted>>, JsonRejection>,
) -> Result<Json<Told>, Problem> {
    let wanted = wanted.map_err(|error| Problem::new(error.status(), error.body_text()))?;
    let Wanted { port, listen_host: host, .. } = wanted.map(|Json(wanted)| wanted).unwrap_or_default();
    let (answer, answered) = oneshot::channel();
    let started = running.ask(Wish::Start { port, host, answer }, answered).await;
    match started.ok_or_else(Problem::of_replaced)? {
        Ok(address) => Ok(Json(Told { status: "running", port: Some(address.port()), system_proxy: None })),
        Err(error) => Err(Problem::new(status_of(&error), error.to_string())),
    }
}

fn status_of(error: &NotStarted) -> StatusCode {
    match error {
        NotStarted::Elsewhere(_) | NotStarted::Unknown(_) => StatusCode::CONFLICT,
        NotStarted::Open(_) => StatusCode::FORBIDDEN,
        NotStarted::Listen { error, .. } => match error.kind() {
            io::ErrorKind::AddrInUse => StatusCode::CONFLICT,
            io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
            io::ErrorKind::AddrNotAvailable => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

async fn stop(State(running): State<Arc<Running>>) -> Result<Json<Told>, Problem> {
    let (answer, answered) = oneshot::channel();
    running.ask(Wish::Stop(answer), answered).await.ok_or_else(Problem::of_replaced)?;
    Ok(Json(Told { status: "stopped", port: None, system_proxy: None }))
}

/// For this machine: with the address that is listened on, and for what is installed here.
async fn guide(State(running): State<Arc<Running>>) -> Json<Value> {
    let live = running.live();
    let Some(proxy) = live.proxy else {
        let how = format!(
            "curl --unix-socket {} -X POST http://localhost/proxy/start",
            live.config.admin.socket_path().display()
        );
        return Json(json!({ "proxy_url": null, "steps": [step("Start the proxy", &[how])] }));
    };
    let url = format!("http://{proxy}");
    let (host, port) = (proxy.ip().to_string(), proxy.port());
    let mut steps = vec![
        step("Try it", &[format!("curl -x {url} http://example.com/")]),
        step(
            "Programs started in this shell",
            &[
                format!("export http_proxy={url} https_proxy={url} all_proxy={url}"),
                "export no_proxy=localhost,127.0.0.1,::1".to_owned(),
            ],
        ),
        step("Browsers, by a file", &[format!("{url}/proxy.pac")]),
    ];
    let installed = |program: &str| {
        ["/usr/bin", "/usr/local/bin"]
            .iter()
            .any(|folder| std::path::Path::new(folder).join(program).exists())
    };
    if installed("git") {
        steps.push(step("git", &[format!("git config --global http.proxy {url}")]));
    }
    if installed("npm") {
        steps.push(step(
            "npm",
            &[format!("npm config set proxy {url}"), format!("npm config set https-proxy {url}")],
        ));
    }
    if installed("pip") || installed("pip3") {
        steps.push(step("pip", &[format!("pip config set global.proxy {url}")]));
    }
    if installed("gsettings") {
        let mut commands = vec!["gsettings set org.gnome.system.proxy mode manual".to_owned()];
        for scheme in ["http", "https"] {
            commands.push(format!("gsettings set org.gnome.system.proxy.{scheme} host {host}"));
            commands.push(format!("gsettings set org.gnome.system.proxy.{scheme} port {port}"));
        }
        steps.push(step("GNOME", &commands));
    }
    steps.push(step(
        "Without any setting: capture one program, as root",
        &["weir exec -- COMMAND".to_owned()],
    ));
    Json(json!({ "proxy_url": url, "steps": steps }))
}

fn step(title: &str, commands: &[String]) -> Value {
    json!({ "title": title, "commands": commands })
}
