//! Lets those change things over TCP, too, who know the secret in `admin.token_file`.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::digest::{Digest, SHA256, digest};

use super::problem::Problem;

/// The shortest secret that is taken, in bytes.
const SHORTEST: usize = 16;

/// The longest file that is read, in bytes.
const LONGEST_FILE: u64 = 4096;

/// What a caller over TCP has to know. It may be replaced.
#[derive(Debug, Clone)]
pub struct Token(Arc<RwLock<Secret>>);

/// The digest of a secret. None: nobody is let in.
#[derive(Clone)]
pub struct Secret(Option<Digest>);

/// Why a token file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("admin.token_file {}: {error}", .path.display())]
pub struct TokenError {
    path: PathBuf,
    error: io::Error,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Secret(set)" } else { "Secret(none)" })
    }
}

impl Token {
    pub(super) fn new(secret: Secret) -> Self {
        Self(Arc::new(RwLock::new(secret)))
    }

    /// Another secret counts from now on.
    pub fn replace(&self, secret: Secret) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = secret;
    }

    fn secret(&self) -> Secret {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Secret {
    /// Reads the secret: the file's content, without white space around it.
    ///
    /// # Errors
    /// [`TokenError`]
    pub fn read(path: Option<&Path>) -> Result<Self, TokenError> {
        let Some(path) = path else { return Ok(Self(None)) };
        let secret = read(path).map_err(|error| TokenError { path: path.to_owned(), error })?;
        Ok(Self(Some(digest(&SHA256, secret.trim().as_bytes()))))
    }

    /// Compares digests: how long that takes tells nothing of the secret.
    fn is(&self, given: &str) -> bool {
        self.0
            .as_ref()
            .is_some_and(|expected| digest(&SHA256, given.as_bytes()).as_ref() == expected.as_ref())
    }
}

fn read(path: &Path) -> io::Result<String> {
    let file = std::fs::metadata(path)?;
    if file.mode() & 0o077 != 0 {
        return Err(io::Error::other("others may read or change it; `chmod 600` it"));
    }
    if !file.is_file() || file.len() > LONGEST_FILE {
        return Err(io::Error::other("is no file of a secret"));
    }
    let secret = std::fs::read_to_string(path)?;
    if secret.trim().len() < SHORTEST {
        let message =
            format!("holds fewer than {SHORTEST} bytes; `head -c 32 /dev/urandom | base64` makes a secret");
        return Err(io::Error::other(message));
    }
    Ok(secret)
}

pub(super) async fn check(State(token): State<Token>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let secret = token.secret();
    if given.is_some_and(|(_, given)| secret.is(given.trim())) {
        return next.run(request).await;
    }
    if secret.0.is_none() {
        let detail =
            "this is answered on the Unix socket only (`curl --unix-socket`), as admin.token_file is not set";
        return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
    }
    let detail = "this needs the token of admin.token_file, as `Authorization: Bearer TOKEN`";
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"weir\""));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn token(secret: &str, mode: u32) -> Result<Secret, TokenError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, secret).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Secret::read(Some(&path))
    }

    #[test]
    fn a_secret_is_known_whole_or_not_at_all() {
        let token = token("0123456789abcdef\n", 0o600).unwrap();
        for (given, expected) in [
            ("0123456789abcdef", true),
            ("0123456789abcde", false),
            ("0123456789abcdef0", false),
            ("", false),
        ] {
            assert_eq!(token.is(given), expected, "{given}");
        }
        assert!(!Secret(None).is(""));
    }

    #[test]
    fn a_file_that_keeps_no_secret_is_refused() {
        assert!(token("0123456789abcdef", 0o640).is_err());
        assert!(token("0123456789abcde", 0o600).is_err());
        assert!(Secret::read(Some(Path::new("/nonexistent/token"))).is_err());
    }
}
