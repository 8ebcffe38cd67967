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
    Reload,
}

pub(super) fn run(command: &Command, admin: &Admin) -> Result<(), Failed> {
    match command {
        Command::Show { json: true } => say(&format!("{:#}", client::ask(admin, &Method::GET, "/policy")?)),
        Command::Show { json: false } => tell(&client::ask(admin, &Method::GET, "/policy")?),
        Command::Reload => tell(&client::ask(admin, &Method::POST, "/policy/reload")?),
    }
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
