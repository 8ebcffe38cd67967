//! Certificates and keys out of PEM files.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::privilege;

/// A file that is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{}: can't be read: {error}", .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}: no {what} in it; it should be PEM (`-----BEGIN …`)", .path.display())]
    Missing { path: PathBuf, what: &'static str },
    #[error("{}: not valid PEM: {error}", .path.display())]
    Malformed { path: PathBuf, error: pem::Error },
    #[error("{}: {error}", .path.display())]
    Refused { path: PathBuf, error: rustls::Error },
}

/// All certificates of a file, in their order; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| FileError::Malformed { path: path.into(), error })?;
    if found.is_empty() {
        return Err(FileError::Missing { path: path.into(), what: "certificate" });
    }
    Ok(found)
}

/// The first private key of a file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| match error {
        pem::Error::NoItemsFound => FileError::Missing { path: path.into(), what: "private key" },
        error => FileError::Malformed { path: path.into(), error },
    })
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let read = match (std::fs::read(path), privilege::assistant()) {
        // Keys are often root's; it was told of them at the start.
        (Err(error), Some(assistant)) if error.kind() == io::ErrorKind::PermissionDenied => {
            assistant.open(path).and_then(|mut file| {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).map(|_| bytes)
            })
        }
        (read, _) => read,
    };
    read.map_err(|error| FileError::Unreadable { path: path.into(), error })
}
