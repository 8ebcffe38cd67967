//! A container engine's API (docker's, which podman speaks as well) over its Unix socket: what runs, and a sign when
//! that changes. Only asks, never changes anything. Three questions need no client library: hyper asks them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::config::{COMPOSE_LABEL, Selector};
use crate::target::Container;

/// How long an engine may take for an answer: starting many containers keeps it busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer that is read: some KiB for each container.
const MAX_ANSWER: usize = 64 << 20;

/// Names the containers' starts, ends, and new names.
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22start%22%2C%22\
                      unpause%22%2C%22die%22%2C%22rename%22%5D%7D";

/// An engine, which may run or not.
#[derive(Debug, Clone, Default)]
pub struct Engine {
    socket: PathBuf,
}

/// A container that an engine knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub container: Arc<Container>,
    /// More names than the first.
    names: Vec<String>,
    image_id: String,
    labels: BTreeMap<String, String>,
}

/// Why an engine did not answer.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("no engine answers at {}: {source}", .socket.display())]
    Unreachable { socket: PathBuf, source: io::Error },
    #[error("the engine at {} broke the connection: {source}", .socket.display())]
    Broken { socket: PathBuf, source: hyper::Error },
    #[error("the engine at {} did not answer within {} s", .socket.display(), PATIENCE.as_secs())]
    TimedOut { socket: PathBuf },
    #[error("the engine at {} refused {path}: {status}", .socket.display())]
    Refused { socket: PathBuf, path: String, status: StatusCode },
    #[error("the engine at {} gave a strange answer: {reason}", .socket.display())]
    Strange { socket: PathBuf, reason: String },
}

/// Which containers are asked for.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    Running,
    /// This one, running or not.
    Id(&'a str),
}

impl Engine {
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The containers it knows.
    ///
    /// # Errors
    /// [`EngineError`]
    pub async fn containers(&self, which: Which<'_>) -> Result<Vec<Known>, EngineError> {
        let listed: Vec<Listed> = match which {
            Which::Running => self.ask("/containers/json").await?,
            Which::Id(id) => {
                let id: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
                self.ask(&format!("/containers/json?all=true&filters=%7B%22id%22%3A%5B%22{id}%22%5D%7D"))
                    .await?
            }
        };
        Ok(listed.into_iter().map(Known::from).collect())
    }

    /// A running container's first process, as this pid namespace numbers it.
    ///
    /// # Errors
    /// [`EngineError`]
    pub async fn first_process(&self, id: &str) -> Result<Option<u32>, EngineError> {
        let inspected: Inspected = self.ask(&format!("/containers/{id}/json")).await?;
        Ok(Some(inspected.state.pid).filter(|pid| *pid != 0))
    }

    /// The runtime that it starts containers with, if they name no other.
    ///
    /// # Errors
    /// [`EngineError`]
    pub async fn default_runtime(&self) -> Result<String, EngineError> {
        let info: Info = self.ask("/info").await?;
        Ok(info.default_runtime)
    }

    /// Asks to be told of changes.
    ///
    /// # Errors
    /// [`EngineError`]
    pub async fn changes(&self) -> Result<Changes, EngineError> {
        let answer = self.send(EVENTS).await?;
        Ok(Changes { socket: self.socket.clone(), body: answer.into_body() })
    }

    pub(super) async fn ask<T: for<'a> Deserialize<'a>>(&self, path: &str) -> Result<T, EngineError> {
        let strange = |reason: String| EngineError::Strange { socket: self.socket.clone(), reason };
        let answer = self.send(path).await?;
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect();
        let body = timeout(PATIENCE, body).await.map_err(|_| self.timed_out())?;
        let body = body.map_err(|error| strange(error.to_string()))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| strange(error.to_string()))
    }

    async fn send(&self, path: &str) -> Result<Response<Incoming>, EngineError> {
        let socket = || self.socket.clone();
        let exchange = async {
            let unreachable = |source| EngineError::Unreachable { socket: socket(), source };
            let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
            let broken = |source| EngineError::Broken { socket: socket(), source };
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
            tokio::spawn(connection);
            let request = Request::get(path).header("Host", "engine").body(Empty::<Bytes>::new());
            let request = request.map_err(|error| EngineError::Strange {
                socket: socket(),
                reason: format!("it can't be asked for {path}: {error}"),
            })?;
            sender.send_request(request).await.map_err(broken)
        };
        let answer = timeout(PATIENCE, exchange).await.map_err(|_| self.timed_out())??;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(EngineError::Refused { socket: socket(), path: path.to_owned(), status: answer.status() })
    }

    fn timed_out(&self) -> EngineError {
        EngineError::TimedOut { socket: self.socket.clone() }
    }
}

