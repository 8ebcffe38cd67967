//! Databases of NSS: Chromium has one in ~/.pki/nssdb, Firefox one in each profile.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Certificate, Said, Store, ask};

pub(super) struct Nss {
    pub folder: PathBuf,
}

impl Store for Nss {
    fn describe(&self) -> String {
        format!("the NSS database {}", self.folder.display())
    }

    fn trust(&self, certificate: &Certificate<'_>) -> Result<bool, String> {
        if self.knows(certificate)? {
            return Ok(false);
        }
        if !self.folder.join("cert9.db").exists() {
            std::fs::create_dir_all(&self.folder).map_err(|error| error.to_string())?;
            self.certutil(&["-N", "--empty-password"], None)?;
        }
        // For servers, and for nothing else.
        self.certutil(&["-A", "-t", "C,,", "-n", &certificate.name, "-i"], Some(certificate.file))
            .map(|()| true)
    }

    fn untrust(&self, certificate: &Certificate<'_>) -> Result<bool, String> {
        if !self.knows(certificate)? {
            return Ok(false);
        }
        self.certutil(&["-D", "-n", &certificate.name], None).map(|()| true)
    }
}

impl Nss {
    fn knows(&self, certificate: &Certificate<'_>) -> Result<bool, String> {
        if !self.folder.join("cert9.db").exists() {
            return Ok(false);
        }
        let said =
            ask(Command::new("certutil").args(self.database()).args(["-L", "-n", &certificate.name]), "")?;
        Ok(said.code == Some(0))
    }

    fn certutil(&self, words: &[&str], file: Option<&Path>) -> Result<(), String> {
        let mut certutil = Command::new("certutil");
        certutil.args(self.database()).args(words).args(file);
        match ask(&mut certutil, "")? {
            Said { code: Some(0), .. } => Ok(()),
            Said { output, .. } => Err(output),
        }
    }

    fn database(&self) -> [String; 2] {
        ["-d".to_owned(), format!("sql:{}", self.folder.display())]
    }
}

/// The databases of this user, or the one that is named.
pub(super) fn folders(named: Option<&Path>) -> Result<Vec<PathBuf>, String> {
    if let Some(named) = named {
        return Ok(vec![named.to_owned()]);
    }
    let home =
        std::env::var_os("HOME").map(PathBuf::from).ok_or("HOME is not set; name the database's folder")?;
    let mut folders = vec![home.join(".pki/nssdb")];
    for profiles in [".mozilla/firefox", "snap/firefox/common/.mozilla/firefox"] {
        let entries = std::fs::read_dir(home.join(profiles)).into_iter().flatten().flatten();
        folders.extend(entries.map(|entry| entry.path()).filter(|folder| folder.join("cert9.db").exists()));
    }
    Ok(folders)
}
