//! `weir status`

use hyper::Method;
use serde_json::Value;

use super::{Admin, Failed, client, say};
use crate::telemetry::flow::printable;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Lists the connections that were there before they would have been captured or refused. `weir capture recapture`
    /// ends them.
    #[arg(long)]
    existing: bool,
    /// Prints the admin API's answer as it is.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, admin: &Admin) -> Result<(), Failed> {
    if arguments.existing {
        return say_existing(arguments, admin);
    }
    let status = client::ask(admin, &Method::GET, "/proxy/status")?;
    if arguments.json {
        return say(&format!("{status:#}"));
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    say(&format!("weir {} (pid {})", text(&status["version"]), status["pid"]))?;
    say(&format!("proxy        {}", status["proxy_url"].as_str().unwrap_or("stopped")))?;
    if let Some(target) = status["system_proxy"]["proxy_target"].as_str() {
        say(&format!("             the system's proxy is {target} (`weir system-proxy status`)"))?;
    }
    if let Some(error) = status["config"]["last_error"].as_str() {
        say(&format!("config       {error}"))?;
    }
    let waiting: Vec<&str> = status["config"]["needs_restart"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !waiting.is_empty() {
        say(&format!("config       needs a restart (or `weir upgrade`): {}", waiting.join(", ")))?;
    }
    say(&format!("user         {}", who(&status)))?;
    say(&format!("up           {} s", status["uptime_seconds"]))?;
    for pid in status["predecessors"].as_array().into_iter().flatten() {
        say(&format!("             the earlier weir (pid {pid}) still finishes what it had"))?;
    }
    say(&format!("connections  {}", status["active_connections"]))?;
    say(&format!("requests     {}", status["request_count"]))?;
    say(&format!("forwarded    {} bytes", status["bytes_forwarded"]))?;
    say_capture(&status["capture"])
}

/// Whom it runs as, and what it may do.
fn who(status: &Value) -> String {
    let held: Vec<&str> =
        status["capabilities"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let held = match held.len() {
        0 => "no capabilities".to_owned(),
        1..=MOST_SHOWN => held.join(" "),
        _ => format!("{} capabilities", held.len()),
    };
    let assistant = match status["assistant"].as_u64() {
        Some(pid) => format!("; its assistant is process {pid}"),
        None => String::new(),
    };
    let confined = match (status["sandbox"]["files"] == true, status["sandbox"]["calls"] == true) {
        (true, true) => "; confined by Landlock and seccomp",
        (true, false) => "; confined by Landlock",
        (false, true) => "; confined by seccomp",
        (false, false) => "",
    };
    format!("{} with {held}{assistant}{confined}", status["user"])
}

/// Root has all of them.
const MOST_SHOWN: usize = 8;

fn say_capture(capture: &Value) -> Result<(), Failed> {
    let state = capture["state"].as_str().unwrap_or("unknown");
    match capture["reason"].as_str() {
        Some(reason) => say(&format!("capture      {state}: {reason}"))?,
        None => say(&format!("capture      {state}"))?,
    }
    let kernel = &capture["kernel"];
    for problem in kernel["problems"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        say(&format!("  PROBLEM: {problem}"))?;
    }
    if let Some(cgroup) = kernel["cgroup"].as_str() {
        say(&format!("  cgroup                     {cgroup}"))?;
    }
    for hook in kernel["hooks"].as_array().into_iter().flatten() {
        let attached = if hook["attached"] == true { "attached" } else { "NOT ATTACHED" };
        say(&format!("  {:<26} {attached}", hook["name"].as_str().unwrap_or_default()))?;
    }
    for other in kernel["others"].as_array().into_iter().flatten() {
        say(&other_program(other))?;
    }
    if let Some(refused @ 1..) = capture["counters"]["bypass_refused"].as_u64() {
        say(&format!(
            "  other programs             have refused {refused} connections or datagrams before weir's ran"
        ))?;
    }
    for rule in kernel["rules"].as_array().into_iter().flatten() {
        let (name, action) = (rule["name"].as_str().unwrap_or_default(), &rule["action"]);
        let missing: Vec<_> =
            rule["missing"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let missing =
            if missing.is_empty() { String::new() } else { format!("; NOT THERE: {}", missing.join(", ")) };
        let action = action.as_str().unwrap_or_default();
        say(&format!("  rule {name:<21} {action}, matched {}{missing}", rule["hits"]))?;
    }
    let holder = &kernel["holder"];
    if holder["running"] == false {
        say(
            "  holder                     NOT RUNNING: if weir dies, connections go direct; start weir again",
        )?;
    } else if holder["pid"].is_u64() {
        say(&format!("  holder                     pid {}", holder["pid"]))?;
    }
    for namespace in capture["namespaces"].as_array().into_iter().flatten() {
        let listeners = namespace["listeners"].as_array().into_iter().flatten();
        let listeners: Vec<&str> = listeners.filter_map(Value::as_str).collect();
        let name = format!("netns {}", namespace["inode"]);
        say(&format!("  {name:<26} listening on {}", listeners.join(" and ")))?;
    }
    for map in kernel["maps"].as_array().into_iter().flatten() {
        let name = map["name"].as_str().unwrap_or_default();
        say(&format!("  {name:<26} {} of {} entries", map["entries"], map["capacity"]))?;
    }
    Ok(())
}

/// What it may do is all that can be known.
fn other_program(other: &Value) -> String {
    let text = |key: &str| printable(other[key].as_str().unwrap_or_default().to_owned());
    let place = if other["above"] == true { "a cgroup above" } else { "the same cgroup" };
    let may = if other["before"] == true {
        "before weir's: what it refuses is refused, where it sends a connection, weir takes that for its destination"
    } else {
        "after weir's: it may refuse what weir lets pass or takes"
    };
    format!("  {:<26} program {} {} of {place} runs {may}", text("hook"), other["id"], text("name"))
}

fn say_existing(arguments: &Arguments, admin: &Admin) -> Result<(), Failed> {
    let answer = client::ask(admin, &Method::GET, "/capture/existing")?;
    if arguments.json {
        return say(&format!("{answer:#}"));
    }
    for socket in answer["sockets"].as_array().into_iter().flatten() {
        let (would, reason) = (&socket["would"], &socket["reason"]);
        let would = would.as_str().unwrap_or_default();
        say(&format!("{}  {would}: {}", existing(socket), reason.as_str().unwrap_or_default()))?;
    }
    Ok(())
}

/// `curl[4242] tcp 198.18.0.1:40000 -> 198.18.0.2:443`.
pub(super) fn existing(socket: &Value) -> String {
    let text = |key: &str| socket[key].as_str().unwrap_or_default().to_owned();
    format!(
        "{}[{}] {} {} -> {}",
        text("comm"),
        socket["pid"],
        text("protocol"),
        text("local"),
        text("remote")
    )
}
