//! POST /proxy/start and /proxy/stop: the explicit proxy listens, or not, while everything else goes on; the system uses it
//! meanwhile, where that is possible and wanted. GET /proxy/setup-guide: what a person would type to use it.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::object::{BadObject, Object};
use super::problem::Problem;
use super::resources::{About, Resources, asked, object};
use super::system_proxy;
use crate::running::{NotStarted, Running, Started, Wanted, Wish};

pub(super) fn questions() -> Resources {
    let about = About::new("What to type to use the proxy on this machine").answers(object(
        &json!({ "proxy_url": { "type": ["string", "null"] }, "steps": { "type": "array" } }),
    ));
    Resources::new().get("/proxy/setup-guide", guide, about)
}

pub(super) fn changes() -> Resources {
    let system_proxy = json!({ "type": ["object", "null"] });
    let wanted = asked(
        &json!({
            "port": { "type": ["integer", "null"], "minimum": 0, "maximum": u16::MAX },
            "listen_host": { "type": ["string", "null"] },
            "system_proxy": { "type": "boolean", "default": true },
        }),
        &[],
    );
    let begin = About::new("Has the explicit proxy listen")
        .body(wanted)
        .answers(object(&json!({
            "status": { "const": "running" }, "port": { "type": "integer" }, "system_proxy": system_proxy,
        })))
        .may_fail(&[500, 503]);
    let end = About::new("Has it listen no more")
        .answers(object(&json!({ "status": { "const": "stopped" }, "system_proxy": system_proxy })))
        .may_fail(&[500, 503]);
    Resources::new().post("/proxy/start", start, begin).post("/proxy/stop", stop, end)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Default: as the configuration has it. 0 is any free one.
    port: Option<u16>,
    /// Default: server.host. Another one has to be a loopback address.
    listen_host: Option<IpAddr>,
    /// Whether the system is to use it.
    #[serde(default = "yes")]
    system_proxy: bool,
}

fn yes() -> bool {
    true
}

impl Default for Asked {
    fn default() -> Self {
        Self { port: None, listen_host: None, system_proxy: yes() }
    }
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
    asked: Result<Option<Object<Asked>>, BadObject>,
) -> Result<Json<Told>, Problem> {
    let asked = asked.map_err(|error| Problem::new(error.status(), error.body_text()))?;
    let Asked { port, listen_host: host, system_proxy } =
        asked.map(|Object(asked)| asked).unwrap_or_default();
    let (answer, answered) = oneshot::channel();
    let wanted = Wanted { port, host, system_proxy };
    let started = running.ask(Wish::Start { wanted, answer }, answered).await;
    match started.ok_or_else(Problem::of_replaced)? {
        Ok(Started { address, system_proxy }) => Ok(Json(Told {
            status: "running",
            port: Some(address.port()),
            system_proxy: system_proxy.as_ref().map(system_proxy::started),
        })),
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
    let stopped = running.ask(Wish::Stop(answer), answered).await.ok_or_else(Problem::of_replaced)?;
    let restored = stopped.map_err(|refused| system_proxy::problem(&refused))?;
    let system_proxy = restored.as_ref().map(system_proxy::stopped);
    Ok(Json(Told { status: "stopped", port: None, system_proxy }))
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
