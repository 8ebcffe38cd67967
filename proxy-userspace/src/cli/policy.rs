//! `weir policy`

use hyper::Method;
use serde_json::Value;

use super::{Admin, Failed, client, say};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Says what rules and lists are in force.
    Show {
        /// Prints the admin API's answer as it is.
        #[arg(long)]
        json: bool,
    },
    /// Reads the configuration's `security` section again, lists included. SIGHUP does the same.
    Reload {
        /// Prints the admin API's answer as it is.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(command: &Command, admin: &Admin) -> Result<(), Failed> {
    let (policy, json) = match command {
        Command::Show { json } => (client::ask(admin, &Method::GET, "/policy")?, *json),
        Command::Reload { json } => (client::ask(admin, &Method::POST, "/policy/reload")?, *json),
    };
    if json { say(&format!("{policy:#}")) } else { tell(&policy) }
}

fn tell(policy: &Value) -> Result<(), Failed> {
    let lists = &policy["filtering"];
    say(&format!(
        "{}: {} entries blocked, {} allowed, {} lines left out",
        lists["mode"].as_str().unwrap_or_default(),
        lists["blocked"],
        lists["allowed"],
        lists["lines_left_out"]
    ))?;
    let rules = policy["rules"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let rules: Vec<&str> = rules.collect();
    say(&format!("{} rules: {}", rules.len(), rules.join(", ")))
}
