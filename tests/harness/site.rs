//! What clients of every kind are tried against: one weir, which serves proxy clients with and without TLS, and behind it
//! real servers, node's and nginx, in the clear and over TLS.

use std::path::Path;

use serde_json::Value;

use crate::background::Background;
use crate::certificates::{Authority, Certificate};
use crate::nginx::Nginx;
use crate::pattern::Pattern;
use crate::weir::Weir;

/// The size of nginx's `/large.bin`, which is [`Pattern::bytes`] of the seed 5.
pub const LARGE: usize = 3 << 20;
/// nginx's `/page.txt`: compressible, and long enough to be compressed.
pub const LINES: usize = 200;

pub struct Site {
    pub weir: Weir,
    pub authority: Authority,
    pub nginx: Nginx,
    /// node, as `host:port`, in the clear and over TLS.
    pub node: String,
    pub node_tls: String,
    /// What the servers and weir show.
    pub identity: Certificate,
    _node: Background,
}

/// What has passed a weir.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    pub requests: u64,
    pub tunnels: u64,
}

impl Site {
    /// `overlay` is more of weir's configuration, without its `server` section.
    pub fn start(overlay: &str) -> Self {
        let authority = Authority::new();
        let identity = authority.issue("localhost", "DNS:localhost,IP:127.0.0.1");
        let (certificate, key) = (identity.certificate.display(), identity.key.display());
        let node = Background::start_with(
            Path::new("node"),
            "clients/origin.mjs",
            &[&certificate.to_string(), &key.to_string()],
        );
        let (plain, tls) = node.port.split_once(' ').expect("two ports");
        let page = "a line of a page\n".repeat(LINES);
        let nginx = Nginx::start(
            &identity,
            &[("page.txt", page.as_bytes()), ("large.bin", &Pattern::bytes(5, LARGE))],
        );
        let weir = Weir::explicit(&format!(
            "server: {{tls: {{enabled: true, cert: '{certificate}', key: '{key}'}}}}\n\
             upstream: {{tls: {{roots: ['{}']}}}}\n{overlay}",
            authority.certificate().display()
        ));
        let (node_plain, node_tls) = (format!("127.0.0.1:{plain}"), format!("localhost:{tls}"));
        Self { weir, authority, nginx, node: node_plain, node_tls, identity, _node: node }
    }

    /// Replaces `{proxy}` (the address), `{proxyport}`, `{admin}`, `{node}`, `{nodes}`, `{nginx}`, `{nginxs}` (with TLS)
    /// and `{ca}` in an argument.
    pub fn fill(&self, text: &str) -> String {
        text.replace("{proxy}", &self.weir.proxy.to_string())
            .replace("{proxyport}", &self.weir.proxy.port().to_string())
            .replace("{node}", &self.node)
            .replace("{nodes}", &self.node_tls)
            .replace("{nodeport}", self.node.rsplit(':').next().unwrap_or_default())
            .replace("{nodesport}", self.node_tls.rsplit(':').next().unwrap_or_default())
            .replace("{nginx}", &format!("127.0.0.1:{}", self.nginx.port))
            .replace("{nginxs}", &format!("localhost:{}", self.nginx.tls_port))
            .replace("{ca}", &self.authority.certificate().display().to_string())
    }

    /// How much has passed weir so far.
    pub fn passed(&self) -> Passed {
        Passed {
            requests: self.weir.metric("http_requests_total"),
            tunnels: self.weir.metric("tunnels_total"),
        }
    }
}

/// What node's `/echo` has seen: a field of the request.
pub fn header<'a>(seen: &'a Value, name: &str) -> Option<&'a str> {
    seen["headers"][name].as_str()
}
