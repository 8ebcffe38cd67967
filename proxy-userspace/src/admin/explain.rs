//! GET /explain: what would happen to a connection or a request, by the same rules, and which of them decides.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::explain_gateway::gateway;
use super::problem::Problem;
use super::resources::{About, Resources, object};
use crate::config::{Direction, Protocol};
use crate::http::authority::{Authority, Host, Scheme};
use crate::policy::acl::Denied;
use crate::policy::inspection::Inspection;
use crate::policy::interception::{Asked, Interception, Verdict};
use crate::policy::{Refusal, Subject};
use crate::running::{Capture, Running};
use crate::target::{Client, Front, Target};

pub(super) fn routes() -> Resources {
    let text = || json!({ "type": "string" });
    let about = About::new("What would become of a connection or a request, and which rule decides")
        .query("destination", text(), "HOST:PORT that a program would connect to")
        .query(
            "pid",
            json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
            "the program's process",
        )
        .query("udp", json!({ "type": "boolean" }), "by UDP")
        .query("url", text(), "or: what a client of the proxy would ask for")
        .query("method", text(), "with this method")
        .query("client", text(), "from this address")
        .query("gateway", text(), "or: what the gateway would be asked for")
        .query("headers", text(), "with these fields, as lines `Name: value`")
        .answers(object(&json!({})))
        .may_fail(&[500, 503]);
    Resources::new().get("/explain", explain, about)
}

#[derive(Debug, Deserialize)]
struct Would {
    /// `host:port`.
    destination: Option<String>,
    /// The process that would connect.
    pid: Option<u32>,
    /// By UDP instead of TCP.
    #[serde(default)]
    udp: bool,
    /// Or: what a client of the explicit proxy asks for, by what method, and from where.
    url: Option<String>,
    method: Option<String>,
    client: Option<IpAddr>,
    /// Or: what is asked of the gateway, as `http://host/path`.
    gateway: Option<String>,
    /// With these fields, a line each.
    headers: Option<String>,
}

impl Would {
    fn protocol(&self) -> Protocol {
        if self.udp { Protocol::Udp } else { Protocol::Tcp }
    }
}

async fn explain(
    State(running): State<Arc<Running>>,
    would: Result<Query<Would>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(would) = would?;
    match (&would.destination, &would.gateway, &would.url) {
        (Some(destination), None, None) => {
            connection(&running, destination, would.pid, would.protocol()).await
        }
        (None, Some(url), None) => {
            gateway(&running, url, would.method.as_deref(), would.headers.as_deref()).await
        }
        (None, None, Some(url)) => asked(&running, url, &would).await,
        _ => Err(Problem::new(StatusCode::BAD_REQUEST, "give one of `destination`, `gateway` and `url`")),
    }
}

