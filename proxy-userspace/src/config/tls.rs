//! `upstream.tls` and `server.tls`: whom weir trusts where it speaks TLS itself, and what it shows to clients.

use std::path::PathBuf;

use super::kinds::{choice, none_or, optional, path, switch};
use super::patterns::{HostPattern, host_pattern};
use super::section::Section;

/// `upstream.tls`.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    /// The authorities that the system trusts. Default on.
    pub system_roots: bool,
    /// Files of further ones, in PEM. Default none.
    pub roots: Vec<PathBuf>,
    /// Default 1.2.
    pub min_version: TlsVersion,
    /// The first that fits a server's name holds for it. Default none.
    pub destinations: Vec<TlsDestination>,
}

/// An entry of `upstream.tls.destinations`.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsDestination {
    pub host: HostPattern,
    /// Off: any certificate will do. Only for a server that is named in full.
    pub verify: bool,
    /// The only authorities that count there, in PEM.
    pub roots: Option<PathBuf>,
    pub identity: Option<Identity>,
    pub min_version: TlsVersion,
}

/// A certificate chain and its key, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// `server.tls`: TLS on the explicit proxy's port.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerTls {
    /// Default off.
    pub enabled: bool,
    /// Connections in the clear are refused. Default off.
    pub required: bool,
    /// For clients that ask for no name of `certificates`.
    pub default: Option<Identity>,
    /// By the name that a client asks for.
    pub certificates: Vec<(HostPattern, Identity)>,
    /// Default 1.2.
    pub min_version: TlsVersion,
}

impl Default for ServerTls {
    fn default() -> Self {
        Self {
            enabled: false,
            required: false,
            default: None,
            certificates: Vec::new(),
            min_version: TlsVersion::Tls12,
        }
    }
}

pub(super) fn server_tls(s: &mut Section<'_, '_>) -> ServerTls {
    let d = ServerTls::default();
    let tls = ServerTls {
        enabled: s.read("enabled", d.enabled, switch()),
        required: s.read("required", d.required, switch()),
        default: identity(s),
        certificates: s
            .sections("certificates", |s| (s.required("host", host_pattern), identity(s)))
            .into_iter()
            .filter_map(|(host, identity)| Some((host?, identity?)))
            .collect(),
        min_version: s.read("min_version", d.min_version, choice(VERSIONS)),
    };
    if tls.enabled && tls.default.is_none() && tls.certificates.is_empty() {
        s.error("enabled without a certificate; give `cert` and `key`");
    }
    tls
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self {
            system_roots: true,
            roots: Vec::new(),
            min_version: TlsVersion::Tls12,
            destinations: Vec::new(),
        }
    }
}

const VERSIONS: &[(&str, TlsVersion)] = &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];

pub(super) fn upstream_tls(s: &mut Section<'_, '_>) -> UpstreamTls {
    let d = UpstreamTls::default();
    let min_version = s.read("min_version", d.min_version, choice(VERSIONS));
    UpstreamTls {
        system_roots: s.read("system_roots", d.system_roots, switch()),
        roots: s.list("roots", d.roots, path()),
        min_version,
        destinations: s
            .sections("destinations", |s| destination(s, min_version))
            .into_iter()
            .flatten()
            .collect(),
    }
}

/// None: what is wrong was reported.
fn destination(s: &mut Section<'_, '_>, min_version: TlsVersion) -> Option<TlsDestination> {
    let host = s.required("host", host_pattern);
    let verify = s.read("verify", true, switch());
    if !verify && !matches!(host, Some(HostPattern::Exact(_)) | None) {
        s.error("`verify: false` holds only for a host that is named in full, not for a pattern");
    }
    let roots = s.read("roots", None, optional(path()));
    let identity = identity(s);
    let min_version = s.read("min_version", min_version, choice(VERSIONS));
    Some(TlsDestination { host: host?, verify, roots, identity, min_version })
}

/// `cert` and `key`: both or none.
fn identity(s: &mut Section<'_, '_>) -> Option<Identity> {
    let (certificate, key) = (s.read("cert", None, none_or(path())), s.read("key", None, none_or(path())));
    if certificate.is_some() != key.is_some() {
        s.error("a `cert` needs its `key`, and a key its cert");
    }
    Some(Identity { certificate: certificate?, key: key? })
}
