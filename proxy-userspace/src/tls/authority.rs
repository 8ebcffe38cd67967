//! weir's own certificate authority, which signs what clients are shown where their TLS is intercepted: made on first use,
//! and kept in a folder of its own.
//!
//! `ca.pem` holds the key and the certificate, so that the two always belong together, and is for its owner alone;
//! `ca.crt` is the certificate once more, for whoever is to trust it. Nothing here decides who does.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::{Duration, OffsetDateTime};

/// How long the authority holds.
const LIFETIME: Duration = Duration::days(3650);

/// Certificates begin to hold so long before they are made: clocks differ.
pub(super) const BACKDATED: Duration = Duration::days(2);

/// The most of a key file that is read.
const MAX_FILE: u64 = 64 << 10;

/// An authority that signs.
#[derive(Debug)]
pub struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    pub(super) not_before: OffsetDateTime,
    pub(super) not_after: OffsetDateTime,
    path: PathBuf,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{}: {error}; set tls.intercept.folder to a folder that weir may write to", .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "{}: others may {may} it (mode {mode:04o}): a key that somebody else may have is no secret any more; \
         if nobody can have used that, `chmod {right} {0}`; else `weir ca untrust`, remove it, and weir makes another",
        .path.display()
    )]
    Exposed { path: PathBuf, may: &'static str, mode: u32, right: &'static str },
    #[error("{}: it belongs to user {owner}, who could change it at any time", .path.display())]
    Owner { path: PathBuf, owner: u32 },
    #[error("{}: it is not what weir has put there ({why}); remove it, and weir makes another", .path.display())]
    Malformed { path: PathBuf, why: String },
    #[error("{}: the authority has expired; `weir ca untrust`, remove it, and weir makes another", .path.display())]
    Expired { path: PathBuf },
}

impl Authority {
    /// The authority of this folder, which is made if there is none.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn load_or_make(folder: &Path) -> Result<Self, AuthorityError> {
        let path = folder.join(FILE);
        make_folder(folder)?;
        let text = match read(&path) {
            Err(AuthorityError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                // Another weir may have been faster; what is there counts.
                create(folder, &make().map_err(|error| malformed(&path, error))?)?;
                read(&path)?
            }
            read => read?,
        };
        let authority = Self::parse(&text, &path)?;
        authority.publish(folder);
        Ok(authority)
    }

    /// The authority of this folder, if there is one.
    ///
    /// # Errors
    /// As [`Authority::load_or_make`].
    pub fn load(folder: &Path) -> Result<Option<Self>, AuthorityError> {
        let path = folder.join(FILE);
        match read(&path) {
            Err(AuthorityError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => Self::parse(&read?, &path).map(Some),
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, AuthorityError> {
        let bad = |error: &dyn std::fmt::Display| malformed(path, error);
        let key = KeyPair::from_pem(text).map_err(|error| bad(&error))?;
        let certificate = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|error| bad(&error))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|error| bad(&error))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(bad(&"the certificate is for another key"));
        }
        if !parsed.is_ca() {
            return Err(bad(&"the certificate is none of an authority"));
        }
        let validity = parsed.validity();
        let (not_before, not_after) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
        if not_after <= OffsetDateTime::now_utc() {
            return Err(AuthorityError::Expired { path: path.into() });
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|error| bad(&error))?;
        let pem = pem_of(&certificate);
        Ok(Self { issuer, certificate, pem, not_before, not_after, path: path.into() })
    }

    /// Its certificate, in PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The same, in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.certificate
    }

    /// SHA-256 of its certificate, in hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(digest::digest(&digest::SHA256, &self.certificate).as_ref())
    }

    /// Until when it holds.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Where its key is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the certificate where everybody may read it. Who needs it can also be given it by `weir ca export`, so that this
    /// fails does no harm.
    fn publish(&self, folder: &Path) {
        let (path, fresh) =
            (folder.join(CERTIFICATE), folder.join(format!("{CERTIFICATE}.{}", random_name())));
        if fs::read_to_string(&path).is_ok_and(|there| there == self.pem) {
            return;
        }
        let written = write_new(&fresh, self.pem.as_bytes(), 0o644).and_then(|()| fs::rename(&fresh, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&fresh);
            tracing::debug!(%error, path = %path.display(), "the authority's certificate can't be put beside its key");
        }
    }
}

const FILE: &str = "ca.pem";
const CERTIFICATE: &str = "ca.crt";

fn malformed(path: &Path, why: impl std::fmt::Display) -> AuthorityError {
    AuthorityError::Malformed { path: path.into(), why: why.to_string() }
}

