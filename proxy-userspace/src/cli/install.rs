//! `weir capture install-hook | remove-hook`: makes container engines tell weir of a container before it starts.
//!
//! docker: a runtime of our name in daemon.json, as the default one. podman: a file in its folder of hooks. What was in
//! daemon.json is kept beside it, and comes back as it was if nobody has changed the file since.
//!
//! A running docker keeps its default runtime if it reads that there is none: so another one is named to it first.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::oci::hook_arguments;
use super::{FAILED, Failed, client, say};
use crate::containers;

/// docker's name for the runtime that adds the hook.
const RUNTIME: &str = "weir";

#[derive(Debug, clap::Args)]
pub(crate) struct Engines {
    /// docker's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/docker/daemon.json")]
    docker_config: PathBuf,
    /// docker's API socket: the engine behind it is told to read its configuration again.
    #[arg(long, value_name = "SOCKET", default_value = "/run/docker.sock")]
    docker_socket: PathBuf,
    /// podman's folder of hooks.
    #[arg(long, value_name = "FOLDER", default_value = "/etc/containers/oci/hooks.d")]
    podman_hooks: PathBuf,
    /// Only docker's, or only podman's. Default: whichever is installed.
    #[arg(long, value_enum)]
    engine: Option<Engine>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    Docker,
    Podman,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Install {
    #[command(flatten)]
    engines: Engines,
    /// The runtime that docker is to go on using.
    #[arg(long, value_name = "PATH", default_value = "runc")]
    runtime: PathBuf,
    /// Keeps containers from starting when weir doesn't answer.
    #[arg(long)]
    required: bool,
}

impl Engines {
    fn has(&self, engine: Engine) -> bool {
        self.engine.map_or_else(
            || {
                let program = if engine == Engine::Docker { "dockerd" } else { "podman" };
                ["/usr/bin", "/usr/sbin", "/usr/local/bin"]
                    .iter()
                    .any(|folder| Path::new(folder).join(program).exists())
            },
            |only| only == engine,
        )
    }
}

pub(super) fn install(install: &Install, admin: Option<&str>) -> Result<(), Failed> {
    let engines = &install.engines;
    let program = std::env::current_exe().map_err(|error| failed("weir's own program", &error))?;
    let program = program.display().to_string();
    if engines.has(Engine::Docker) {
        let path = &engines.docker_config;
        let runtime = json!({ "path": program, "runtimeArgs": runtime_arguments(install, admin) });
        edit(path, |config| add_runtime(config, runtime)).map_err(|error| failed(path.display(), &error))?;
        say(&format!("docker: {} makes `{RUNTIME}` the default runtime", path.display()))?;
        reload(&engines.docker_socket)?;
    }
    if engines.has(Engine::Podman) {
        let path = engines.podman_hooks.join("weir.json");
        let hook = json!({
            "version": "1.0.0",
            "hook": { "path": program, "args": hook_arguments(install.required, admin) },
            "when": { "always": true },
            "stages": ["createRuntime"],
        });
        fs::create_dir_all(&engines.podman_hooks)
            .and_then(|()| replace(&path, format!("{hook:#}\n").as_bytes()))
            .map_err(|error| failed(path.display(), &error))?;
        say(&format!("podman: {}", path.display()))?;
    }
    Ok(())
}

pub(super) fn remove(engines: &Engines) -> Result<(), Failed> {
    if engines.has(Engine::Docker) {
        let path = &engines.docker_config;
        let failed = |error| failed(path.display(), &error);
        if let Some(default) = name_another(path).map_err(failed)? {
            reload(&engines.docker_socket)?;
            wait_for_runtime(&engines.docker_socket, &default)?;
        }
        if restore(path).map_err(failed)? {
            say(&format!("docker: {} is without weir again", path.display()))?;
        }
    }
    let path = engines.podman_hooks.join("weir.json");
    if engines.has(Engine::Podman) && path.exists() {
        fs::remove_file(&path).map_err(|error| failed(path.display(), &error))?;
        say(&format!("podman: {} is gone", path.display()))?;
    }
    Ok(())
}

fn runtime_arguments(install: &Install, admin: Option<&str>) -> Vec<String> {
    let mut words = vec!["oci-runtime".to_owned()];
    if let Some(admin) = admin {
        words.extend(["--admin".to_owned(), admin.to_owned()]);
    }
    words.extend(["--runtime".to_owned(), install.runtime.display().to_string()]);
    words.extend(install.required.then(|| "--required".to_owned()));
    words.push("--".to_owned());
    words
}

/// Changes a JSON file, and keeps what was there before the first change.
fn edit(path: &Path, change: impl FnOnce(&mut Value)) -> io::Result<()> {
    let kept = kept(path);
    let before = match fs::read(if kept.exists() { &kept } else { path }) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        before => before?,
    };
    if !kept.exists() {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        replace(&kept, &before)?;
    }
    replace(path, &changed(&before, change)?)
}

fn changed(before: &[u8], change: impl FnOnce(&mut Value)) -> io::Result<Vec<u8>> {
    let mut config = if before.is_empty() { json!({}) } else { serde_json::from_slice(before)? };
    if !config.is_object() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no JSON object"));
    }
    change(&mut config);
    Ok(format!("{config:#}\n").into_bytes())
}

fn add_runtime(config: &mut Value, runtime: Value) {
    if !config["runtimes"].is_object() {
        config["runtimes"] = json!({});
    }
    config["runtimes"][RUNTIME] = runtime;
    config["default-runtime"] = json!(RUNTIME);
}

