//! POST /cli/execute: runs an allowed command, and tells what it writes as it writes it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::object::{BadObject, Object};
use super::problem::Problem;
use crate::execute::{End, Event, Executor, Refusal, Stream, Text, Wanted};
use crate::running::Running;
use crate::telemetry::metrics::write_metric;

/// Largest request, in bytes.
const MAX_REQUEST: usize = 1 << 20;

/// What an answer that is not streamed holds of both streams together, in bytes; more ends the command.
const MAX_HELD: usize = 8 << 20;

/// What a caller that found no place is told to wait, in seconds.
const RETRY_AFTER: u16 = 1;

pub(super) fn changes() -> Router<Arc<Running>> {
    Router::new().route("/cli/execute", post(execute)).layer(DefaultBodyLimit::max(MAX_REQUEST))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    command: String,
    #[serde(default)]
    args: Vec<String>,
    stdin: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// In seconds.
    timeout: Option<f64>,
    #[serde(default = "streamed")]
    stream: bool,
}

fn streamed() -> bool {
    true
}

async fn execute(
    State(running): State<Arc<Running>>,
    asked: Result<Object<Asked>, BadObject>,
) -> Result<Response, Response> {
    let executor = running.executor().ok_or_else(|| {
        Problem::new(StatusCode::FORBIDDEN, "no commands are run here: cli.enabled is false").into_response()
    })?;
    let Object(asked) =
        asked.map_err(|error| Problem::new(error.status(), error.body_text()).into_response())?;
    let stream = asked.stream;
    let events = start(&executor, asked).map_err(|refusal| refused(&refusal))?;
    Ok(if stream { streaming(events) } else { Json(whole(events).await).into_response() })
}

fn start(executor: &Executor, asked: Asked) -> Result<mpsc::Receiver<Event>, Refusal> {
    let malformed = || Refusal::Malformed("timeout is no number of seconds above 0".to_owned());
    let timeout = asked.timeout.map(|seconds| match Duration::try_from_secs_f64(seconds) {
        Ok(timeout) if !timeout.is_zero() => Ok(timeout),
        // More than a clock can tell is more than `cli.process_timeout`, which holds then.
        Err(_) if seconds > 0.0 => Ok(Duration::MAX),
        _ => Err(malformed()),
    });
    let Asked { command, args, stdin, env, .. } = asked;
    executor.start(Wanted { command, args, stdin, env, timeout: timeout.transpose()? })
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
        Refusal::NotListed(_) | Refusal::Arguments(_) | Refusal::Variable(_) => StatusCode::FORBIDDEN,
        Refusal::Busy(_) => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Start { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = Problem::new(status, refusal.to_string()).into_response();
    if matches!(refusal, Refusal::Busy(_)) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
    }
    response
}

/// A line of NDJSON for each event.
fn streaming(events: mpsc::Receiver<Event>) -> Response {
    let lines = futures_util::stream::unfold(events, |mut events| async {
        let event = events.recv().await?;
        Some((Ok::<_, Infallible>(line(event)), events))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

#[derive(Serialize)]
struct Output {
    #[serde(rename = "type")]
    stream: Stream,
    #[serde(flatten)]
    text: Text,
}

fn line(event: Event) -> Bytes {
    // Plain data: serialising it does not fail.
    let mut line = match event {
        Event::Output(stream, bytes) => serde_json::to_vec(&Output { stream, text: Text::of(bytes) }),
        Event::End(end) => serde_json::to_vec(&end),
    }
    .unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// All of it in one.
#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    end: End,
    stdout: Text,
    stderr: Text,
}

async fn whole(mut events: mpsc::Receiver<Event>) -> Whole {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut end = End::Unknown { error: "weir is stopping".to_owned() };
    while let Some(event) = events.recv().await {
        match event {
            Event::Output(Stream::Stdout, bytes) => stdout.extend(bytes),
            Event::Output(Stream::Stderr, bytes) => stderr.extend(bytes),
            Event::End(ended) => end = ended,
        }
        if stdout.len() + stderr.len() > MAX_HELD {
            end = End::OutputLimit { max_output: MAX_HELD as u64 };
            break;
        }
    }
    Whole { end, stdout: Text::of(stdout), stderr: Text::of(stderr) }
}

/// The metrics of the commands.
pub(super) fn write_metrics(running: &Running, text: &mut String) {
    let Some(executor) = running.executor() else { return };
    let (started, refused, open) = executor.counts();
    write_metric(text, "cli_commands_total", "Commands started.", "counter", started);
    write_metric(text, "cli_refused_total", "Commands that were not started.", "counter", refused);
    write_metric(text, "cli_running", "Commands that run.", "gauge", open as u64);
}
