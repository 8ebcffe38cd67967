//! `weir backends`

use hyper::Method;
use serde_json::{Value, json};

use super::{Admin, Failed, client, say};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Shows the groups, and how their members are.
    List {
        /// Prints the admin API's answer as it is.
        #[arg(long)]
        json: bool,
    },
    /// Gives a member no new requests; what it has goes on to its end.
    Drain { backend: String, member: String },
    /// Gives a drained member requests again.
    Enable { backend: String, member: String },
    /// Gives a member another share of the requests, from 0 to 256.
    Weight { backend: String, member: String, weight: u32 },
}

pub(super) fn run(command: &Command, admin: &Admin) -> Result<(), Failed> {
    let change = |backend: &String, member: &String, key: &str, value: Value| {
        let body = json!({ "backend": backend, "member": member, key: value });
        show(&client::ask_with(admin, &Method::POST, "/backends", &body)?)
    };
    match command {
        Command::List { json } => {
            let told = client::ask(admin, &Method::GET, "/backends")?;
            if *json { say(&format!("{told:#}")) } else { show(&told) }
        }
        Command::Drain { backend, member } => change(backend, member, "drain", true.into()),
        Command::Enable { backend, member } => change(backend, member, "drain", false.into()),
        Command::Weight { backend, member, weight } => change(backend, member, "weight", (*weight).into()),
    }
}

fn show(told: &Value) -> Result<(), Failed> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let groups = told["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    if groups.is_empty() {
        return say("there are none; routing.backends of the configuration makes them");
    }
    for group in groups {
        say(&format!(
            "{}: {}, {} waiting, {} retries, {} denied",
            text(&group["name"]),
            text(&group["balance"]),
            group["waiting"],
            group["retries"],
            group["retries_denied"]
        ))?;
        for member in group["members"].as_array().into_iter().flatten() {
            let complaint = member["check"].as_str().map(|complaint| format!(" ({complaint})"));
            say(&format!(
                "  {:<24} {:<10} weight={} active={} requests={} failures={} {}{}",
                text(&member["name"]),
                text(&member["state"]),
                member["weight"],
                member["active"],
                member["requests"],
                member["failures"],
                text(&member["url"]),
                complaint.unwrap_or_default()
            ))?;
        }
    }
    Ok(())
}