/// Makes the old default runtime the default again, by name. None: nothing of ours is there.
fn name_another(path: &Path) -> io::Result<Option<String>> {
    let before = match fs::read(kept(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        before => before?,
    };
    let before: Value = serde_json::from_slice(&before).unwrap_or_default();
    let default = before["default-runtime"].as_str().unwrap_or("runc").to_owned();
    replace(path, &changed(&fs::read(path)?, |config| config["default-runtime"] = json!(default))?)?;
    Ok(Some(default))
}

/// An engine that does not run reads its configuration when it starts.
fn wait_for_runtime(socket: &Path, name: &str) -> Result<(), Failed> {
    let engine = containers::Engine::new(socket.to_owned());
    client::block_on(async {
        for _ in 0..RELOAD_LOOKS {
            match engine.default_runtime().await {
                Ok(default) if default != name => tokio::time::sleep(RELOAD_LOOK).await,
                _ => return Ok(()),
            }
        }
        say("docker: it still starts containers by way of weir: restart it before weir is removed")
    })
}

/// How often, and how long each time, it is looked whether docker has taken up its configuration.
const RELOAD_LOOKS: usize = 100;
const RELOAD_LOOK: Duration = Duration::from_millis(50);

/// Takes ours out again. False: nothing of ours was there.
fn restore(path: &Path) -> io::Result<bool> {
    let kept = kept(path);
    let before = match fs::read(&kept) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        before => before?,
    };
    let now = fs::read(path)?;
    let config: Value = serde_json::from_slice(&now)?;
    let ours = changed(&before, |before| {
        add_runtime(before, config["runtimes"][RUNTIME].clone());
        before["default-runtime"] = config["default-runtime"].clone();
    })?;
    if now != ours {
        // Somebody has changed it since: only what is ours goes.
        let old: Value = serde_json::from_slice(&before).unwrap_or_default();
        replace(path, &changed(&now, |config| take_runtime(config, &old))?)?;
    } else if before.is_empty() {
        fs::remove_file(path)?;
    } else {
        replace(path, &before)?;
    }
    fs::remove_file(kept)?;
    Ok(true)
}

fn take_runtime(config: &mut Value, before: &Value) {
    let Some(config) = config.as_object_mut() else { return };
    // Ours, or what `name_another` has put in its place.
    let default = before.get("default-runtime").cloned().unwrap_or_else(|| json!("runc"));
    if config.get("default-runtime").is_some_and(|named| *named == json!(RUNTIME) || *named == default) {
        config.remove("default-runtime");
        if let Some(old) = before.get("default-runtime") {
            config.insert("default-runtime".into(), old.clone());
        }
    }
    if let Some(runtimes) = config.get_mut("runtimes").and_then(Value::as_object_mut) {
        runtimes.remove(RUNTIME);
        if runtimes.is_empty() {
            config.remove("runtimes");
        }
    }
}

/// What was there before, for `restore`.
fn kept(path: &Path) -> PathBuf {
    path.with_extension("json.before-weir")
}

/// A reader sees the old file or the new one, never half of it.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, content)?;
    fs::rename(&fresh, path)
}

/// SIGHUP makes docker read its runtimes again.
fn reload(socket: &Path) -> Result<(), Failed> {
    let Ok(engine) = UnixStream::connect(socket) else { return Ok(()) };
    let peer = getsockopt(&engine, PeerCredentials).map(|peer| peer.pid()).ok();
    // Behind an activated socket it is systemd that has listened; docker's own number is in a file then.
    let noted = fs::read_to_string(PID_FILE).ok().and_then(|pid| pid.trim().parse().ok());
    let is_docker =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "dockerd\n");
    match peer.into_iter().chain(noted).find(is_docker) {
        Some(pid) => kill(Pid::from_raw(pid), Signal::SIGHUP)
            .map_err(|error| failed("the running docker", &error.into())),
        None => say("docker: now `systemctl reload docker`"),
    }
}

const PID_FILE: &str = "/run/docker.pid";

fn failed(what: impl std::fmt::Display, error: &io::Error) -> Failed {
    Failed::new(FAILED, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: Option<&str>, by_hand: impl Fn(&Path), expected: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daemon.json");
        if let Some(before) = before {
            fs::write(&path, before).unwrap();
        }
        for nth in 0..2 {
            edit(&path, |config| add_runtime(config, json!({ "path": "/w", "nth": nth }))).unwrap();
        }
        let config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(config["default-runtime"], "weir");
        assert_eq!(config["runtimes"]["weir"]["nth"], 1);
        by_hand(&path);
        assert!(name_another(&path).unwrap().is_some());
        assert!(restore(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), expected);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), usize::from(expected.is_some()));
        assert!(!restore(&path).unwrap());
    }

    #[test]
    fn docker_has_its_configuration_back_byte_for_byte() {
        let odd = "{ \"runtimes\": {\"kata\": {\"path\": \"/k\"}},\n\"default-runtime\" :\"kata\", \"a\":1}";
        check(Some(odd), |_| {}, Some(odd));
        check(None, |_| {}, None);
    }

    #[test]
    fn what_was_changed_meanwhile_stays() {
        let change = |path: &Path| {
            let text = fs::read_to_string(path).unwrap().replace("\"a\": 1", "\"a\": 2");
            fs::write(path, text).unwrap();
        };
        check(Some("{\"a\":1}"), change, Some("{\n  \"a\": 2\n}\n"));
        check(
            Some("{\"a\":1,\"default-runtime\":\"kata\"}"),
            change,
            Some("{\n  \"a\": 2,\n  \"default-runtime\": \"kata\"\n}\n"),
        );
    }
}
