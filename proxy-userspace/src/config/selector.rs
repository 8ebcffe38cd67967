//! What a capture target is called: `container:web`, `cgroup:/system.slice/cron.service`, ...

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Says which processes are captured. What it selects may come and go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selector {
    /// A cgroup v2 directory and what is below it: its path in the file system, or from the mount point on.
    Cgroup(PathBuf),
    /// A systemd unit, by its full name.
    Unit(String),
    /// A container, by its name, or by its id or the beginning of it.
    Container(String),
    /// Containers that have a label, with that value if there is one.
    Label { key: String, value: Option<String> },
    /// Containers made from an image, of any tag if none is given.
    Image(String),
    /// The containers of a Compose project.
    Compose(String),
    /// Whatever runs with this real user id, as the host numbers it.
    Uid(u32),
    /// The same by the user's name.
    User(String),
    /// Whatever executes this file.
    Executable(PathBuf),
}

/// What is wrong with a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSelector {
    #[error("`{0}` does not say what it selects; write KIND:VALUE, KIND being one of {kinds}", kinds = KINDS.join(", "))]
    NoKind(String),
    #[error("`{0}` is no kind of target; there are {kinds}", kinds = KINDS.join(", "))]
    Kind(String),
    #[error("`{0}:` has no value")]
    NoValue(String),
    #[error("a cgroup's path begins with `/` and has no `..` in it")]
    Path,
    #[error("`{0}` is no number of a user; by name it is user:NAME")]
    Uid(String),
    #[error("an executable's path begins with `/`")]
    Executable,
}

const KINDS: [&str; 9] = ["cgroup", "unit", "container", "label", "image", "compose", "uid", "user", "exe"];

/// The label of Compose, docker's and podman's, that names a container's project.
pub const COMPOSE_LABEL: &str = "com.docker.compose.project";

impl Selector {
    /// Whether only a container engine can tell what it selects.
    #[must_use]
    pub fn needs_engine(&self) -> bool {
        match self {
            Self::Container(_) | Self::Label { .. } | Self::Image(_) | Self::Compose(_) => true,
            Self::Cgroup(_) | Self::Unit(_) | Self::Uid(_) | Self::User(_) | Self::Executable(_) => false,
        }
    }
}

impl FromStr for Selector {
    type Err = BadSelector;

    fn from_str(text: &str) -> Result<Self, BadSelector> {
        let (kind, value) = text.split_once(':').ok_or_else(|| BadSelector::NoKind(text.to_owned()))?;
        if !KINDS.contains(&kind) {
            return Err(BadSelector::Kind(kind.to_owned()));
        }
        if value.is_empty() {
            return Err(BadSelector::NoValue(kind.to_owned()));
        }
        Ok(match kind {
            "cgroup" => {
                let path = PathBuf::from(value);
                let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
                if !path.is_absolute() || climbs {
                    return Err(BadSelector::Path);
                }
                Self::Cgroup(path)
            }
            "unit" => Self::Unit(value.to_owned()),
            "label" => match value.split_once('=') {
                Some((key, value)) => Self::Label { key: key.to_owned(), value: Some(value.to_owned()) },
                None => Self::Label { key: value.to_owned(), value: None },
            },
            "image" => Self::Image(value.to_owned()),
            "compose" => Self::Compose(value.to_owned()),
            "uid" => Self::Uid(value.parse().map_err(|_| BadSelector::Uid(value.to_owned()))?),
            "user" => Self::User(value.to_owned()),
            "exe" if value.starts_with('/') => Self::Executable(PathBuf::from(value)),
            "exe" => return Err(BadSelector::Executable),
            // docker shows names with a slash before them in places.
            _ => Self::Container(value.trim_start_matches('/').to_owned()),
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(path) => write!(text, "cgroup:{}", path.display()),
            Self::Unit(name) => write!(text, "unit:{name}"),
            Self::Container(name) => write!(text, "container:{name}"),
            Self::Label { key, value: Some(value) } => write!(text, "label:{key}={value}"),
            Self::Label { key, value: None } => write!(text, "label:{key}"),
            Self::Image(name) => write!(text, "image:{name}"),
            Self::Compose(project) => write!(text, "compose:{project}"),
            Self::Uid(uid) => write!(text, "uid:{uid}"),
            Self::User(name) => write!(text, "user:{name}"),
            Self::Executable(path) => write!(text, "exe:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_and_shown_alike() {
        for text in [
            "cgroup:/system.slice/cron.service",
            "unit:cron.service",
            "container:web",
            "label:app=web=1",
            "label:app",
            "image:registry:5000/nginx:1.27",
            "compose:shop",
            "uid:1000",
            "user:alice",
            "exe:/usr/bin/curl",
        ] {
            assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
        }
        assert_eq!("container:/web".parse(), Ok(Selector::Container("web".into())));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, expected: &str| {
            let message = text.parse::<Selector>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        };
        check("web", "KIND:VALUE");
        check("box:web", "`box` is no kind");
        check("label:", "no value");
        check("cgroup:system.slice", "begins with `/`");
        check("cgroup:/a/../b", "no `..`");
        check("uid:alice", "user:NAME");
        check("exe:curl", "begins with `/`");
    }
}
