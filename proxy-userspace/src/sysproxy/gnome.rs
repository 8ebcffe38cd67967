//! GNOME, and whatever else reads `org.gnome.system.proxy`: Cinnamon, Budgie, Chromium, Electron, libproxy. By gsettings;
//! dconf, where it is installed, tells which keys are unset, so that these are unset again.

use serde_json::{Value, json};

use super::backend::{Backend, Change, NotHere, Plan, Shown, Unreadable, ValueChange, Values, Wanted};
use super::command::{is_installed, run};
use super::session::Session;

pub(super) struct Gnome;

const SCHEMA: &str = "org.gnome.system.proxy";

/// Where the schema's keys are in dconf.
const FOLDER: &str = "/system/proxy/";

/// All that weir may change. A key of a schema below is `http/host`.
const MODE: &str = "mode";
const PAC: &str = "autoconfig-url";
const EXEMPT: &str = "ignore-hosts";

impl Backend for Gnome {
    fn name(&self) -> &'static str {
        "gnome"
    }

    fn plan(&self, wanted: &Wanted<'_>) -> Result<Plan, NotHere> {
        if !is_installed("gsettings") {
            return Err(NotHere::Absent("there is no gsettings".to_owned()));
        }
        if !wanted.session.has_bus() {
            return Err(NotHere::Absent(format!("{} has no session with a D-Bus", wanted.session.name)));
        }
        let told = listed(wanted.session, &[]).map_err(|error| {
            if error.contains("No such schema") { NotHere::Absent(error) } else { NotHere::Failed(error) }
        })?;
        if !told.contains_key(MODE) {
            return Err(NotHere::Absent(format!("there is no schema {SCHEMA}")));
        }
        let text = |key: &str| told.get(key).and_then(Clone::clone).unwrap_or_default();
        let mut ours: Vec<(&str, String)> = Vec::new();
        if wanted.settings.pac {
            ours.push((PAC, quoted(&wanted.pac_url())));
            ours.push((MODE, quoted("auto")));
        } else {
            let (host, port) = (wanted.proxy.ip().to_string(), wanted.proxy.port().to_string());
            for (host_key, port_key) in [("http/host", "http/port"), ("https/host", "https/port")] {
                ours.push((host_key, quoted(&host)));
                ours.push((port_key, port.clone()));
            }
            let exempt = text(EXEMPT);
            let all = wanted.with_exempt(elements(&exempt).iter().map(String::as_str));
            let all: Vec<String> = all.iter().map(|one| quoted(one)).collect();
            ours.push((EXEMPT, format!("[{}]", all.join(", "))));
            ours.push((MODE, quoted("manual")));
        }
        let keys: Vec<&str> = ours.iter().map(|(key, _)| *key).collect();
        let before = self.read(wanted.session, &keys).map_err(|unreadable| match unreadable {
            Unreadable::Vanished(why) | Unreadable::Failed(why) => NotHere::Failed(why),
        })?;
        let changes = ours.into_iter().map(|(key, value)| {
            Change::Value(ValueChange {
                key: key.to_owned(),
                before: before.get(key).cloned().flatten(),
                ours: Some(value),
                is_switch: key == MODE,
            })
        });
        Ok(Plan { changes: changes.collect(), before: shown(&text) })
    }

    /// What is set; what has its default because nobody has set it is None.
    fn read(&self, session: &Session, keys: &[&str]) -> Result<Values, Unreadable> {
        let told = listed(session, &[]).map_err(Unreadable::Failed)?;
        let set = match is_installed("dconf") {
            true => set_keys(session).map_err(Unreadable::Failed)?,
            // What differs from the default has been set.
            false => {
                let defaults =
                    listed(session, &[("GSETTINGS_BACKEND", "memory")]).map_err(Unreadable::Failed)?;
                told.iter()
                    .filter(|(key, value)| defaults.get(*key) != Some(value))
                    .map(|(key, _)| key.clone())
                    .collect()
            }
        };
        let value = |key: &str| told.get(key).cloned().flatten().filter(|_| set.iter().any(|set| set == key));
        Ok(keys.iter().map(|key| ((*key).to_owned(), value(key))).collect())
    }

    fn write(&self, session: &Session, values: &[(&str, Option<&str>)]) -> Result<(), String> {
        for (key, value) in values {
            let (schema, name) = schema_of(key);
            let mut command = session.command("gsettings");
            match value {
                Some(value) => command.args(["set", &schema, name, value]),
                None => command.args(["reset", &schema, name]),
            };
            run(command)?;
        }
        Ok(())
    }
}

