//! GET /capture: what is captured. POST /capture/exec: a cgroup for one program (`weir exec`).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use super::problem::Problem;
use super::resources::{About, Resources, object};
use super::{Caller, status};
use crate::capture;
use crate::redirect::{ExecCgroup, Redirect, RedirectError};
use crate::running::{Capture, Running};

/// How long a new cgroup may stay empty: the program that asked for it moves in at once, or never.
const MOVE_IN: Duration = Duration::from_secs(10);

/// How often a captured cgroup is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How often the removal of one cgroup is tried. Each time, its last program had left.
const MAX_REMOVALS: u32 = 1000;

pub(super) fn questions() -> Resources {
    let capture = async |State(running): State<Arc<Running>>| Json(status::capture(&running));
    let about = About::new("What is captured, as the kernel has it")
        .answers(object(&json!({ "state": { "type": "string" }, "reason": { "type": "string" } })));
    Resources::new().get("/capture", capture, about)
}

pub(super) fn changes() -> Resources {
    let about = About::new("A cgroup for one program that is to be captured (`weir exec`)")
        .with_status(201)
        .answers(object(&json!({ "cgroup": { "type": "string" }, "id": { "type": "integer" } })))
        .may_fail(&[500, 503]);
    Resources::new().post("/capture/exec", exec, about)
}

async fn exec(
    State(running): State<Arc<Running>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let (cgroup, events) = {
        let capture = running.capture_to_change().await;
        let redirect = match &*capture {
            Capture::On(redirect) => redirect,
            Capture::Off => return Err(unavailable("capture.mode is off")),
            Capture::Detached => return Err(Problem::of_replaced()),
            Capture::Unavailable(error) => return Err(unavailable(&error.to_string())),
        };
        // It becomes the program, in the network namespace that it lives in.
        if let Some(pid) = caller.pid.filter(|_| !caller.is_at_home) {
            capture::enter(&running, redirect, pid)
                .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        }
        new_cgroup(redirect).map_err(|error| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("can't make a cgroup for it: {error}"))
        })?
    };
    let answer = json!({ "cgroup": cgroup.path(), "id": cgroup.id().0 });
    tokio::spawn(remove_when_empty(cgroup, events, running));
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(super) fn unavailable(reason: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("nothing can be captured: {reason}"))
}

/// A captured cgroup, watched before anybody can come and leave unseen.
fn new_cgroup(redirect: &Redirect) -> Result<(ExecCgroup, File), RedirectError> {
    let cgroup = ExecCgroup::create(redirect.cgroup())?;
    match redirect.capture_cgroup(cgroup.path()).and_then(|_| watch(&cgroup)) {
        Ok(events) => Ok((cgroup, events)),
        Err(error) => {
            // Nobody has been told of it: there is nobody in it.
            remove(&cgroup, redirect);
            Err(error)
        }
    }
}

fn watch(cgroup: &ExecCgroup) -> Result<File, RedirectError> {
    let events = cgroup.events().and_then(|events| read_populated(&events).map(|_| events));
    events.map_err(|source| RedirectError::Cgroup { path: cgroup.path().to_owned(), source })
}

/// Captures again what an earlier weir left running, and removes what it left empty.
pub fn adopt_existing(running: &Arc<Running>) {
    let capture = running.capture();
    let Capture::On(redirect) = &*capture else { return };
    let existing = ExecCgroup::existing(redirect.cgroup());
    for cgroup in existing.unwrap_or_default() {
        match redirect.capture_cgroup(cgroup.path()).and_then(|_| watch(&cgroup)) {
            Ok(events) => {
                enter_all(running, redirect, &cgroup);
                tokio::spawn(remove_when_empty(cgroup, events, Arc::clone(running)));
            }
            Err(error) => tracing::warn!(%error, "can't capture again what an earlier weir captured"),
        }
    }
}

/// What an earlier weir captured goes on where it is.
fn enter_all(running: &Arc<Running>, redirect: &Redirect, cgroup: &ExecCgroup) {
    for pid in cgroup.processes() {
        if let Err(error) = capture::enter(running, redirect, pid) {
            tracing::warn!(%error, "can't capture again what an earlier weir captured");
        }
    }
}

/// Stops capturing: what connects from now on goes direct. Gives the cgroups in which programs still run: they
/// are left for them to live in, and for the next weir to capture again.
pub fn release(running: &Running) -> Vec<ExecCgroup> {
    let capture = std::mem::replace(&mut *running.capture(), Capture::Detached);
    let Capture::On(redirect) = capture else { return Vec::new() };
    let existing = ExecCgroup::existing(redirect.cgroup());
    drop(redirect);
    remove_empty(existing.unwrap_or_default())
}

/// Removes those of `cgroups` in which no program runs, and gives back the others.
pub fn remove_empty(mut cgroups: Vec<ExecCgroup>) -> Vec<ExecCgroup> {
    // One that is not empty refuses, as it should.
    cgroups.retain(|cgroup| cgroup.remove().is_err());
    cgroups
}

/// Waits until everybody has left the cgroup, and takes it away. As long as it is there, it is captured: somebody
/// may still come.
async fn remove_when_empty(cgroup: ExecCgroup, events: File, running: Arc<Running>) {
    let path = cgroup.path().display().to_string();
    for _ in 0..MAX_REMOVALS {
        if let Err(error) = until_left(&events).await
            && !is_removed(&error)
        {
            tracing::warn!(%error, path, "can't watch the cgroup of a captured program");
        }
        {
            let capture = running.capture();
            // Stopping removes the empty ones.
            let Capture::On(redirect) = &*capture else { return };
            if remove(&cgroup, redirect) {
                return;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    tracing::warn!(
        path,
        "can't remove the cgroup of a captured program: has it made cgroups of its own there?"
    );
}

/// Removes a cgroup, and only then stops capturing it. False: it is not empty, after all.
fn remove(cgroup: &ExecCgroup, redirect: &Redirect) -> bool {
    let path = cgroup.path().display();
    match cgroup.remove() {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return false,
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, %path, "can't remove the cgroup of a captured program");
        }
        _ => {
            if let Err(error) = redirect.release_cgroup(cgroup.id()) {
                tracing::warn!(%error, %path, "can't release the cgroup of a captured program");
            }
        }
    }
    true
}

/// Ready when the last program has left, or none has come within [`MOVE_IN`].
async fn until_left(events: &File) -> io::Result<()> {
    let mut came = false;
    let waiting_since = Instant::now();
    while came || waiting_since.elapsed() < MOVE_IN {
        // A change of `populated` means that somebody came, even one who has left again already.
        came |= has_changed(events)?;
        let populated = read_populated(events)?;
        came |= populated;
        if came && !populated {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Whether a cgroup's file can't be read as there is no such cgroup any more: during an upgrade two weirs look after the
/// same, and one of them removes it.
fn is_removed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENODEV)
}

/// Whether `cgroup.events` has changed since it was last read.
fn has_changed(events: &File) -> io::Result<bool> {
    Ok(poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], PollTimeout::ZERO)? > 0)
}

/// Whether a program lives in the cgroup. Reading arms the notification of the next change (cgroup-v2.rst).
fn read_populated(events: &File) -> io::Result<bool> {
    let mut text = [0; 128];
    let length = events.read_at(&mut text, 0)?;
    Ok(text[..length].split(|byte| *byte == b'\n').any(|line| line == b"populated 1"))
}
