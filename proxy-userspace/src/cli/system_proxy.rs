//! `weir system-proxy` and `weir restore`

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::{Admin, ConfigArguments, FAILED, Failed, NOT_RUNNING, client, config, say};
use crate::sysproxy;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Makes the running weir the proxy of this system.
    Configure {
        /// The network interface that counts. Default: that of the default route.
        #[arg(long)]
        interface: Option<String>,
        /// Prints the admin API's answer as it is.
        #[arg(long)]
        json: bool,
    },
    /// Gives the system the settings back that it had.
    Unconfigure {
        /// Prints the admin API's answer as it is.
        #[arg(long)]
        json: bool,
    },
    /// Says whether the system uses weir.
    Status {
        /// Prints the admin API's answer as it is.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    config: ConfigArguments,
    /// Tells it as JSON.
    #[arg(long)]
    json: bool,
}

/// How long the guardian of a weir that has just died may take.
const RESTORING: Duration = Duration::from_secs(10);

pub(super) fn run(command: &Command, admin: &Admin) -> Result<(), Failed> {
    match command {
        Command::Configure { interface, json } => {
            let asked = json!({ "interface": interface });
            let told = client::ask_patiently(admin, &Method::POST, "/proxy/configure-system", &asked)?;
            if *json {
                return say(&format!("{told:#}"));
            }
            say(&format!("the system's proxy is {}", text(&told["proxy_target"])))
        }
        Command::Unconfigure { json } => unconfigure(admin, *json),
        Command::Status { json } => status(admin, *json),
    }
}

fn unconfigure(admin: &Admin, json: bool) -> Result<(), Failed> {
    let told = client::ask_patiently(admin, &Method::POST, "/proxy/unconfigure-system", &json!({}))?;
    if json {
        return say(&format!("{told:#}"));
    }
    lines(&told["restored_to"]["kept"]).try_for_each(say)?;
    say("the system's proxy settings are again what they were")
}

fn status(admin: &Admin, json: bool) -> Result<(), Failed> {
    let told = client::ask(admin, &Method::GET, "/proxy/status")?["system_proxy"].clone();
    if json {
        return say(&format!("{told:#}"));
    }
    lines(&told["warnings"]).try_for_each(|warning| say(&format!("warning: {warning}")))?;
    if told["configured"] != true {
        return say("the system does not use weir");
    }
    let backends: Vec<&str> = lines(&told["backends"]).collect();
    say(&format!("the system's proxy is {} ({})", text(&told["proxy_target"]), backends.join(", ")))
}

/// What a weir that is gone has left, or the running one has set.
pub(super) fn restore(arguments: &Restore, admin: &Admin) -> Result<(), Failed> {
    let folder = config::load(&arguments.config)?.system_proxy.state_dir;
    let (restored, kept) = match sysproxy::restore(&folder, RESTORING) {
        Ok(Some(restored)) => (true, restored.warnings),
        Ok(None) => (false, Vec::new()),
        // A weir that runs has it.
        Err(None) => {
            match client::ask_patiently(admin, &Method::POST, "/proxy/unconfigure-system", &json!({})) {
                Ok(told) => (true, lines(&told["restored_to"]["kept"]).map(str::to_owned).collect()),
                Err(Failed { code: NOT_RUNNING, message }) => {
                    let why = format!("another process holds {}/state.lock, and {message}", folder.display());
                    return Err(Failed::new(FAILED, why));
                }
                Err(failed) => return Err(failed),
            }
        }
        Err(Some(why)) => return Err(Failed::new(FAILED, format!("not restored: {why}"))),
    };
    if arguments.json {
        return say(&format!("{:#}", json!({ "restored": restored, "kept": kept })));
    }
    kept.iter().try_for_each(|line| say(line))?;
    say(if restored {
        "the system's proxy settings are again what they were"
    } else {
        "there is nothing to restore"
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn lines(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().map(text)
}
