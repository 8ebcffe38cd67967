//! Talks to the admin API of the running weir.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::http::request::Builder;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{Admin, FAILED, Failed, MISUSED, NOT_RUNNING, stopped};
use crate::redirect::hold;

/// How long the admin API may take for an answer's head.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The same where weir has much to do first.
const LONG_TIMEOUT: Duration = Duration::from_secs(150);

/// Questions that are about everybody's programs.
const OVER_THE_SOCKET: [&str; 4] = ["/contexts", "/flows", "/capture/targets", "/admin/cache/entries"];

/// Where the admin API listens.
enum Address {
    Socket(PathBuf),
    Tcp(String),
}

/// Asks, and waits for the whole answer.
pub(super) fn ask(admin: &Admin, method: &Method, path: &str) -> Result<Value, Failed> {
    ask_all(admin, method, path, Bytes::new())
}

/// As [`ask`], with something to say.
pub(super) fn ask_with(admin: &Admin, method: &Method, path: &str, body: &Value) -> Result<Value, Failed> {
    ask_all(admin, method, path, body.to_string().into())
}

/// As [`ask_with`], for what takes its time.
pub(super) fn ask_patiently(
    admin: &Admin,
    method: &Method,
    path: &str,
    body: &Value,
) -> Result<Value, Failed> {
    ask_within(admin, method, path, body.to_string().into(), LONG_TIMEOUT)
}

/// Percent-encodes what may not stand in a query (RFC 3986 §3.4).
pub(super) fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn ask_all(admin: &Admin, method: &Method, path: &str, body: Bytes) -> Result<Value, Failed> {
    ask_within(admin, method, path, body, TIMEOUT)
}

fn ask_within(
    admin: &Admin,
    method: &Method,
    path: &str,
    body: Bytes,
    limit: Duration,
) -> Result<Value, Failed> {
    block_on(async {
        let answer = send(admin, method, path, body, limit).await?;
        let body = answer.into_body().collect().await.map_err(|error| broken(&error))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| Failed::new(FAILED, format!("strange answer: {error}")))
    })
}

/// Asks, and hands over each line of the answer as it comes; of the weir that takes the other one's place, too. That one
/// is asked for `again`.
pub(super) fn follow(
    admin: &Admin,
    (path, again): (&str, &str),
    mut line: impl FnMut(&str) -> Result<(), Failed>,
) -> Result<(), Failed> {
    block_on(async {
        let mut answer = send(admin, &Method::GET, path, Bytes::new(), TIMEOUT).await?;
        loop {
            each_line(answer, &mut line).await?;
            answer = match send(admin, &Method::GET, again, Bytes::new(), TIMEOUT).await {
                Ok(answer) => answer,
                Err(Failed { code: NOT_RUNNING, .. }) => {
                    eprintln!("weir: the weir that was followed has stopped");
                    return Ok(());
                }
                Err(failed) => return Err(failed),
            };
            eprintln!("weir: another weir has taken over; what follows is told by that one");
        }
    })
}

async fn each_line(
    answer: Response<Incoming>,
    line: &mut impl FnMut(&str) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let mut body = answer.into_body();
    let mut rest = String::new();
    // An error is its end, too: whether another weir is there is seen by asking.
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        rest.push_str(&String::from_utf8_lossy(&data));
        while let Some((first, others)) = rest.split_once('\n') {
            line(first)?;
            rest = others.to_owned();
        }
    }
    Ok(())
}

/// Asks; and again if a weir answers that has just been replaced, or closes before it has read what it is asked.
async fn send(
    admin: &Admin,
    method: &Method,
    path: &str,
    body: Bytes,
    limit: Duration,
) -> Result<Response<Incoming>, Failed> {
    for _ in 1..MOST_TRIES {
        match send_once(admin, method, path, body.clone(), limit).await {
            Ok(answer) if !answer.headers().contains_key("retry-after") => return judged(answer).await,
            Err(Unanswered::Broken(_)) if may_be_done_twice(method, path) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
    judged(send_once(admin, method, path, body, limit).await?).await
}

/// Why there is no answer.
enum Unanswered {
    /// The connection ended.
    Broken(hyper::Error),
    Failed(Failed),
}

impl From<Failed> for Unanswered {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl From<Unanswered> for Failed {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Broken(error) => broken(&error),
            Unanswered::Failed(failed) => failed,
        }
    }
}

/// Whether it does no harm if it was done, and the answer was lost.
fn may_be_done_twice(method: &Method, path: &str) -> bool {
    *method != Method::POST || path.starts_with("/capture/")
}

/// How often and when it is asked again.
const MOST_TRIES: u32 = 50;
const AGAIN: Duration = Duration::from_millis(20);

async fn judged(answer: Response<Incoming>) -> Result<Response<Incoming>, Failed> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|error| broken(&error))?.to_bytes();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    Err(Failed::new(FAILED, problem["detail"].as_str().unwrap_or(status.as_str())))
}

