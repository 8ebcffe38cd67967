//! Why rules can't be put in force. Those in force stay.
#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;

use super::MAX_IDENTITIES;
use super::domains::MAX_DOMAINS;
use super::host::MAX_DESTINATIONS;

#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    #[error("capture.rules: rule `{rule}`: there is no user {user}; give a name of this host, or a number")]
    NoSuchUser { rule: String, user: String },

    #[error("capture.rules: the {what} in {} can't be read: {source}", .path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },

    #[error("{}:{line}: `{text}` is not a domain name such as example.com or *.example.com", .path.display())]
    BadDomain { path: PathBuf, line: usize, text: String },

    #[error("capture.rules: more than {MAX_DOMAINS} domains; give *.example.com where you can")]
    TooManyDomains,

    #[error(
        "{}:{line}: `{text}` is not an address or a prefix such as 10.0.0.0/8 without bits beyond its length",
        .path.display()
    )]
    BadDestination { path: PathBuf, line: usize, text: String },

    #[error("capture.rules: more than {MAX_DESTINATIONS} destinations; give whole prefixes where you can")]
    TooManyDestinations,

    #[error(
        "capture.rules: the rules' destinations and ports overlap in more than {} ways; give rules that share \
         destinations the same list, or make fewer rules",
        proxy_common::MAX_CLASSES - 1
    )]
    TooManyClasses,

    #[error(
        "capture.rules: more than {MAX_IDENTITIES} users, cgroups and executables; name a cgroup above them"
    )]
    TooManyIdentities,

    #[error(
        "capture.rules: rule `{rule}` asks for executables, which the kernel half can tell only with BTF \
         (/sys/kernel/btf/vmlinux) and CAP_PERFMON. Ask for users, units or cgroups instead"
    )]
    NoExecutables { rule: String },

    #[error("capture.rules: the kernel refuses the map {map}: {source}")]
    Map { map: &'static str, source: aya::maps::MapError },
}
