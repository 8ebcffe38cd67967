//! The docker client: `proxies.default` in its `config.json`, from which containers that are begun get their variables.
//! In a container 127.0.0.1 is the container itself: this is of use where weir listens on an address that containers reach.

use serde_json::{Map, Value, json};

use super::backend::{Backend, Change, FileChange, NotHere, Plan, Shown, Wanted, endpoint};
use super::files;

pub(super) struct Docker;

const FILE: &str = ".docker/config.json";
const KEYS: [&str; 3] = ["httpProxy", "httpsProxy", "noProxy"];

impl Backend for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn plan(&self, wanted: &Wanted<'_>) -> Result<Plan, NotHere> {
        let path = wanted.settings.docker_file.clone().unwrap_or_else(|| wanted.session.home().join(FILE));
        let file = files::read(&path, wanted.session, wanted.settings.docker_file.is_none())
            .map_err(NotHere::Failed)?;
        let text = file.text().map_err(NotHere::Failed)?;
        let mut document = read(text).ok_or_else(|| {
            NotHere::Failed(format!("{} is not the JSON of a docker client", path.display()))
        })?;
        let value = |key: &str| document["proxies"]["default"][key].as_str().map(str::to_owned);
        let present = value("noProxy");
        let before = Shown {
            http: value("httpProxy").and_then(|url| endpoint(&url)),
            https: value("httpsProxy").and_then(|url| endpoint(&url)),
            more: json!({ "file": path, "noProxy": present }),
        };
        let exempt = wanted.with_exempt(present.unwrap_or_default().split(',').map(str::trim)).join(",");
        for (key, value) in KEYS.iter().zip([wanted.url(), wanted.url(), exempt]) {
            document["proxies"]["default"][*key] = value.into();
        }
        let change = FileChange { mode: 0o600, ..file.changed(written(&document)) };
        Ok(Plan { changes: vec![Change::File(change)], before })
    }

    /// `docker login` writes the whole file anew, so it is taken for what it says, not for its lines.
    fn without_ours(&self, current: &[u8], change: &FileChange) -> Vec<u8> {
        let document = |bytes: &[u8]| read(std::str::from_utf8(bytes).ok()?);
        let ours = change.ours.as_deref().and_then(document).unwrap_or_default();
        let before = change.before.as_deref().and_then(document).unwrap_or_default();
        let Some(mut now) = document(current) else { return current.to_vec() };
        for key in KEYS {
            if now["proxies"]["default"][key] != ours["proxies"]["default"][key] {
                continue;
            }
            let was = &before["proxies"]["default"][key];
            match (was, now["proxies"]["default"].as_object_mut()) {
                (Value::Null, Some(proxies)) => drop(proxies.remove(key)),
                (value, _) => now["proxies"]["default"][key] = value.clone(),
            }
        }
        let is_empty = |value: &Value| value.as_object().is_some_and(Map::is_empty);
        for (outer, inner) in [("/proxies", "default"), ("", "proxies")] {
            let had = before.pointer(outer).is_some_and(|outer| outer.get(inner).is_some());
            if let Some(Value::Object(outer)) = now.pointer_mut(outer)
                && !had
                && outer.get(inner).is_some_and(is_empty)
            {
                outer.remove(inner);
            }
        }
        written(&now)
    }
}

fn read(text: &str) -> Option<Value> {
    if text.trim().is_empty() {
        return Some(json!({}));
    }
    let document: Value = serde_json::from_str(text).ok()?;
    let is_object_or_absent = |at: &str| document.pointer(at).is_none_or(Value::is_object);
    (document.is_object() && ["/proxies", "/proxies/default"].iter().all(|at| is_object_or_absent(at)))
        .then_some(document)
}

/// As docker writes it: with tabs.
fn written(document: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, tabs);
    // Writing to memory does not fail.
    let _ = serde::Serialize::serialize(document, &mut serializer);
    bytes.push(b'\n');
    bytes
}
