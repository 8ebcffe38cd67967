//! Certificates for servers in whose place weir answers: each for one name or address, signed by weir's authority, made
//! when it is needed and kept for a while.

use std::sync::Arc;
use std::time::Instant;

use quick_cache::sync::Cache;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use time::OffsetDateTime;

use super::authority::{Authority, BACKDATED, serial};
use super::client::{provider, versions};
use crate::config::TlsVersion;
use crate::http::authority::Host;

/// The longest common name (RFC 5280, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// Makes certificates, and remembers them. One for all workers.
#[derive(Debug)]
pub struct Minter {
    authority: Authority,
    lifetime: std::time::Duration,
    /// That of all certificates; it lives as long as this process.
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    minted: Cache<Host, Arc<Minted>>,
    base: ServerConfig,
}

#[derive(Debug)]
struct Minted {
    certified: Arc<CertifiedKey>,
    /// From then on another is made: who gets it is to have some time left.
    renew: Instant,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    #[error("no certificate can be for the name {0}")]
    Name(String),
    #[error("the certificate could not be made: {0}")]
    Failed(#[from] rcgen::Error),
    #[error("the key could not be used: {0}")]
    Key(#[from] rustls::Error),
}

impl Minter {
    /// Of this authority, for certificates that hold for `lifetime`, of which `kept` are remembered.
    ///
    /// # Errors
    /// [`MintError`]: the key could not be made.
    pub fn new(authority: Authority, lifetime: std::time::Duration, kept: usize) -> Result<Self, MintError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let signing = ring::sign::any_ecdsa_type(&private)?;
        let mut base = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(TlsVersion::Tls12))
            .expect("ring has suites for both versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Nobody));
        // Sessions are resumed by tickets, which need no memory here (RFC 8446 §4.6.1).
        match ring::Ticketer::new() {
            Ok(ticketer) => base.ticketer = ticketer,
            Err(error) => tracing::warn!("intercepted TLS sessions can't be resumed: {error}"),
        }
        Ok(Self { authority, lifetime, key, signing, minted: Cache::new(kept), base })
    }

    /// The authority that signs.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The settings of a session in which weir is this server, and speaks one of these protocols. With whether its
    /// certificate had to be made.
    ///
    /// # Errors
    /// [`MintError`].
    pub fn settings(
        &self,
        host: &Host,
        protocols: Vec<Vec<u8>>,
    ) -> Result<(Arc<ServerConfig>, bool), MintError> {
        let (minted, is_new) = match self.minted.get(host).filter(|minted| minted.renew > Instant::now()) {
            Some(minted) => (minted, false),
            None => {
                let minted = Arc::new(self.mint(host)?);
                self.minted.insert(host.clone(), Arc::clone(&minted));
                (minted, true)
            }
        };
        let mut config = self.base.clone();
        config.cert_resolver = Arc::new(Always(Arc::clone(&minted.certified)));
        config.alpn_protocols = protocols;
        Ok((Arc::new(config), is_new))
    }

    fn mint(&self, host: &Host) -> Result<Minted, MintError> {
        let mut params = CertificateParams::default();
        let (name, alternative) = match host {
            Host::Address(address) => (address.to_string(), SanType::IpAddress(*address)),
            Host::Name(name) => {
                // A certificate's names have no dot at their end.
                let name = name.trim_end_matches('.');
                let bad = || MintError::Name(name.to_owned());
                // A star would be for all names below.
                if name.is_empty() || name.contains('*') {
                    return Err(bad());
                }
                let alternative = Ia5String::try_from(name).map_err(|_| bad())?;
                (name.to_owned(), SanType::DnsName(alternative))
            }
        };
        let common = if name.len() <= MAX_COMMON_NAME { name } else { "weir".to_owned() };
        params.subject_alt_names = vec![alternative];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial());
        let now = OffsetDateTime::now_utc();
        // No longer than its authority, in either direction.
        params.not_before = (now - BACKDATED).max(self.authority.not_before);
        params.not_after = (now + self.lifetime).min(self.authority.not_after);
        let certificate = params.signed_by(&self.key, &self.authority.issuer)?;
        let left = (params.not_after - now).max(time::Duration::ZERO).unsigned_abs();
        Ok(Minted {
            certified: Arc::new(CertifiedKey::new(
                vec![certificate.der().clone()],
                Arc::clone(&self.signing),
            )),
            renew: Instant::now() + left / 2,
        })
    }
}

