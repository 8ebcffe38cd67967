//! What container runtimes start, where `weir capture install-hook` has told engines to: `weir oci-hook`, a hook of the
//! OCI runtime specification, and `weir oci-runtime`, which stands before the real runtime and adds that hook, for
//! engines that have no place for hooks of their own.
//!
//! A container is never kept from starting, unless that was asked for (`--required`).

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use hyper::Method;
use serde_json::{Value, json};

use super::{Admin, FAILED, Failed, client};

/// How long a runtime lets the hook run, in seconds; weir answers sooner.
const HOOK_TIMEOUT: u32 = 20;

/// The longest state that a runtime tells.
const MAX_STATE: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Hook {
    /// Keeps the container from starting if weir can't be asked, or can't capture it.
    #[arg(long)]
    required: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Runtime {
    /// The runtime that does the work.
    #[arg(long, value_name = "PATH")]
    runtime: PathBuf,
    /// As for the hook.
    #[arg(long)]
    required: bool,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// Tells weir of the container whose state is on standard input, and waits until it is captured.
pub(super) fn hook(arguments: &Hook, admin: &Admin) -> Result<(), Failed> {
    match tell(admin) {
        Err(failed) if !arguments.required => {
            eprintln!("weir: the container starts uncaptured: {}", failed.message);
            Ok(())
        }
        result => result,
    }
}

fn tell(admin: &Admin) -> Result<(), Failed> {
    let failed = |error: io::Error| Failed::new(FAILED, format!("can't read the container's state: {error}"));
    let mut state = String::new();
    io::stdin().take(MAX_STATE).read_to_string(&mut state).map_err(failed)?;
    let state: Value = serde_json::from_str(&state).map_err(|error| failed(error.into()))?;
    let annotations = state.get("annotations").filter(|all| all.is_object()).cloned();
    let starting = json!({
        "id": state["id"],
        "pid": state["pid"],
        "annotations": annotations.unwrap_or_else(|| json!({})),
    });
    client::ask_with(admin, &Method::POST, "/capture/hook", &starting).map(drop)
}

/// Becomes the runtime; before that, adds the hook to a container that is to be created.
pub(super) fn runtime(arguments: &Runtime, admin: &Admin) -> Result<(), Failed> {
    if let Some(bundle) = created_bundle(&arguments.arguments)
        && let Err(error) = add_hook(&bundle.join("config.json"), arguments.required, admin.place())
    {
        let message = format!("can't add weir's hook to {}: {error}", bundle.display());
        if arguments.required {
            return Err(Failed::new(FAILED, message));
        }
        eprintln!("weir: {message}");
    }
    let error = Command::new(&arguments.runtime).args(&arguments.arguments).exec();
    Err(Failed::new(FAILED, format!("can't run {}: {error}", arguments.runtime.display())))
}

/// The bundle of a container that these arguments of runc's create; `--bundle` is the working directory by default.
fn created_bundle(arguments: &[OsString]) -> Option<PathBuf> {
    let command = arguments.iter().position(|word| word == "create" || word == "run")?;
    let mut words = arguments[command..].iter();
    while let Some(word) = words.next() {
        if word == "--bundle" || word == "-b" {
            return words.next().map(PathBuf::from);
        }
        if let Some(path) = word.to_str().and_then(|word| word.strip_prefix("--bundle=")) {
            return Some(path.into());
        }
    }
    Some(".".into())
}

fn add_hook(config: &Path, required: bool, admin: Option<&str>) -> io::Result<()> {
    let mut specification: Value = serde_json::from_slice(&std::fs::read(config)?)?;
    let program = std::env::current_exe()?;
    insert_hook(&mut specification, program.as_os_str(), required, admin);
    std::fs::write(config, specification.to_string())
}

/// createRuntime: the namespaces are there, and nothing runs in them yet. An engine's own hooks come first: they make the
/// container's network.
fn insert_hook(specification: &mut Value, program: &OsStr, required: bool, admin: Option<&str>) {
    let hooks = &mut specification["hooks"]["createRuntime"];
    if !hooks.is_array() {
        *hooks = json!([]);
    }
    let hook = json!({
        "path": program.to_string_lossy(),
        "args": hook_arguments(required, admin),
        "timeout": HOOK_TIMEOUT,
    });
    if let Some(hooks) = hooks.as_array_mut() {
        hooks.push(hook);
    }
}

/// The command line of the hook, its program's name first.
pub(super) fn hook_arguments(required: bool, admin: Option<&str>) -> Vec<String> {
    let mut words = vec!["weir".to_owned(), "oci-hook".to_owned()];
    if let Some(admin) = admin {
        words.extend(["--admin".to_owned(), admin.to_owned()]);
    }
    words.extend(required.then(|| "--required".to_owned()));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(arguments: &str, expected: Option<&str>) {
        let words: Vec<OsString> = arguments.split(' ').map(OsString::from).collect();
        assert_eq!(created_bundle(&words), expected.map(PathBuf::from), "{arguments}");
    }

    #[test]
    fn only_what_creates_a_container_has_a_bundle() {
        check("--root /r --log /l create --bundle /b --pid-file /p id", Some("/b"));
        check("create --bundle=/b id", Some("/b"));
        check("run -b /b id", Some("/b"));
        check("create id", Some("."));
        check("--root /r start id", None);
        check("--root /r delete --force id", None);
    }

    #[test]
    fn the_hook_comes_after_those_of_the_engine() {
        let mut specification =
            json!({ "hooks": { "createRuntime": [{ "path": "/first" }] }, "process": {} });
        insert_hook(&mut specification, OsStr::new("/usr/bin/weir"), true, Some("/run/weir/admin.sock"));
        let hooks = &specification["hooks"]["createRuntime"];
        assert_eq!(hooks[0]["path"], "/first");
        assert_eq!(hooks[1]["path"], "/usr/bin/weir");
        assert_eq!(
            hooks[1]["args"],
            json!(["weir", "oci-hook", "--admin", "/run/weir/admin.sock", "--required"])
        );
        let mut without = json!({});
        insert_hook(&mut without, OsStr::new("/usr/bin/weir"), false, None);
        assert_eq!(without["hooks"]["createRuntime"][0]["args"], json!(["weir", "oci-hook"]));
    }
}