fn schema_of(key: &str) -> (String, &str) {
    match key.split_once('/') {
        Some((below, name)) => (format!("{SCHEMA}.{below}"), name),
        None => (SCHEMA.to_owned(), key),
    }
}

/// Every key with its value in effect, as GVariant text.
fn listed(session: &Session, environment: &[(&str, &str)]) -> Result<Values, String> {
    let mut command = session.command("gsettings");
    command.args(["list-recursively", SCHEMA]).envs(environment.iter().copied());
    let said = run(command)?;
    let line = |line: &str| {
        let (schema, rest) = line.split_once(' ')?;
        let (name, value) = rest.split_once(' ')?;
        let key = match schema.strip_prefix(SCHEMA)?.strip_prefix('.') {
            Some(below) => format!("{below}/{name}"),
            None => name.to_owned(),
        };
        Some((key, Some(value.to_owned())))
    };
    Ok(said.lines().filter_map(line).collect())
}

/// The keys that somebody has set.
fn set_keys(session: &Session) -> Result<Vec<String>, String> {
    let mut command = session.command("dconf");
    command.args(["dump", FOLDER]);
    let said = run(command)?;
    let mut folder = String::new();
    let mut keys = Vec::new();
    for line in said.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            folder = if name == "/" { String::new() } else { format!("{name}/") };
        } else if let Some((key, _)) = line.split_once('=') {
            keys.push(format!("{folder}{key}"));
        }
    }
    Ok(keys)
}

fn shown(text: &impl Fn(&str) -> String) -> Shown {
    let mode = unquoted(&text(MODE));
    let proxy = |scheme: &str| {
        let host = unquoted(&text(&format!("{scheme}/host")));
        let port = text(&format!("{scheme}/port")).parse().unwrap_or_default();
        (mode == "manual" && !host.is_empty()).then_some((host, port))
    };
    let (http, https) = (proxy("http"), proxy("https"));
    let more: Value = json!({
        "mode": mode, "autoconfig_url": unquoted(&text(PAC)), "ignore_hosts": elements(&text(EXEMPT)),
    });
    Shown { http, https, more }
}

/// A string as GVariant text has it: as GLib prints it, so that it can be compared with what is read.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') { '"' } else { '\'' };
    let escaped = text.chars().flat_map(|c| {
        let escape = (c == quote || c == '\\').then_some('\\');
        escape.into_iter().chain([c])
    });
    format!("{quote}{}{quote}", escaped.collect::<String>())
}

fn unquoted(text: &str) -> String {
    let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
    let mut plain = String::new();
    let mut characters = inner.chars();
    while let Some(c) = characters.next() {
        plain.extend(if c == '\\' { characters.next() } else { Some(c) });
    }
    plain
}

/// The strings of an array of them, as GVariant text has it.
fn elements(array: &str) -> Vec<String> {
    let (mut found, mut rest) = (Vec::new(), array);
    while let Some(begin) = rest.find(['\'', '"']) {
        let quote = rest.as_bytes()[begin];
        let inner = &rest.as_bytes()[begin + 1..];
        let mut is_escaped = false;
        let end = inner.iter().position(|byte| {
            let ends = *byte == quote && !is_escaped;
            is_escaped = *byte == b'\\' && !is_escaped;
            ends
        });
        let Some(end) = end else { break };
        found.push(unquoted(&rest[begin..begin + end + 2]));
        rest = &rest[begin + end + 2..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gvariant_text_is_read_and_written() {
        for (array, expected) in [
            ("@as []", &[][..]),
            ("['localhost', '127.0.0.0/8', '::1']", &["localhost", "127.0.0.0/8", "::1"]),
            (r#"["it's", 'a\'b\\']"#, &["it's", r"a'b\"]),
            ("['broken", &[]),
        ] {
            assert_eq!(elements(array), expected, "{array}");
        }
        assert_eq!(unquoted(&quoted(r#"a'b\c""#)), r#"a'b\c""#);
        assert_eq!((quoted("a'b").as_str(), quoted("ab").as_str()), ("\"a'b\"", "'ab'"));
        assert_eq!((unquoted(""), unquoted("'")), (String::new(), String::new()));
    }
}
