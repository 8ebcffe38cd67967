//! What a backend is: it says what it would change, reads and writes. When, in which order, and what of it is taken back,
//! is for `keeper` to say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Settings;
use super::session::Session;

/// A place where settings are.
pub(super) trait Backend: Sync {
    fn name(&self) -> &'static str;

    /// What is to be changed, out of how it is now. Changes nothing.
    ///
    /// # Errors
    /// [`NotHere`]
    fn plan(&self, wanted: &Wanted<'_>) -> Result<Plan, NotHere>;

    /// The values of these keys now; None for one that is unset. For backends that have more than files.
    ///
    /// # Errors
    /// [`Unreadable`]
    fn read(&self, _: &Session, _: &[&str]) -> Result<Values, Unreadable> {
        Ok(Values::new())
    }

    /// Sets these keys, or unsets them, in this order.
    ///
    /// # Errors
    /// The program's own message.
    fn write(&self, _: &Session, _: &[(&str, Option<&str>)]) -> Result<(), String> {
        Ok(())
    }

    /// After changes: has those who have read it before read it again, as far as they can be told.
    fn tell(&self, _: &Session) {}

    /// A file that somebody else has changed meanwhile, without what is weir's in it.
    fn without_ours(&self, current: &[u8], change: &FileChange) -> Vec<u8> {
        super::lines::undo(current, &change.lines)
    }
}

pub(super) type Values = BTreeMap<String, Option<String>>;

/// What a backend is given to plan with.
pub(super) struct Wanted<'a> {
    pub(super) proxy: SocketAddr,
    pub(super) interface: Option<&'a str>,
    pub(super) settings: &'a Settings,
    pub(super) session: &'a Session,
}

impl Wanted<'_> {
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.proxy)
    }

    pub(super) fn pac_url(&self) -> String {
        format!("http://{}/proxy.pac", self.proxy)
    }

    /// Exemptions that there are, and those of weir that are not among them.
    pub(super) fn with_exempt<'t>(&self, present: impl Iterator<Item = &'t str>) -> Vec<String> {
        let mut exempt: Vec<String> = present.filter(|one| !one.is_empty()).map(str::to_owned).collect();
        let missing = self.settings.no_proxy.iter().filter(|one| !exempt.contains(one));
        let missing: Vec<String> = missing.cloned().collect();
        exempt.extend(missing);
        exempt
    }
}

/// What is to be changed, in this order, and what the settings come to before.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    pub(super) before: Shown,
}

/// Why a backend changes nothing.
#[derive(Debug)]
pub(super) enum NotHere {
    /// This machine does not have it.
    Absent(String),
    Failed(String),
}

/// Why values can't be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// What they belong to is there no more.
    Vanished(String),
    Failed(String),
}

/// One setting, as it was and as weir makes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Change {
    Value(ValueChange),
    File(FileChange),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ValueChange {
    pub(super) key: String,
    pub(super) before: Option<String>,
    pub(super) ours: Option<String>,
    /// It says whether the others count. Restored first; kept where somebody else has changed one of the others.
    pub(super) is_switch: bool,
}

/// A whole file; what is in it may be anything.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FileChange {
    pub(super) path: PathBuf,
    /// None: it was not there.
    #[serde(with = "in_base64")]
    pub(super) before: Option<Vec<u8>>,
    #[serde(with = "in_base64")]
    pub(super) ours: Option<Vec<u8>>,
    /// Permissions of a file that is made.
    pub(super) mode: u32,
    /// It belongs to the desktop's user, and is changed with no more than that user's rights.
    pub(super) is_users: bool,
    /// Folders made for it, the innermost last.
    pub(super) folders: Vec<PathBuf>,
    /// For a file that somebody else has changed by then.
    pub(super) lines: Vec<LineChange>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LineChange {
    pub(super) ours: String,
    pub(super) before: Option<String>,
}

/// What settings come to, for people: whether there is a proxy, and which.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Shown {
    pub(super) http: Option<(String, u16)>,
    pub(super) https: Option<(String, u16)>,
    /// Everything else, as the backend has it.
    pub(super) more: Value,
}

impl Shown {
    /// `http_proxy_enabled`, `http_proxy_server`, `http_proxy_port`, and the same of https.
    pub(super) fn fields(&self) -> Value {
        let mut fields = serde_json::Map::new();
        for (name, proxy) in [("http", &self.http), ("https", &self.https)] {
            let (server, port) = proxy.as_ref().map(|(server, port)| (server, *port)).unzip();
            fields.insert(format!("{name}_proxy_enabled"), json!(proxy.is_some()));
            fields.insert(format!("{name}_proxy_server"), json!(server));
            fields.insert(format!("{name}_proxy_port"), json!(port));
        }
        Value::Object(fields)
    }
}

/// Host and port of a proxy's URL, as it stands in a variable or a file.
pub(super) fn endpoint(url: &str) -> Option<(String, u16)> {
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next()?;
    let place = authority.rsplit('@').next()?;
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.contains(']') => (host, port.parse().ok()?),
        _ => (place, 80),
    };
    (!host.is_empty()).then(|| (host.trim_matches(['[', ']']).to_owned(), port))
}

mod in_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(|bytes| STANDARD.encode(bytes)).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| STANDARD.decode(text).map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn proxies_are_found_in_urls() {
        for (url, expected) in [
            ("http://proxy.example:3128/", Some(("proxy.example", 3128))),
            ("http://me:s%40cret@proxy.example:3128", Some(("proxy.example", 3128))),
            ("proxy.example:1", Some(("proxy.example", 1))),
            ("http://[::1]:8080", Some(("::1", 8080))),
            ("http://proxy.example", Some(("proxy.example", 80))),
            ("http://proxy.example:x", None),
            ("", None),
        ] {
            let expected = expected.map(|(host, port): (&str, u16)| (host.to_owned(), port));
            assert_eq!(endpoint(url), expected, "{url}");
        }
    }
}