/// What the policy says of a client's request, or of the tunnel that an https:// URL needs.
async fn asked(running: &Running, url: &str, would: &Would) -> Result<Json<Value>, Problem> {
    let bad = |why: &dyn std::fmt::Display| {
        Problem::new(StatusCode::BAD_REQUEST, format!("url `{url}`: {why}; write http://host/path"))
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(|| bad(&"not a URL"))?;
    let (scheme, method) = match scheme {
        "http" => (Scheme::Http, "GET"),
        "https" => (Scheme::Https, "CONNECT"),
        _ => return Err(bad(&"neither http:// nor https://")),
    };
    let method = would.method.as_deref().unwrap_or(method);
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority = Authority::parse(authority, Some(scheme.default_port())).map_err(|error| bad(&error))?;
    let subject = Subject {
        client: would.client.unwrap_or(IpAddr::from(Ipv4Addr::LOCALHOST)),
        host: Some(&authority.host),
        port: Some(authority.port),
        original: None,
        method: Some(method),
        url: (method != "CONNECT").then_some((scheme, if path.is_empty() { "/" } else { path })),
        identity: None,
    };
    let policy = running.policy.latest();
    if let Err(refusal) = policy.check(&subject) {
        return Ok(Json(json!({ "url": url, "policy": refused(&refusal) })));
    }
    let interception = (method == "CONNECT").then(|| intercepted(running, &authority, subject.client));
    let is_read = interception.as_ref().is_none_or(|verdict| verdict["verdict"] == "intercept");
    let inspection =
        policy.inspection.as_ref().filter(|_| is_read).map(|inspection| inspected(inspection, &authority));
    let mut verdicts = Vec::new();
    for address in addresses(&authority).await? {
        let proxy = match policy.check_address(&subject, address) {
            Err(refusal) => refused(&refusal),
            Ok(true) => verdict(running.live().acl.check_named(address)),
            Ok(false) => verdict(running.live().acl.check(address)),
        };
        verdicts.push(json!({ "address": address, "proxy": proxy }));
    }
    Ok(Json(json!({
        "url": url, "policy": { "verdict": "allow" }, "interception": interception, "inspection": inspection,
        "verdicts": verdicts,
    })))
}

/// What becomes of TLS in the tunnel, if its ClientHello names the same server.
fn intercepted(running: &Running, authority: &Authority, client: IpAddr) -> Value {
    let Some(interception) = Interception::new(&running.config().tls) else {
        return json!({ "verdict": "pass", "reason": "tls.intercept has no rule that intercepts" });
    };
    let client = Client { address: SocketAddr::new(client, 0), process: None };
    let target = Target { authority: Some(authority.clone()), ..Target::of(Front::Explicit) };
    let server_name = match &authority.host {
        Host::Name(name) => Some(&**name),
        Host::Address(_) => None,
    };
    match interception.judge(&Asked { client: &client, identity: None, target: &target, server_name }, false)
    {
        Verdict::Pass => json!({ "verdict": "pass" }),
        Verdict::Intercept(rule) => {
            json!({ "verdict": "intercept", "reason": format!("rule {} of tls.intercept.rules", rule.name) })
        }
        Verdict::Refuse(why) => json!({ "verdict": "refuse", "reason": why }),
    }
}

/// Which bodies are looked at, and by what.
fn inspected(inspection: &Inspection, authority: &Authority) -> Value {
    let wants = |direction| inspection.wants(direction, Some(&authority.host));
    json!({
        "requests": wants(Direction::Request), "responses": wants(Direction::Response),
        "rules": inspection.rules(), "clamd": inspection.asks_clamd(),
    })
}

fn refused(refusal: &Refusal) -> Value {
    json!({ "verdict": "deny", "reason": refusal.to_string(), "rule": refusal.rule })
}

async fn connection(
    running: &Running,
    destination: &str,
    pid: Option<u32>,
    protocol: Protocol,
) -> Result<Json<Value>, Problem> {
    let authority = Authority::parse(destination, None).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("destination `{destination}`: {error}"))
    })?;
    let mut verdicts = Vec::new();
    for address in addresses(&authority).await? {
        let kernel = match pid {
            Some(pid) => Some(kernel_verdict(running, pid, protocol, address)?),
            None => None,
        };
        let proxy = verdict(running.live().acl.check(address));
        verdicts.push(json!({ "address": address, "connect": kernel, "proxy": proxy }));
    }
    Ok(Json(json!({ "destination": authority.to_string(), "pid": pid, "verdicts": verdicts })))
}

pub(super) fn verdict(checked: Result<(), Denied>) -> Value {
    match checked {
        Ok(()) => json!({ "verdict": "allow" }),
        Err(denied) => json!({ "verdict": "deny", "reason": denied.reason }),
    }
}

/// What the kernel half would do with the process's connect().
fn kernel_verdict(
    running: &Running,
    pid: u32,
    protocol: Protocol,
    address: SocketAddr,
) -> Result<Value, Problem> {
    let direct = |reason: &str| json!({ "verdict": "direct", "reason": reason });
    Ok(match &*running.capture() {
        Capture::Off => direct("capture.mode is off"),
        Capture::Detached => direct("weir is stopping"),
        Capture::Unavailable(error) => direct(&error.to_string()),
        Capture::On(redirect) => {
            let explained = redirect
                .explain(pid, protocol, address)
                .map_err(|error| Problem::new(StatusCode::NOT_FOUND, format!("process {pid}: {error}")))?;
            json!({ "verdict": explained.verdict, "reason": explained.reason })
        }
    })
}

pub(super) async fn addresses(authority: &Authority) -> Result<Vec<SocketAddr>, Problem> {
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
