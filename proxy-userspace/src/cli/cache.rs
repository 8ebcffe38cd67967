//! `weir cache`

use hyper::Method;
use serde_json::Value;

use super::{Admin, Failed, client, say};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Says how full the cache is, and what it has done.
    Stats(Stats),
    /// Shows what is stored: for a URL, a host, *.host, or a URL with * for any text.
    Inspect(Inspect),
    /// Removes what is stored.
    Purge(Purge),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Stats {
    /// Prints the admin API's answer as it is.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    pattern: String,
    /// Prints the admin API's answer as it is.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Purge {
    /// A host, *.host, a URL with * for any text, or * for everything.
    #[arg(required_unless_present = "tag")]
    pattern: Option<String>,
    /// What has this in Surrogate-Key or Cache-Tag.
    #[arg(long, conflicts_with = "pattern")]
    tag: Option<String>,
    /// Prints the admin API's answer as it is.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command, admin: &Admin) -> Result<(), Failed> {
    match command {
        Command::Stats(arguments) => stats(arguments, admin),
        Command::Inspect(arguments) => inspect(arguments, admin),
        Command::Purge(arguments) => purge(arguments, admin),
    }
}

fn stats(arguments: &Stats, admin: &Admin) -> Result<(), Failed> {
    let stats = client::ask(admin, &Method::GET, "/admin/cache/stats")?;
    if arguments.json {
        return say(&format!("{stats:#}"));
    }
    if stats["enabled"] != true {
        return say("the cache is off: set cache.enabled to true");
    }
    let memory = &stats["memory"];
    say(&format!(
        "{} URLs in {} of {} bytes, {} dropped for want of room",
        memory["keys"], memory["bytes"], memory["max_bytes"], memory["evictions"]
    ))?;
    for store in stats["stores"].as_array().into_iter().flatten() {
        say(&store_line(store))?;
    }
    for (name, what) in [
        ("hits", "answered from store, fresh"),
        ("stale_hits", "answered from store, stale"),
        ("revalidated", "answered from store after their origin was asked"),
        ("collapsed", "answered with the response to another request"),
        ("forwarded", "sent on"),
        ("stored", "responses stored"),
        ("bytes_from_store", "bytes from store"),
    ] {
        say(&format!("{:>12} {what}", stats[name].to_string()))?;
    }
    Ok(())
}

/// `disk (ready): 2 URLs in 8192 of 10000000000 bytes; 3 hits, 2 stored, ...`
fn store_line(store: &Value) -> String {
    let text = |name: &str| store[name].as_str().unwrap_or_default();
    let mut line = format!("{} ({}):", text("store"), text("state"));
    if let (Some(keys), Some(bytes)) = (store["keys"].as_u64(), store["bytes"].as_u64()) {
        line.push_str(&format!(" {keys} URLs in {bytes} of {} bytes;", store["max_bytes"]));
    }
    let counts = [
        ("hits", "hits"),
        ("stored", "stored"),
        ("evictions", "dropped for want of room"),
        ("dropped", "not taken"),
        ("errors", "errors"),
        ("breaker_opened", "times given up on"),
        ("damaged", "damaged"),
    ];
    let counts = counts.iter().filter_map(|(name, what)| Some(format!("{} {what}", store[*name].as_u64()?)));
    format!("{line} {}", counts.collect::<Vec<_>>().join(", "))
}

fn inspect(arguments: &Inspect, admin: &Admin) -> Result<(), Failed> {
    let path = format!("/admin/cache/entries?pattern={}", client::escape(&arguments.pattern));
    let entries = client::ask(admin, &Method::GET, &path)?;
    if arguments.json {
        return say(&format!("{entries:#}"));
    }
    let entries = entries.as_array().map(Vec::as_slice).unwrap_or_default();
    if entries.is_empty() {
        return say("nothing is stored for that, and nothing is known of answers that were not");
    }
    for entry in entries {
        say(entry["key"].as_str().unwrap_or_default())?;
        for variant in entry["variants"].as_array().into_iter().flatten() {
            say(&format!("  {}", variant_line(variant)))?;
        }
        if let Some(detail) = entry["not_stored"]["detail"].as_str() {
            let note = &entry["not_stored"];
            let explanation = note["explanation"].as_str().unwrap_or_default();
            let (status, ago) = (&note["status"], &note["seconds_ago"]);
            say(&format!("  {status} not stored {ago} s ago, {detail}: {explanation}"))?;
        }
    }
    Ok(())
}

fn variant_line(variant: &Value) -> String {
    let left = variant["fresh_for_seconds"].as_i64().unwrap_or_default();
    let state = match left {
        _ if variant["always_validated"] == true => "validated with every use".to_owned(),
        1.. => format!("fresh for {left} s"),
        _ => format!("stale for {} s", -left),
    };
    let guess = if variant["lifetime_is_a_guess"] == true { " (a guess)" } else { "" };
    let selected = variant["selected_by"].as_array().into_iter().flatten().map(|selector| {
        let value = selector["value"].as_str().map_or("absent".to_owned(), |value| format!("`{value}`"));
        format!(", {} {value}", selector["field"].as_str().unwrap_or_default())
    });
    let selected: String = selected.collect();
    let part = match &variant["part"] {
        Value::Null => String::new(),
        part => format!(" ({} to {} of {})", part["first"], part["last"], part["of"]),
    };
    let store = variant["store"].as_str().unwrap_or("memory");
    let place = if store == "memory" { String::new() } else { format!("{store}: ") };
    format!(
        "{place}{} {} bytes{part}, age {} s, {state}{guess}{selected}",
        variant["status"], variant["bytes"], variant["age_seconds"]
    )
}

fn purge(arguments: &Purge, admin: &Admin) -> Result<(), Failed> {
    let query = match (&arguments.pattern, &arguments.tag) {
        (_, Some(tag)) => format!("tag={}", client::escape(tag)),
        (pattern, None) => format!("pattern={}", client::escape(pattern.as_deref().unwrap_or_default())),
    };
    let answer = client::ask(admin, &Method::DELETE, &format!("/admin/cache?{query}"))?;
    if arguments.json {
        return say(&format!("{answer:#}"));
    }
    say(&format!("{} removed", answer["removed"]))
}
