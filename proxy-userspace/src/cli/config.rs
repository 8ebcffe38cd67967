//! `weir config`

use clap::Subcommand;
use serde_json::{Value, json};

use hyper::Method;

use super::place::Admin;
use super::{ConfigArguments, Failed, MISUSED, client, say};
use crate::app::check;
use crate::config::{self, Config, ConfigError, ConfigErrors, Loaded, Origin, Sources};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Says whether the configuration is right; if not, what is wrong with which line.
    Check {
        #[command(flatten)]
        config: ConfigArguments,
        /// Tells it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows every key with the value that it has, secrets hidden.
    Show {
        #[command(flatten)]
        config: ConfigArguments,
        /// Tells where each value comes from: file, line and column, variable, flag, or default.
        #[arg(long)]
        origin: bool,
        /// Tells it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Has the running weir read its configuration again. What is wrong with it is told, and the one in force stays.
    Reload {
        /// Prints the admin API's answer as it is.
        #[arg(long)]
        json: bool,
    },
    /// Prints the JSON Schema (2020-12) of configuration files, for editors and other programs.
    Schema,
    /// Reads a password from standard input, and prints its hash for security.auth.users.
    HashPassword,
}

pub(super) fn run(command: &Command, admin: &Admin) -> Result<(), Failed> {
    match command {
        Command::Check { config, json: true } => check_as_json(config),
        Command::Check { config, json: false } => check(config),
        Command::Show { config, origin, json } => show(config, *origin, *json),
        Command::Reload { json } => reload(admin, *json),
        Command::Schema => say(&format!("{:#}", config::schema())),
        Command::HashPassword => hash_password(),
    }
}

fn check(arguments: &ConfigArguments) -> Result<(), Failed> {
    let config = load(arguments)?;
    warnings(&config).iter().try_for_each(|warning| say(&format!("warning: {warning}")))?;
    match check::look_up(&config).map_err(|problems| Failed::new(MISUSED, problems.join("\n")))? {
        (0, 0, _) => {}
        (blocked, allowed, left_out) => say(&format!(
            "security.filtering: {blocked} entries blocked, {allowed} allowed, {left_out} lines left out"
        ))?,
    }
    say("the configuration is right")
}

fn warnings(config: &Config) -> Vec<String> {
    [config::warnings(config), check::warnings(config)].concat()
}

/// `{valid, errors, warnings}`; the exit code is the same as without JSON.
fn check_as_json(arguments: &ConfigArguments) -> Result<(), Failed> {
    let (errors, warnings) = match config::load(&sources(arguments)) {
        Ok(config) => {
            let problems = check::look_up(&config).err().unwrap_or_default();
            (problems.iter().map(|message| json!({ "message": message })).collect(), warnings(&config))
        }
        Err(ConfigErrors(errors)) => (errors.iter().map(as_json).collect::<Vec<_>>(), Vec::new()),
    };
    let valid = errors.is_empty();
    say(&format!("{:#}", json!({ "valid": valid, "errors": errors, "warnings": warnings })))?;
    if valid { Ok(()) } else { Err(Failed::new(MISUSED, "the configuration is wrong")) }
}

fn as_json(error: &ConfigError) -> Value {
    let (file, line, column) = match &error.origin {
        Origin::File { file, line, column } => (Some(file.as_ref()), Some(*line), Some(*column)),
        Origin::Whole { file } => (Some(file.as_ref()), None, None),
        Origin::Variable(_) | Origin::Flag(_) | Origin::Default => (None, None, None),
    };
    json!({
        "origin": error.origin.to_string(), "file": file, "line": line, "column": column,
        "key": error.key, "message": error.message, "nearest": error.nearest,
    })
}

fn show(arguments: &ConfigArguments, origin: bool, json: bool) -> Result<(), Failed> {
    let effective = config::effective(&sources(arguments)).map_err(|errors| bad(&errors))?;
    match (json, origin) {
        (false, _) => say(&effective.yaml(origin)),
        (true, false) => say(&format!("{:#}", effective.json())),
        (true, true) => say(&format!("{:#}", effective.json_with_origins())),
    }
}

fn reload(admin: &Admin, json: bool) -> Result<(), Failed> {
    let told = client::ask_patiently(admin, &Method::POST, "/config/reload", &json!({}))?;
    if json {
        return say(&format!("{told:#}"));
    }
    let names = |key: &str| -> Vec<&str> {
        told[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    };
    names("warnings").iter().try_for_each(|warning| say(&format!("warning: {warning}")))?;
    let (changed, waiting) = (names("changed"), names("needs_restart"));
    say(&match changed.is_empty() {
        true => "read again; nothing has another value".to_owned(),
        false => format!("changed: {}", changed.join(", ")),
    })?;
    match waiting.is_empty() {
        true => Ok(()),
        false => say(&format!("needs a restart (or `weir upgrade`): {}", waiting.join(", "))),
    }
}

fn hash_password() -> Result<(), Failed> {
    let mut password = String::new();
    std::io::stdin()
        .read_line(&mut password)
        .map_err(|error| Failed::new(MISUSED, format!("standard input: {error}")))?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failed::new(MISUSED, "write the password to standard input, in one line"));
    }
    say(&crate::policy::auth::hash_password(password).map_err(|error| Failed::new(MISUSED, error))?)
}

/// The configuration that these arguments, the files and the environment make.
pub(super) fn load(arguments: &ConfigArguments) -> Result<Config, Failed> {
    load_sources(&sources(arguments)).map(|loaded| loaded.config)
}

pub(super) fn load_sources(sources: &Sources) -> Result<Loaded, Failed> {
    config::load_whole(sources).map_err(|errors| bad(&errors))
}

fn sources(arguments: &ConfigArguments) -> Sources {
    Sources::of_process(arguments.files.clone(), arguments.overrides.clone())
}

fn bad(errors: &ConfigErrors) -> Failed {
    Failed::new(MISUSED, format!("bad configuration:\n{errors}"))
}
