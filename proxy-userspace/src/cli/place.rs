//! Where the admin API of the weir in question is, and what shows that one may ask it.

use std::path::{Path, PathBuf};

use super::{Failed, MISUSED};

/// Holds the secret itself, for those who would rather not have it in a file.
const SECRET: &str = "WEIR_ADMIN_TOKEN";

/// What each command that asks a running weir is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Admin {
    /// The admin API of the weir to talk to: the path of its socket, or http://HOST:PORT.
    ///
    /// Default: the socket in /run/weir if it can be used, else http://127.0.0.1:22140.
    #[arg(long, global = true, env = "WEIR_ADMIN", value_name = "SOCKET|URL")]
    admin: Option<String>,
    /// The file with the secret of `admin.token_file`, for what an admin API does over TCP for its owner only.
    ///
    /// Default: the secret in WEIR_ADMIN_TOKEN, or none.
    #[arg(long, global = true, env = "WEIR_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

impl Admin {
    /// The socket or URL, if one was named.
    pub(super) fn place(&self) -> Option<&str> {
        self.admin.as_deref()
    }

    /// Whether there is a secret to show.
    pub(super) fn has_token(&self) -> bool {
        self.admin_token_file.is_some() || std::env::var_os(SECRET).is_some()
    }

    /// The secret, if there is one.
    pub(super) fn token(&self) -> Result<Option<String>, Failed> {
        match (&self.admin_token_file, std::env::var(SECRET)) {
            (Some(file), _) => read(file).map(Some),
            (None, Ok(secret)) => Ok(Some(secret.trim().to_owned())),
            (None, Err(_)) => Ok(None),
        }
    }
}

fn read(file: &Path) -> Result<String, Failed> {
    let secret = std::fs::read_to_string(file);
    secret
        .map(|secret| secret.trim().to_owned())
        .map_err(|error| Failed::new(MISUSED, format!("can't read the token in {}: {error}", file.display())))
}
