//! `weir capture events`: what the kernel half decides, as it does.

use serde_json::Value;

use super::{Admin, FAILED, Failed, client, say};
use crate::telemetry::flow::printable;

const PATH: &str = "/capture/events";

/// Which are shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// Only these: direct, redirect, deny.
    #[arg(long, value_name = "OUTCOME", value_delimiter = ',', value_parser = ["direct", "redirect", "deny"])]
    only: Vec<String>,
    /// Prints each as a line of JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Events, admin: &Admin) -> Result<(), Failed> {
    client::follow(admin, (PATH, PATH), |line| {
        if line.trim().is_empty() {
            return Ok(());
        }
        let event: Value = serde_json::from_str(line)
            .map_err(|error| Failed::new(FAILED, format!("strange answer: {error}")))?;
        let outcome = event["outcome"].as_str().unwrap_or_default();
        if !arguments.only.is_empty() && !arguments.only.iter().any(|wanted| wanted == outcome) {
            return Ok(());
        }
        if arguments.json { say(&event.to_string()) } else { show(&event) }
    })
}

fn show(event: &Value) -> Result<(), Failed> {
    let text = |key: &str| event[key].as_str().unwrap_or("-");
    say(&printable(format!(
        "{} {}[{}] {} {} rule={} {} cgroup={} uid={}",
        text("outcome"),
        text("comm"),
        event["pid"],
        text("protocol"),
        text("destination"),
        text("rule"),
        text("reason"),
        event["cgroup"],
        event["uid"],
    )))
}