/// Has no certificate: in each session's own settings there is one.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// The certificate of this session, whatever name is asked for: that was looked at before.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use x509_parser::prelude::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn minter(lifetime: Duration, kept: usize) -> Minter {
        let folder = tempfile::tempdir().unwrap();
        Minter::new(Authority::load_or_make(&folder.path().join("ca")).unwrap(), lifetime, kept).unwrap()
    }

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    fn certificate(minter: &Minter, name: &str) -> Vec<u8> {
        minter.mint(&host(name)).unwrap().certified.cert[0].to_vec()
    }

    #[track_caller]
    fn check(name: &str, expected: &[GeneralName<'_>]) {
        let minter = minter(30 * DAY, 8);
        let der = certificate(&minter, name);
        let (_, leaf) = X509Certificate::from_der(&der).unwrap();
        let (_, authority) = X509Certificate::from_der(minter.authority.der()).unwrap();
        leaf.verify_signature(Some(authority.public_key())).unwrap();
        assert_eq!(leaf.issuer(), authority.subject());
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names, expected);
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth && !usage.any && usage.other.is_empty());
        assert!(!leaf.is_ca() && leaf.key_usage().unwrap().unwrap().value.digital_signature());
        let own = |certificate: &X509Certificate<'_>| {
            certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            })
        };
        let issuers = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => Some(id.key_identifier.as_ref()?.0.to_vec()),
            _ => None,
        });
        assert!(issuers.is_some() && issuers == own(&authority) && own(&leaf).is_some(), "{issuers:?}");
        let now = ASN1Time::now().timestamp();
        let (from, to) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
        assert!(from < now - 24 * 3600 && from >= authority.validity().not_before.timestamp());
        assert!((now + 29 * 24 * 3600..=now + 30 * 24 * 3600 + 60).contains(&to));
    }

    #[test]
    fn each_is_for_one_name_or_address() {
        check("a.example", &[GeneralName::DNSName("a.example")]);
        check("a.example.", &[GeneralName::DNSName("a.example")]);
        check("xn--bcher-kva.example", &[GeneralName::DNSName("xn--bcher-kva.example")]);
        check("_sip.a.example", &[GeneralName::DNSName("_sip.a.example")]);
        check("192.0.2.1", &[GeneralName::IPAddress(&[192, 0, 2, 1])]);
        check(
            "2001:db8::1",
            &[GeneralName::IPAddress(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])],
        );
        let long = format!("{0}.{0}.example", "a".repeat(60));
        check(&long, &[GeneralName::DNSName(&long)]);
    }

    #[test]
    fn no_two_have_the_same_serial_and_none_outlives_its_authority() {
        let minter = minter(20_000 * DAY, 8);
        let serial = |der: &[u8]| X509Certificate::from_der(der).unwrap().1.raw_serial().to_vec();
        let (one, other) = (certificate(&minter, "a.example"), certificate(&minter, "a.example"));
        assert_ne!(serial(&one), serial(&other));
        let (_, leaf) = X509Certificate::from_der(&one).unwrap();
        let (_, authority) = X509Certificate::from_der(minter.authority.der()).unwrap();
        assert_eq!(leaf.validity().not_after, authority.validity().not_after);
    }

    #[test]
    fn a_thousand_names_leave_as_many_as_are_kept() {
        let minter = minter(DAY, 64);
        for number in 0..1000 {
            assert!(minter.settings(&host(&format!("n{number}.example")), Vec::new()).unwrap().1);
        }
        assert!(minter.minted.len() <= 64, "{}", minter.minted.len());
        assert!(!minter.settings(&host("n999.example"), Vec::new()).unwrap().1);
    }

    #[test]
    fn one_whose_time_is_nearly_over_is_made_anew() {
        let minter = minter(Duration::ZERO, 8);
        for _ in 0..2 {
            assert!(minter.settings(&host("a.example"), Vec::new()).unwrap().1);
        }
    }

    #[test]
    fn there_is_none_for_all_names_below() {
        let minter = minter(DAY, 8);
        for name in ["*", "*.example", "."] {
            assert!(matches!(minter.mint(&Host::Name(name.into())), Err(MintError::Name(_))), "{name}");
        }
    }
}