/// An engine's events, as they come.
#[derive(Debug)]
pub struct Changes {
    socket: PathBuf,
    body: Incoming,
}

impl Changes {
    /// Ready when something has changed. What, is to be asked.
    ///
    /// # Errors
    /// The engine is gone.
    pub async fn next(&mut self) -> Result<(), EngineError> {
        match self.body.frame().await {
            Some(Ok(_)) => Ok(()),
            Some(Err(source)) => Err(EngineError::Broken { socket: self.socket.clone(), source }),
            None => {
                let source = io::ErrorKind::UnexpectedEof.into();
                Err(EngineError::Unreachable { socket: self.socket.clone(), source })
            }
        }
    }
}

impl Known {
    /// Whether that selector means it.
    #[must_use]
    pub fn is_selected_by(&self, selector: &Selector) -> bool {
        let has = |key: &str, value: &str| self.labels.get(key).is_some_and(|found| found == value);
        match selector {
            Selector::Cgroup(_)
            | Selector::Unit(_)
            | Selector::Uid(_)
            | Selector::User(_)
            | Selector::Executable(_) => false,
            Selector::Container(name) => self.names.contains(name) || self.has_id(name),
            Selector::Label { key, value: Some(value) } => has(key, value),
            Selector::Label { key, value: None } => self.labels.contains_key(key),
            Selector::Image(name) => self.is_made_from(name),
            Selector::Compose(project) => has(COMPOSE_LABEL, project),
        }
    }

    /// As engines do it: an id may be shortened.
    fn has_id(&self, start: &str) -> bool {
        start.len() >= MIN_ID && self.container.id.starts_with(start)
    }

    fn is_made_from(&self, wanted: &str) -> bool {
        let image = &*self.container.image;
        let id = self.image_id.strip_prefix("sha256:").unwrap_or(&self.image_id);
        let wanted_id = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        // podman gives the registry before it.
        let same = |name: &str| name == wanted || name.ends_with(&format!("/{wanted}"));
        same(image) || same(without_tag(image)) || (wanted_id.len() >= MIN_ID && id.starts_with(wanted_id))
    }
}

/// Characters that the beginning of an id must have, so that a name is not taken for one.
const MIN_ID: usize = 6;

/// `registry:5000/name:tag` without the tag, or the digest.
fn without_tag(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

/// An entry of GET /containers/json.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    names: Option<Vec<String>>,
    image: Option<String>,
    #[serde(rename = "ImageID")]
    image_id: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

/// What is used of GET /containers/ID/json.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    state: Process,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Process {
    pid: u32,
}

/// What is used of GET /info.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    default_runtime: String,
}

impl From<Listed> for Known {
    fn from(listed: Listed) -> Self {
        let names = listed.names.unwrap_or_default();
        // Links of other containers to it are shown as /other/name.
        let mut names: Vec<String> =
            names.iter().map(|name| name.trim_start_matches('/').to_owned()).collect();
        names.sort_by_key(|name| name.contains('/'));
        let name = names.first().cloned().unwrap_or_else(|| listed.id.chars().take(12).collect());
        let container = Container {
            id: listed.id.into(),
            name: name.into(),
            image: listed.image.unwrap_or_default().into(),
        };
        Self {
            container: Arc::new(container),
            names,
            image_id: listed.image_id.unwrap_or_default(),
            labels: listed.labels.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(known: &str, selector: &str, expected: bool) {
        let listed: Vec<Listed> = serde_json::from_str(known).unwrap();
        let known = Known::from(listed.into_iter().next().unwrap());
        assert_eq!(known.is_selected_by(&selector.parse().unwrap()), expected, "{selector}");
    }

    #[test]
    fn selection() {
        let docker = r#"[{"Id":"0123456789abcdef","Names":["/other/db","/web"],"Image":"reg:5000/nginx:1.27",
            "ImageID":"sha256:fedcba9876543210","Labels":{"app":"shop","com.docker.compose.project":"p"},"State":"running"}]"#;
        for selector in [
            "container:web",
            "container:012345",
            "label:app",
            "label:app=shop",
            "compose:p",
            "image:reg:5000/nginx",
            "image:reg:5000/nginx:1.27",
            "image:nginx",
            "image:sha256:fedcba9876543210",
        ] {
            check(docker, selector, true);
        }
        for selector in [
            "container:we",
            "container:0123",
            "container:db",
            "label:app=",
            "label:shop",
            "compose:q",
            "image:inx",
            "image:nginx:1.28",
            "cgroup:/web",
        ] {
            check(docker, selector, false);
        }
        let bare = r#"[{"Id":"0123456789abcdef","Names":null,"Labels":null}]"#;
        check(bare, "container:0123456789abcdef", true);
        check(bare, "label:app", false);
    }
}
