//! KDE: `kioslaverc`, which Plasma's settings and `kwriteconfig` write, and KIO reads.

use serde_json::json;

use super::backend::{Backend, Change, FileChange, NotHere, Plan, Shown, Wanted, endpoint};
use super::command::{is_installed, run};
use super::files;
use super::lines::{self, Wish};
use super::session::Session;

pub(super) struct Kde;

const SECTION: &str = "[Proxy Settings]";
const FILE: &str = "kioslaverc";

/// `KProtocolManager::ProxyType`.
const MANUAL: &str = "1";
const PAC: &str = "2";

impl Backend for Kde {
    fn name(&self) -> &'static str {
        "kde"
    }

    fn plan(&self, wanted: &Wanted<'_>) -> Result<Plan, NotHere> {
        let path = wanted.session.config_home.join(FILE);
        let tools = ["kwriteconfig6", "kwriteconfig5", "kreadconfig6", "kreadconfig5", "plasmashell"];
        if !path.exists() && !tools.iter().any(|tool| is_installed(tool)) {
            return Err(NotHere::Absent("neither kioslaverc nor a program of KDE is there".to_owned()));
        }
        let file = files::read(&path, wanted.session, true).map_err(NotHere::Failed)?;
        let text = file.text().map_err(NotHere::Failed)?;
        if text.lines().any(|line| line.starts_with(SECTION) && line.contains("[$i]")) {
            let why = format!("{} is locked by an administrator ([$i])", path.display());
            return Err(NotHere::Failed(why));
        }
        let value = |key: &str| value(text, key);
        let exempt = value("NoProxyFor").unwrap_or_default();
        let proxy = format!("http://{} {}", host(wanted), wanted.proxy.port());
        let settings: Vec<(&str, String)> = match wanted.settings.pac {
            true => vec![("Proxy Config Script", wanted.pac_url()), ("ProxyType", PAC.to_owned())],
            false => vec![
                ("httpProxy", proxy.clone()),
                ("httpsProxy", proxy),
                ("NoProxyFor", wanted.with_exempt(exempt.split(',').map(str::trim)).join(",")),
                ("ProxyType", MANUAL.to_owned()),
            ],
        };
        let wishes: Vec<Wish<'_>> = settings
            .iter()
            .map(|(key, value)| Wish {
                replaces: Box::new(move |line| line.split('=').next().map(str::trim) == Some(key)),
                line: format!("{key}={value}"),
            })
            .collect();
        let (ours, lines) = lines::set(text, Some(SECTION), &wishes);
        let is_manual = value("ProxyType").as_deref() == Some(MANUAL);
        let shown =
            |key: &str| value(key).filter(|_| is_manual).and_then(|url| endpoint(&url.replace(' ', ":")));
        let before = Shown {
            http: shown("httpProxy"),
            https: shown("httpsProxy"),
            more: json!({ "ProxyType": value("ProxyType"), "NoProxyFor": value("NoProxyFor") }),
        };
        let change = FileChange { lines, ..file.changed(ours.into_bytes()) };
        Ok(Plan { changes: vec![Change::File(change)], before })
    }

    fn tell(&self, session: &Session) {
        if session.has_bus() && is_installed("dbus-send") {
            let mut command = session.command("dbus-send");
            command.args([
                "--type=signal",
                "/KIO/Scheduler",
                "org.kde.KIO.Scheduler.reparseSlaveConfiguration",
                "string:",
            ]);
            // Nobody may be there to hear it.
            let _ = run(command);
        }
    }
}

fn host(wanted: &Wanted<'_>) -> String {
    let host = wanted.proxy.ip().to_string();
    if host.contains(':') { format!("[{host}]") } else { host }
}

fn value(text: &str, key: &str) -> Option<String> {
    let mut lines = text.lines().skip_while(|line| line.trim() != SECTION).skip(1);
    let own = lines.by_ref().take_while(|line| !line.trim_start().starts_with('['));
    own.filter_map(|line| line.split_once('='))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().to_owned())
}
