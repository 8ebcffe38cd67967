//! `weir flows`

use std::fmt::Write;

use hyper::Method;
use serde_json::Value;

use super::{Admin, FAILED, Failed, client, say};
use crate::telemetry::flow::printable;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Goes on with every new flow until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// At most so many of the last flows.
    #[arg(long, short = 'n', value_name = "COUNT")]
    count: Option<usize>,
    /// Only flows of programs in this cgroup (its id, as `weir exec --cgroup-file` writes it).
    #[arg(long, value_name = "ID")]
    cgroup: Option<u64>,
    /// Prints each flow as a line of JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, admin: &Admin) -> Result<(), Failed> {
    let mut path = format!("/flows?follow={}", arguments.follow);
    // Writing to a String does not fail.
    if let Some(count) = arguments.count {
        let _ = write!(path, "&count={count}");
    }
    if let Some(cgroup) = arguments.cgroup {
        let _ = write!(path, "&cgroup={cgroup}");
    }
    if arguments.follow {
        // All that another weir has seen is new.
        let again = match arguments.cgroup {
            Some(cgroup) => format!("/flows?follow=true&cgroup={cgroup}"),
            None => "/flows?follow=true".to_owned(),
        };
        return client::follow(admin, (&path, &again), |line| {
            let flow = serde_json::from_str(line)
                .map_err(|error| Failed::new(FAILED, format!("strange answer: {error}")))?;
            show(&flow, arguments.json)
        });
    }
    let flows = client::ask(admin, &Method::GET, &path)?;
    flows.as_array().into_iter().flatten().try_for_each(|flow| show(flow, arguments.json))
}

fn show(flow: &Value, json: bool) -> Result<(), Failed> {
    if json {
        return say(&flow.to_string());
    }
    let text = |key: &str| match &flow[key] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let who = match &flow["process"] {
        Value::Null => text("client"),
        process => {
            let container = process["container"]["name"].as_str().map(|name| format!("{name}/"));
            let comm = process["comm"].as_str().unwrap_or_default();
            format!("{}{comm}[{}]", container.unwrap_or_default(), process["pid"])
        }
    };
    let who = match flow["user"].as_str() {
        Some(user) => format!("{user}@{who}"),
        None => who,
    };
    let place =
        ["url", "authority", "original_destination"].iter().map(|key| text(key)).find(|text| text != "-");
    let milliseconds = flow["timings"]["total_us"].as_f64().unwrap_or_default() / 1000.0;
    say(&printable(format!(
        "{} {} {who} {} {} via {} {} {} sent={} received={} {milliseconds:.1}ms {}",
        text("id"),
        text("front"),
        text("method"),
        place.as_deref().unwrap_or("-"),
        text("upstream"),
        text("protocol"),
        text("status"),
        text("sent"),
        text("received"),
        flow["verdict"].as_str().unwrap_or(&text("end")),
    )))
}
