//! NetworkManager: the PAC file of the connection that is active on an interface, by nmcli. It is changed in memory only
//! (`--temporary`): the profile's own file stays as it is, and NetworkManager's next start has forgotten weir anyway.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::backend::{Backend, Change, NotHere, Plan, Shown, Unreadable, ValueChange, Values, Wanted};
use super::command::{is_installed, run};
use super::session::Session;

pub(super) struct NetworkManager;

const METHOD: &str = "proxy.method";
const PAC: &str = "proxy.pac-url";

/// Where NetworkManager keeps what is changed in memory; such a file says which one it stands before.
const IN_MEMORY: &str = "/run/NetworkManager/system-connections";
const SHADOWED: &str = "shadowed-storage=";

/// nmcli's exit codes 8 and 10 in words.
const NOT_RUNNING: &str = "NetworkManager is not running";
const UNKNOWN: [&str; 2] = ["no such connection profile", "unknown connection"];

impl Backend for NetworkManager {
    fn name(&self) -> &'static str {
        "networkmanager"
    }

    fn plan(&self, wanted: &Wanted<'_>) -> Result<Plan, NotHere> {
        if !is_installed("nmcli") {
            return Err(NotHere::Absent("there is no nmcli".to_owned()));
        }
        let Some(interface) = wanted.interface else {
            return Err(NotHere::Absent("no network interface is known".to_owned()));
        };
        let active =
            nmcli(&["-t", "-f", "UUID,DEVICE", "connection", "show", "--active"]).map_err(|error| {
                // Or there is no bus to ask it on.
                if error.contains(NOT_RUNNING)
                    || error.contains("Could not connect")
                    || error.contains("NMClient")
                {
                    NotHere::Absent(error)
                } else {
                    NotHere::Failed(error)
                }
            })?;
        let mut lines = active.lines().filter_map(|line| line.split_once(':'));
        let Some((uuid, _)) = lines.find(|(_, device)| *device == interface) else {
            return Err(NotHere::Absent(format!("NetworkManager has no connection on {interface}")));
        };
        let keys = [METHOD, PAC].map(|name| format!("{uuid} {name}"));
        let values = [("auto".to_owned(), true), (wanted.pac_url(), false)];
        let before =
            self.read(wanted.session, &[&keys[0], &keys[1]]).map_err(|unreadable| match unreadable {
                Unreadable::Vanished(why) | Unreadable::Failed(why) => NotHere::Failed(why),
            })?;
        let value = |key: &str| before.get(key).cloned().flatten();
        let more = json!({ "connection": uuid, "method": value(&keys[0]), "pac_url": value(&keys[1]) });
        let changes = keys.into_iter().zip(values).map(|(key, (ours, is_switch))| {
            let before = value(&key);
            Change::Value(ValueChange { key, before, ours: Some(ours), is_switch })
        });
        Ok(Plan { changes: changes.collect(), before: Shown { more, ..Shown::default() } })
    }

    fn read(&self, _: &Session, keys: &[&str]) -> Result<Values, Unreadable> {
        let mut values = Values::new();
        for key in keys {
            let (uuid, name) = parts(key);
            let said = nmcli(&["-e", "no", "-g", name, "connection", "show", uuid]).map_err(|error| {
                let is_gone = UNKNOWN.iter().any(|word| error.contains(word));
                if is_gone { Unreadable::Vanished(error) } else { Unreadable::Failed(error) }
            })?;
            values.insert((*key).to_owned(), Some(said.trim_end_matches('\n').to_owned()));
        }
        Ok(values)
    }

    /// All at once: an address without the method is refused.
    fn write(&self, _: &Session, values: &[(&str, Option<&str>)]) -> Result<(), String> {
        let Some((uuid, _)) = values.first().map(|(key, _)| parts(key)) else { return Ok(()) };
        let mut arguments = vec!["connection", "modify", "--temporary", uuid];
        for (key, value) in values {
            arguments.extend([parts(key).1, value.unwrap_or_default()]);
        }
        nmcli(&arguments)?;
        if values.iter().any(|(key, value)| parts(key).1 == METHOD && *value != Some("auto")) {
            forget(uuid);
        }
        reapply(uuid);
        Ok(())
    }
}

fn parts(key: &str) -> (&str, &str) {
    key.split_once(' ').unwrap_or((key, ""))
}

fn nmcli(arguments: &[&str]) -> Result<String, String> {
    let mut command = std::process::Command::new("nmcli");
    command.args(arguments);
    run(command)
}

/// Has NetworkManager go back to the profile's own file, if it says the same as what is in memory now.
fn forget(uuid: &str) {
    let files = fs::read_dir(IN_MEMORY).into_iter().flatten().flatten();
    for file in files {
        let text = fs::read_to_string(file.path()).unwrap_or_default();
        let own = text.lines().find_map(|line| line.strip_prefix(SHADOWED));
        let is_it = text.lines().any(|line| line == format!("uuid={uuid}"));
        let Some(own) = own.filter(|own| is_it && Path::new(own).is_file()) else { continue };
        if same(&text, &fs::read_to_string(own).unwrap_or_default()) && fs::remove_file(file.path()).is_ok() {
            // What it is told it reads again.
            let _ = nmcli(&["connection", "reload"]);
        }
    }
}

/// Whether two profiles have the same settings; comments, order, empty sections and the time of the last connection are
/// none.
fn same(one: &str, other: &str) -> bool {
    let settings = |text: &str| {
        let (mut section, mut settings) = (String::new(), Vec::new());
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line.to_owned();
            } else if !line.is_empty()
                && !line.starts_with(['#', ';'])
                && !line.starts_with("timestamp=")
                && section != "[.nmmeta]"
            {
                settings.push(format!("{section}{line}"));
            }
        }
        settings.sort();
        settings
    };
    settings(one) == settings(other)
}

/// On the device, if it is active still.
fn reapply(uuid: &str) {
    let active = nmcli(&["-t", "-f", "UUID,DEVICE", "connection", "show", "--active"]).unwrap_or_default();
    let device = active.lines().filter_map(|line| line.split_once(':')).find(|(one, _)| *one == uuid);
    if let Some((_, device)) = device.filter(|(_, device)| !device.is_empty()) {
        // Some kinds of devices can't; then it holds from their next connection on.
        let _ = nmcli(&["device", "reapply", device]);
    }
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn profiles_are_compared_by_what_they_say() {
        let own = "# mine\n[connection]\nid=lab\n\n[ipv4]\nmethod=auto\n";
        let shadow = "[connection]\nid=lab\ntimestamp=1\n[dummy]\n[ipv4]\nmethod=auto\n\n[.nmmeta]\nshadowed-owned=true\n";
        assert!(same(own, shadow));
        assert!(!same(own, &shadow.replace("auto", "manual")));
    }
}
