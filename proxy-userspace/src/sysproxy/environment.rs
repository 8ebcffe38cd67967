//! `/etc/environment` (pam_env(8)), or a file of environment.d(5): variables for sessions that begin after the change.

use serde_json::json;

use super::backend::{Backend, Change, FileChange, NotHere, Plan, Shown, Wanted, endpoint};
use super::files;
use super::lines::{self, Wish};

pub(super) struct Environment;

const SYSTEM: &str = "/etc/environment";
const USERS: &str = "environment.d/90-weir-proxy.conf";

/// Programs disagree on the case, so both are set.
const PROXIES: [&str; 4] = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"];
const EXEMPT: [&str; 2] = ["no_proxy", "NO_PROXY"];

impl Backend for Environment {
    fn name(&self) -> &'static str {
        "environment"
    }

    fn plan(&self, wanted: &Wanted<'_>) -> Result<Plan, NotHere> {
        let (path, is_users) = match &wanted.settings.environment_file {
            Some(path) => (path.clone(), false),
            None if nix::unistd::geteuid().is_root() => (SYSTEM.into(), false),
            None => (wanted.session.config_home.join(USERS), true),
        };
        let file = files::read(&path, wanted.session, is_users).map_err(NotHere::Failed)?;
        let text = file.text().map_err(NotHere::Failed)?;
        let value = |name: &str| text.lines().rev().find_map(|line| assigned(line, name));
        let present = EXEMPT.iter().find_map(|name| value(name)).unwrap_or_default();
        let exempt = wanted.with_exempt(present.split(',').map(str::trim)).join(",");
        let settings = PROXIES.iter().map(|name| (*name, wanted.url()));
        let settings = settings.chain(EXEMPT.iter().map(|name| (*name, exempt.clone())));
        let wishes: Vec<Wish<'_>> = settings
            .map(|(name, value)| Wish {
                replaces: Box::new(move |line| assigned(line, name).is_some()),
                line: format!("{name}={value}"),
            })
            .collect();
        let (ours, lines) = lines::set(text, None, &wishes);
        let proxy =
            |names: [&str; 2]| names.iter().find_map(|name| value(name)).and_then(|url| endpoint(&url));
        let before = Shown {
            http: proxy(["http_proxy", "HTTP_PROXY"]),
            https: proxy(["https_proxy", "HTTPS_PROXY"]),
            more: json!({ "file": path, "no_proxy": EXEMPT.iter().find_map(|name| value(name)) }),
        };
        let change = FileChange { lines, ..file.changed(ours.into_bytes()) };
        Ok(Plan { changes: vec![Change::File(change)], before })
    }
}

/// What a line sets this variable to.
fn assigned(line: &str, name: &str) -> Option<String> {
    let line = line.trim_start();
    let (key, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
    (key.trim() == name).then(|| value.trim().trim_matches(['"', '\'']).to_owned())
}