async fn send_once(
    admin: &Admin,
    method: &Method,
    path: &str,
    body: Bytes,
    limit: Duration,
) -> Result<Response<Incoming>, Unanswered> {
    let mut asked = Request::builder().method(method).uri(path);
    if !body.is_empty() {
        asked = asked.header("Content-Type", "application/json");
    }
    match address(admin, method, path)? {
        Address::Socket(socket) => match UnixStream::connect(&socket).await {
            Ok(stream) => {
                let folders: Vec<_> = socket.parent().into_iter().collect();
                unless_stopped(&folders, exchange(stream, asked.header("Host", "localhost"), body, limit))
                    .await
            }
            Err(error) => Err(not_running(&socket.display().to_string(), &error).into()),
        },
        Address::Tcp(host) => match TcpStream::connect(&host).await {
            Ok(stream) => {
                // On the socket it is of no use.
                if let Some(token) = admin.token()? {
                    asked = asked.header("Authorization", format!("Bearer {token}"));
                }
                let sockets = crate::app::default_admin_sockets();
                let folders: Vec<_> = sockets.iter().filter_map(|socket| socket.parent()).collect();
                unless_stopped(&folders, exchange(stream, asked.header("Host", &host), body, limit)).await
            }
            Err(error) => Err(not_running(&format!("http://{host}"), &error).into()),
        },
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Builder,
    body: Bytes,
    limit: Duration,
) -> Result<Response<Incoming>, Unanswered> {
    let request = request
        .body(Full::new(body))
        .map_err(|error| Failed::new(MISUSED, format!("that can't be asked: {error}")))?;
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    match tokio::time::timeout(limit, exchange).await {
        Ok(answer) => answer.map_err(Unanswered::Broken),
        Err(_) => {
            Err(Failed::new(FAILED, format!("weir did not answer within {} s", limit.as_secs())).into())
        }
    }
}

/// What comes of the exchange; at once, if none can come of it.
async fn unless_stopped<T>(
    folders: &[&Path],
    exchange: impl Future<Output = Result<T, Unanswered>>,
) -> Result<T, Unanswered> {
    tokio::select! {
        result = exchange => result,
        pid = stopped::noticed(folders) => Err(Failed::new(NOT_RUNNING, stopped::tell(pid)).into()),
    }
}

fn address(admin: &Admin, method: &Method, path: &str) -> Result<Address, Failed> {
    let Some(place) = admin.place() else {
        let [own, roots] = crate::app::default_admin_sockets();
        let usable = |socket: &PathBuf| std::os::unix::net::UnixStream::connect(socket).is_ok();
        let tcp = || Address::Tcp(crate::app::default_admin_address().to_string());
        return Ok(match [own, roots.clone()].into_iter().find(usable) {
            Some(socket) => Address::Socket(socket),
            None if admin.has_token() => tcp(),
            None if *method == Method::GET && !OVER_THE_SOCKET.iter().any(|own| path.starts_with(own)) => {
                tcp()
            }
            // These are answered over the socket only, without a token.
            None => Address::Socket(roots),
        });
    };
    match place.strip_prefix("http://") {
        Some(host) => Ok(Address::Tcp(host.trim_end_matches('/').to_owned())),
        None if place.contains("://") => {
            Err(Failed::new(MISUSED, format!("--admin {place}: give a socket's path or an http:// URL")))
        }
        None => Ok(Address::Socket(Path::new(place).to_owned())),
    }
}

fn not_running(at: &str, error: &std::io::Error) -> Failed {
    let hint = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "try it with sudo",
        _ => "start it with `sudo weir serve`, or say with --admin where it is",
    };
    let left = held_programs(at).map_or_else(String::new, |left| format!(". {left}"));
    Failed::new(NOT_RUNNING, format!("no weir answers at {at}: {error}; {hint}{left}"))
}

/// What a dead weir left beside that socket, or where it is by default.
fn held_programs(at: &str) -> Option<hold::LeftBehind> {
    let sockets = match at.starts_with("http://") {
        true => crate::app::default_admin_sockets().to_vec(),
        false => vec![PathBuf::from(at)],
    };
    sockets.iter().filter_map(|socket| socket.parent()).find_map(hold::in_folder)
}

fn broken(error: &hyper::Error) -> Failed {
    Failed::new(FAILED, format!("the connection to weir broke: {error}; see `weir status`"))
}

pub(super) fn block_on<T>(task: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failed::new(FAILED, format!("can't start a runtime: {error}")))?.block_on(task)
}
