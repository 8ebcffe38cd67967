//! Keystores of Java's, by its keytool.

use std::path::PathBuf;
use std::process::Command;

use super::{Certificate, Said, Store, ask};

pub(super) struct Java {
    /// None: that of the JVM (`cacerts`).
    pub file: Option<PathBuf>,
    pub password: String,
}

impl Store for Java {
    fn describe(&self) -> String {
        match &self.file {
            None => "Java's keystore".to_owned(),
            Some(file) => format!("the keystore {}", file.display()),
        }
    }

    fn trust(&self, certificate: &Certificate<'_>) -> Result<bool, String> {
        if self.knows(certificate)? {
            return Ok(false);
        }
        let mut keytool = self.keytool("-importcert", certificate);
        keytool.arg("-noprompt").arg("-file").arg(certificate.file);
        done(ask(&mut keytool, "")?)
    }

    fn untrust(&self, certificate: &Certificate<'_>) -> Result<bool, String> {
        if !self.knows(certificate)? {
            return Ok(false);
        }
        done(ask(&mut self.keytool("-delete", certificate), "")?)
    }
}

impl Java {
    fn knows(&self, certificate: &Certificate<'_>) -> Result<bool, String> {
        if self.file.as_ref().is_some_and(|file| !file.exists()) {
            return Ok(false);
        }
        let said = ask(&mut self.keytool("-list", certificate), "")?;
        match said.code {
            Some(0) => Ok(true),
            _ if said.output.contains("does not exist") => Ok(false),
            _ => Err(said.output),
        }
    }

    fn keytool(&self, command: &str, certificate: &Certificate<'_>) -> Command {
        let mut keytool = Command::new("keytool");
        keytool.args([command, "-alias", &certificate.name]);
        match &self.file {
            None => keytool.arg("-cacerts"),
            Some(file) => keytool.arg("-keystore").arg(file),
        };
        // By the environment: arguments are for all to see.
        keytool.args(["-storepass:env", "WEIR_STOREPASS"]).env("WEIR_STOREPASS", &self.password);
        keytool
    }
}

fn done(said: Said) -> Result<bool, String> {
    match said {
        Said { code: Some(0), .. } => Ok(true),
        Said { output, .. } => Err(output),
    }
}
