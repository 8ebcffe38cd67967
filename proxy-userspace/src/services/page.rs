//! The list of services: for programs, and a plain page for browsers.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Service, Table};

/// What is told of all services.
#[must_use]
pub fn list(table: &Table) -> Value {
    let prefix = table.prefix().unwrap_or_default();
    let services: Vec<Value> = table.services().iter().map(|service| about(service, prefix)).collect();
    json!({ "services": services })
}

/// What is told of one.
#[must_use]
pub fn about(service: &Service, prefix: &str) -> Value {
    let urls: Vec<String> = service.keys().map(|key| format!("{prefix}/{key}/")).collect();
    json!({
        "id": service.id,
        "name": service.name,
        "framework": service.framework().handler().name(),
        "state": service.state(),
        "from": service.origin,
        "url": urls.first(),
        "urls": urls,
        "container": service.full_id,
        "reason": service.stopped,
    })
}

/// The same for people.
#[must_use]
pub fn html(table: &Table) -> String {
    let prefix = table.prefix().unwrap_or_default();
    let mut rows = String::new();
    for service in table.services() {
        // Ids are characters that need no escaping.
        let (id, name) = (&service.id, escaped(&service.name));
        let (framework, state) = (service.framework().handler().name(), service.state());
        // Writing to a String does not fail.
        let _ = writeln!(
            rows,
            "<tr><td><a href=\"{prefix}/{id}/\">{name}</a></td><td>{id}</td><td>{framework}</td><td>{state}</td></tr>"
        );
    }
    if rows.is_empty() {
        rows.push_str("<tr><td colspan=\"4\">none</td></tr>\n");
    }
    format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>Services</title>\n<h1>Services</h1>\n<table>\n\
         <tr><th>Name</th><th>Id</th><th>Framework</th><th>State</th></tr>\n{rows}</table>\n"
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}
