//! weir as a TLS client: whom it trusts, which certificate it shows, and what a failed handshake means to a person.

mod insecure;

use std::sync::{Arc, OnceLock};

use rustls::client::WantsClientCert;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, ConfigBuilder, RootCertStore, SupportedProtocolVersion};

pub use super::files::FileError;
use super::files::{certificates, private_key};
use crate::config::{HostPattern, TlsDestination, TlsVersion, UpstreamTls};
use crate::http::authority::Host;

/// The settings of all TLS sessions with upstreams. Sessions are resumed among all that share one.
#[derive(Debug)]
pub struct ClientTls {
    settings: UpstreamTls,
    extra: Vec<CertificateDer<'static>>,
    /// Made when first needed: reading the system's authorities takes a while, and most weirs never do.
    usual: OnceLock<Arc<ClientConfig>>,
    destinations: Vec<(HostPattern, Arc<ClientConfig>)>,
}

impl ClientTls {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// [`FileError`], of the first that is not what it should be.
    pub fn load(settings: &UpstreamTls) -> Result<Self, FileError> {
        let mut extra = Vec::new();
        for path in &settings.roots {
            extra.extend(certificates(path)?);
        }
        let mut tls = Self {
            settings: settings.clone(),
            extra,
            usual: OnceLock::new(),
            destinations: Vec::with_capacity(settings.destinations.len()),
        };
        for destination in &settings.destinations {
            let config = tls.special(destination)?;
            tls.destinations.push((destination.host.clone(), Arc::new(config)));
        }
        Ok(tls)
    }

    /// The settings for sessions with a server of this name.
    pub fn settings_for(&self, host: &Host) -> Arc<ClientConfig> {
        let special = self.destinations.iter().find(|(pattern, _)| pattern.matches(host));
        match special {
            Some((_, config)) => Arc::clone(config),
            None => Arc::clone(self.usual.get_or_init(|| {
                let builder = builder(self.settings.min_version).with_root_certificates(self.roots());
                Arc::new(finished(builder.with_no_client_auth()))
            })),
        }
    }

    fn special(&self, destination: &TlsDestination) -> Result<ClientConfig, FileError> {
        let builder = builder(destination.min_version);
        let builder: ConfigBuilder<_, WantsClientCert> = match (&destination.roots, destination.verify) {
            (_, false) => {
                builder.dangerous().with_custom_certificate_verifier(insecure::verifier(provider()))
            }
            (Some(path), true) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates(path)?);
                builder.with_root_certificates(roots)
            }
            (None, true) => builder.with_root_certificates(self.roots()),
        };
        let config = match &destination.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = (certificates(&identity.certificate)?, private_key(&identity.key)?);
                let refused = |error| FileError::Refused { path: identity.certificate.clone(), error };
                builder.with_client_auth_cert(chain, key).map_err(refused)?
            }
        };
        Ok(finished(config))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        if self.settings.system_roots {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!("an authority that the system trusts can't be read: {error}");
            }
            roots.add_parsable_certificates(found.certs);
        }
        roots.add_parsable_certificates(self.extra.iter().cloned());
        if roots.is_empty() {
            tracing::warn!(
                "no certificate authority is trusted: install ca-certificates, or set upstream.tls.roots"
            );
        }
        roots
    }
}

/// The name that a server's certificate must be for.
#[must_use]
pub fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Address(address) => Some(ServerName::from(*address)),
        // A certificate's names have no dot at their end.
        Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned()).ok(),
    }
}

/// Why a handshake failed, as a person would say it. Nothing of what the server sent is in it.
#[must_use]
pub fn reason(error: &rustls::Error) -> String {
    use CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::Expired | Bad::ExpiredContext { .. } => "its certificate has expired".into(),
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => "its certificate is not valid yet".into(),
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                "its certificate is for another name".into()
            }
            Bad::UnknownIssuer => {
                "its certificate is from an authority that is not trusted (see upstream.tls.roots)".into()
            }
            Bad::Revoked => "its certificate was revoked".into(),
            Bad::BadSignature => "the signature of its certificate is wrong".into(),
            other => format!("its certificate is not acceptable: {other:?}"),
        },
        rustls::Error::AlertReceived(alert) => format!("it refused the TLS session: {alert:?}"),
        rustls::Error::InvalidMessage(_) => "it does not speak TLS".into(),
        rustls::Error::PeerIncompatible(why) => format!("no common version or cipher: {why:?}"),
        other => other.to_string(),
    }
}

fn builder(min_version: TlsVersion) -> ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(min_version))
        .expect("ring has suites for both versions")
}

pub(super) fn versions(min_version: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match min_version {
        TlsVersion::Tls12 => &BOTH,
        TlsVersion::Tls13 => &BOTH[..1],
    }
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(ring::default_provider())))
}

fn finished(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}
