//! apt: a file of its own beside apt's configuration. What is configured elsewhere stays as it is; this file comes after most.

use serde_json::json;

use super::backend::{Backend, Change, FileChange, NotHere, Plan, Shown, Wanted, endpoint};
use super::files;
use super::lines::{self, Wish};

pub(super) struct Apt;

impl Backend for Apt {
    fn name(&self) -> &'static str {
        "apt"
    }

    fn plan(&self, wanted: &Wanted<'_>) -> Result<Plan, NotHere> {
        let file = files::read(&wanted.settings.apt_file, wanted.session, false).map_err(NotHere::Failed)?;
        let text = file.text().map_err(NotHere::Failed)?;
        let schemes = ["http", "https"];
        let wishes: Vec<Wish<'_>> = schemes
            .iter()
            .map(|scheme| Wish {
                replaces: Box::new(move |line| assigned(line, scheme).is_some()),
                line: format!("Acquire::{scheme}::Proxy \"{}\";", wanted.url()),
            })
            .collect();
        let (ours, lines) = lines::set(text, None, &wishes);
        let value = |scheme| {
            text.lines().rev().find_map(|line| assigned(line, scheme)).and_then(|url| endpoint(&url))
        };
        let before = Shown {
            http: value("http"),
            https: value("https"),
            more: json!({ "file": wanted.settings.apt_file }),
        };
        let change = FileChange { lines, ..file.changed(ours.into_bytes()) };
        Ok(Plan { changes: vec![Change::File(change)], before })
    }
}

fn assigned(line: &str, scheme: &str) -> Option<String> {
    let rest = line.trim().strip_prefix("Acquire::")?.strip_prefix(scheme)?.strip_prefix("::Proxy")?;
    Some(rest.trim().trim_end_matches(';').trim_matches('"').to_owned())
}
