//! A weir that intercepts TLS, and HTTPS servers behind it whose authority it trusts.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::background::Background;
use crate::certificates::{Authority, Certificate};
use crate::weir::Weir;

pub struct Intercepting {
    pub weir: Weir,
    /// That of the servers.
    pub authority: Authority,
}

impl Intercepting {
    /// `intercept` is what stands in `tls.intercept` beside `enabled` and `folder`, `overlay` more of the configuration.
    pub fn start(intercept: &str, overlay: &str) -> Self {
        let authority = Authority::new();
        let weir = Weir::explicit(&Self::overlay(&authority, intercept, overlay));
        Self { weir, authority }
    }

    /// The configuration of [`Intercepting::start`]. weir's authority is in the folder of the servers' one.
    pub fn overlay(authority: &Authority, intercept: &str, overlay: &str) -> String {
        let (roots, folder) = (authority.certificate(), authority.folder().join("weir-ca"));
        format!(
            "upstream: {{tls: {{roots: ['{}'], system_roots: false}}}}\n\
             tls: {{intercept: {{enabled: true, folder: '{}', {intercept}}}}}\n{overlay}",
            roots.display(),
            folder.display()
        )
    }

    /// The certificate that clients have to trust.
    pub fn trusted(&self) -> PathBuf {
        self.authority.folder().join("weir-ca/ca.crt")
    }

    /// The key with which weir signs.
    pub fn key(&self) -> PathBuf {
        self.authority.folder().join("weir-ca/ca.pem")
    }

    /// The text between the marks of its PEM.
    pub fn key_text(&self) -> String {
        let text = fs::read_to_string(self.key()).expect("weir's key");
        text.lines().nth(1).expect("a line of it").to_owned()
    }

    /// A server for `localhost` and 127.0.0.1; its port. `more` are arguments of `https_server.py`.
    pub fn server(&self, more: &[&str]) -> (Background, String) {
        serve(&self.authority.issue("server", "DNS:localhost,IP:127.0.0.1"), more)
    }

    /// curl through this weir, which trusts its authority.
    pub fn curl(&self, arguments: &[&str]) -> Command {
        let mut curl = self.weir.curl(arguments);
        curl.arg("--cacert").arg(self.trusted());
        curl
    }
}

/// A server with this certificate; its port.
pub fn serve(identity: &Certificate, more: &[&str]) -> (Background, String) {
    let files = [&identity.certificate, &identity.key].map(|path| path.display().to_string());
    let server =
        Background::start("https_server.py", &[&[files[0].as_str(), files[1].as_str()][..], more].concat());
    let port = server.port.clone();
    (server, port)
}
