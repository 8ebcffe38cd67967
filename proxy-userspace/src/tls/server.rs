//! weir as a TLS server: its certificates, by the name that a client asks for, read again when their files change.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::alpn;
use super::client::{provider, versions};
use super::files::{FileError, certificates, private_key};
use crate::config::{HostPattern, Identity, ServerTls};
use crate::http::authority::Host;

/// The settings of the sessions with clients.
#[derive(Debug)]
pub struct Acceptance {
    settings: ServerTls,
    current: RwLock<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// When each file was changed last.
    changed: Vec<Option<SystemTime>>,
}

impl Acceptance {
    /// Reads the files that the configuration names. None where it wants no TLS.
    ///
    /// # Errors
    /// [`FileError`], of the first that is not what it should be.
    pub fn load(settings: &ServerTls) -> Result<Option<Self>, FileError> {
        if !settings.enabled {
            return Ok(None);
        }
        let current = RwLock::new(Loaded::read(settings)?);
        Ok(Some(Self { settings: settings.clone(), current }))
    }

    /// The settings as of now.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Whether a connection in the clear is refused.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.settings.required
    }

    /// Reads the files again. Sessions that there are go on.
    ///
    /// # Errors
    /// [`FileError`]; what was read before stays in use.
    pub fn reload(&self) -> Result<(), FileError> {
        let loaded = Loaded::read(&self.settings)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// Whether a file has changed since it was read.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        let changed = last_changes(&self.settings);
        self.current.read().unwrap_or_else(PoisonError::into_inner).changed != changed
    }
}

impl Loaded {
    fn read(settings: &ServerTls) -> Result<Self, FileError> {
        // Before the files are read: what changes meanwhile is read again.
        let changed = last_changes(settings);
        let mut resolver = Certificates { by_host: Vec::new(), default: None };
        for (host, identity) in &settings.certificates {
            resolver.by_host.push((host.clone(), certified(identity)?));
        }
        resolver.default = settings.default.as_ref().map(certified).transpose()?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(settings.min_version))
            .expect("ring has suites for both versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![alpn::HTTP2.to_vec(), alpn::HTTP1.to_vec()];
        // Sessions are resumed by tickets, which need no memory here (RFC 8446 §4.6.1).
        match ring::Ticketer::new() {
            Ok(ticketer) => config.ticketer = ticketer,
            Err(error) => tracing::warn!("TLS sessions can't be resumed: {error}"),
        }
        Ok(Self { config: Arc::new(config), changed })
    }
}

fn identities(settings: &ServerTls) -> impl Iterator<Item = &Identity> {
    settings.certificates.iter().map(|(_, identity)| identity).chain(&settings.default)
}

fn last_changes(settings: &ServerTls) -> Vec<Option<SystemTime>> {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    identities(settings)
        .flat_map(|identity| [changed(&identity.certificate), changed(&identity.key)])
        .collect()
}

fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, FileError> {
    let (chain, key) = (certificates(&identity.certificate)?, private_key(&identity.key)?);
    let certified = CertifiedKey::from_der(chain, key, &provider());
    certified.map(Arc::new).map_err(|error| FileError::Refused { path: identity.key.clone(), error })
}

#[derive(Debug)]
struct Certificates {
    by_host: Vec<(HostPattern, Arc<CertifiedKey>)>,
    default: Option<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name().and_then(|name| Host::parse(name).ok());
        let fits = |pattern: &HostPattern| host.as_ref().is_some_and(|host| pattern.matches(host));
        let found = self.by_host.iter().find(|(pattern, _)| fits(pattern)).map(|(_, key)| key);
        found.or(self.default.as_ref()).cloned()
    }
}
