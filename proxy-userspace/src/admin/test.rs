//! POST /proxy/test: sends a request through the proxy as any client would, and tells what came back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::routing::post;
use axum::{Json, Router};
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::object::{BadObject, Object};
use super::problem::Problem;
use crate::running::Running;

/// What is asked for unless the caller says so: reserved for such uses (RFC 2606 §3).
const DEFAULT_URL: &str = "http://example.com/";

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of a body is told, in bytes.
const MAX_BODY: usize = 64 << 10;

/// With it weir marks answers of its own that are failures (RFC 9209).
const PROXY_STATUS: &str = "proxy-status";

pub(super) fn changes() -> Router<Arc<Running>> {
    Router::new().route("/proxy/test", post(test))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    url: Option<String>,
}

#[derive(Debug, Serialize)]
struct Told {
    success: bool,
    status_code: Option<u16>,
    body: Option<String>,
    /// Whether there was more than `body`.
    body_truncated: bool,
    /// Null while it is stopped.
    proxy_url: Option<String>,
    error: Option<String>,
}

async fn test(
    State(running): State<Arc<Running>>,
    asked: Result<Option<Object<Asked>>, BadObject>,
) -> Result<Json<Told>, Problem> {
    let bad = |reason: String| Problem::new(StatusCode::BAD_REQUEST, reason);
    let asked = asked.map_err(|error| Problem::new(error.status(), error.body_text()))?;
    let Object(asked) = asked.unwrap_or_default();
    let url = asked.url.as_deref().unwrap_or(DEFAULT_URL);
    let uri = url.parse::<Uri>().ok().filter(is_absolute);
    let uri = uri.ok_or_else(|| bad("url is no http:// or https:// URL without credentials".to_owned()))?;
    let mut told = Told {
        success: false,
        status_code: None,
        body: None,
        body_truncated: false,
        proxy_url: running.live().proxy.map(|proxy| format!("http://{proxy}")),
        error: None,
    };
    let result = timeout(PATIENCE, ask(&running, uri, &mut told)).await;
    told.error = match result {
        Ok(Ok(error)) => error,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no whole answer within {} s", PATIENCE.as_secs())),
    };
    told.success = told.error.is_none();
    Ok(Json(told))
}

fn is_absolute(uri: &Uri) -> bool {
    let scheme_fits = matches!(uri.scheme_str(), Some("http" | "https"));
    scheme_fits && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
}

/// Notes what comes back; gives what weir says if it is a failure of its own.
async fn ask(running: &Running, uri: Uri, told: &mut Told) -> anyhow::Result<Option<String>> {
    let Some(proxy) = running.live().proxy else {
        anyhow::bail!("the proxy is stopped; POST /proxy/start starts it");
    };
    if running.config().server.tls.required {
        anyhow::bail!("the proxy takes connections over TLS only, which this test does not speak");
    }
    let stream = TcpStream::connect(reachable(proxy)).await?;
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let host = uri.authority().map_or_else(String::new, ToString::to_string);
    let request = Request::get(uri)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*")
        .body(Empty::<Bytes>::new())?;
    let mut answer = requests.send_request(request).await?;
    told.status_code = Some(answer.status().as_u16());
    let mut body = Vec::new();
    while let Some(frame) = answer.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = MAX_BODY - body.len();
        body.extend_from_slice(data.get(..room).unwrap_or(&data));
        if data.len() > room {
            told.body_truncated = true;
            break;
        }
    }
    connection.abort();
    let body = String::from_utf8_lossy(&body).into_owned();
    let own_failure = answer.headers().contains_key(PROXY_STATUS).then(|| body.trim_end().to_owned());
    told.body = Some(body);
    Ok(own_failure)
}

/// Where a listener is reached from this host.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let address = match listener.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, listener.port())
}
