//! A certificate authority of a test's own, made with openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// An authority, whose files are gone when it is dropped.
pub struct Authority {
    folder: TempDir,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let authority = Self { folder: TempDir::new().expect("a temporary folder") };
        let own = authority.files("ca");
        // Each has a name of its own: certificates say by name who issued them.
        let subject =
            format!("/CN=Authority {}", authority.folder.path().display().to_string().replace('/', " "));
        let subject = ["-subj", &subject, "-days", "30"];
        let extensions = ["-addext", "keyUsage=critical,keyCertSign"];
        request(&own, &[&subject[..], &extensions].concat());
        authority
    }

    /// The authority's own certificate, for those who are to trust it.
    pub fn certificate(&self) -> PathBuf {
        self.files("ca").certificate
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A certificate for `names`, such as `DNS:a.example` or `IP:127.0.0.1`, kept in files called `file`.
    pub fn issue(&self, file: &str, names: &str) -> Certificate {
        let (issued, own) = (self.files(file), self.files("ca"));
        let (names, subject) = (format!("subjectAltName={names}"), format!("/CN={file}"));
        let path = |path: &Path| path.display().to_string();
        let authority = [path(&own.certificate), path(&own.key)];
        request(
            &issued,
            &[
                "-subj",
                &subject,
                "-days",
                "30",
                "-addext",
                &names,
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-CA",
                &authority[0],
                "-CAkey",
                &authority[1],
            ],
        );
        issued
    }

    /// As [`Authority::issue`], but it has expired.
    pub fn issue_expired(&self, file: &str, names: &str) -> Certificate {
        let (issued, own) = (self.files(file), self.files("ca"));
        let path = |ending: &str| self.folder.path().join(format!("{file}.{ending}"));
        let (request, extensions) = (path("csr"), path("extensions"));
        std::fs::write(&extensions, format!("subjectAltName={names}\nbasicConstraints=critical,CA:FALSE\n"))
            .expect("a folder of ours");
        let mut ask = Command::new("openssl");
        ask.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        run(ask
            .arg("-subj")
            .arg(format!("/CN={file}"))
            .arg("-keyout")
            .arg(&issued.key)
            .arg("-out")
            .arg(&request));
        let mut sign = Command::new("openssl");
        sign.args(["x509", "-req", "-days", "-1", "-CAcreateserial", "-in"]).arg(&request).arg("-CA");
        sign.arg(&own.certificate).arg("-CAkey").arg(&own.key).arg("-extfile").arg(&extensions);
        run(sign.arg("-out").arg(&issued.certificate));
        issued
    }

    fn files(&self, name: &str) -> Certificate {
        let path = |ending: &str| self.folder.path().join(format!("{name}.{ending}"));
        Certificate { certificate: path("pem"), key: path("key") }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

fn request(files: &Certificate, more: &[&str]) {
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .arg("-keyout")
        .arg(&files.key)
        .arg("-out")
        .arg(&files.certificate)
        .args(more);
    run(&mut openssl);
}

fn run(openssl: &mut Command) {
    let output = openssl.output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