fn pem_of(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    let encoded = BASE64_STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in encoded.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).unwrap_or_default());
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// A new authority's key and certificate, in PEM.
fn make() -> Result<String, rcgen::Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // By name, certificates say who issued them: no two authorities are to have the same one.
    let id = hex(&digest::digest(&digest::SHA256, key.public_key_raw()).as_ref()[..4]);
    params.distinguished_name.push(DnType::OrganizationName, "weir");
    params.distinguished_name.push(DnType::CommonName, format!("weir CA {id}"));
    // It signs servers' certificates, and no other authority's.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial());
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - BACKDATED, now + LIFETIME);
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), pem_of(certificate.der())))
}

/// RFC 5280 §4.1.2.2: positive, at most 20 bytes; random, so that nobody can tell what comes next.
pub(super) fn serial() -> SerialNumber {
    let mut bytes = random::<16>();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel has random bytes");
    bytes
}

fn random_name() -> String {
    hex(&random::<8>())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn make_folder(folder: &Path) -> Result<(), AuthorityError> {
    let failed = |error| AuthorityError::Io { path: folder.into(), error };
    DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(failed)?;
    let metadata = fs::metadata(folder).map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(AuthorityError::Exposed { path: folder.into(), may: "write to", mode, right: "0755" });
    }
    check_owner(folder, &metadata)
}

/// Whoever owns it can put another in its place. (Root reads what belongs to the user that weir has become.)
fn check_owner(path: &Path, metadata: &fs::Metadata) -> Result<(), AuthorityError> {
    let user = nix::unistd::geteuid();
    if user.is_root() || [0, user.as_raw()].contains(&metadata.uid()) {
        return Ok(());
    }
    Err(AuthorityError::Owner { path: path.into(), owner: metadata.uid() })
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    let failed = |error| AuthorityError::Io { path: path.into(), error };
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    // Of what was opened, whatever has the name by now.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(malformed(path, "it is no file"));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(AuthorityError::Exposed { path: path.into(), may: "use", mode, right: "0600" });
    }
    check_owner(path, &metadata)?;
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// Puts a new authority in its place, unless one is there: what has the name is always whole.
fn create(folder: &Path, text: &str) -> Result<(), AuthorityError> {
    let (path, fresh) = (folder.join(FILE), folder.join(format!("{FILE}.{}", random_name())));
    let failed = |error| AuthorityError::Io { path: path.clone(), error };
    let placed =
        write_new(&fresh, text.as_bytes(), 0o600).and_then(|()| match fs::hard_link(&fresh, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
    let _ = fs::remove_file(&fresh);
    placed.map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    tracing::info!("a certificate authority was made: {}", path.display());
    Ok(())
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // Whatever the umask says.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn it_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("a/b");
        assert!(Authority::load(&folder).unwrap().is_none());
        let made = Authority::load_or_make(&folder).unwrap();
        assert_eq!((mode(&folder.join(FILE)), mode(&folder.join(CERTIFICATE))), (0o600, 0o644));
        let again = Authority::load_or_make(&folder).unwrap();
        assert_eq!(made.fingerprint(), again.fingerprint());
        assert_eq!(fs::read_to_string(folder.join(CERTIFICATE)).unwrap(), made.pem());
        assert!(!made.pem().contains("PRIVATE"));
        assert!(!format!("{made:?}").contains("PRIVATE"));
        let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn of_many_who_make_it_at_one_time_all_have_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("ca");
        let made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Authority::load_or_make(&folder).unwrap().fingerprint()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(made.iter().all(|one| *one == made[0]), "{made:?}");
    }

    #[test]
    fn a_key_that_others_may_have_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("ca");
        Authority::load_or_make(&folder).unwrap();
        let path = folder.join(FILE);
        for bad in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(bad)).unwrap();
            let error = Authority::load_or_make(&folder).unwrap_err();
            assert!(matches!(error, AuthorityError::Exposed { .. }), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Authority::load_or_make(&folder), Err(AuthorityError::Exposed { .. })));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        // What the name leads to may be anybody's.
        let elsewhere = folder.join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(Authority::load_or_make(&folder).is_err());
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        Authority::load_or_make(&one).unwrap();
        let other = Authority::load_or_make(&other).unwrap();
        let path = one.join(FILE);
        let text = fs::read_to_string(&path).unwrap();
        let key = text.split_once("-----BEGIN CERTIFICATE").unwrap().0;
        for wrong in [String::new(), "nonsense".into(), key.to_owned(), format!("{key}{}", other.pem())] {
            fs::write(&path, wrong).unwrap();
            let error = Authority::load_or_make(&one).unwrap_err();
            assert!(matches!(error, AuthorityError::Malformed { .. }), "{error}");
        }
    }
}
