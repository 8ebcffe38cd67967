//! The proxy auto-configuration file that browsers ask for: everything through weir, but for this machine itself.

use super::authority::Authority;

/// Where it is found.
pub const PATH: &str = "/proxy.pac";

/// Its media type.
pub const MEDIA_TYPE: &[u8] = b"application/x-ns-proxy-autoconfig";

/// The file for clients that reach weir at `proxy`, by TLS or in the clear. There is no fallback to DIRECT: what goes
/// through weir is to go through weir.
#[must_use]
pub fn file(proxy: &Authority, tls: bool) -> String {
    // A host holds letters, digits, hyphens, dots, underscores, or an address: nothing that ends a string.
    let kind = if tls { "HTTPS" } else { "PROXY" };
    format!(
        "function FindProxyForURL(url, host) {{\n  \
           if (host === \"localhost\" || shExpMatch(host, \"*.localhost\") || shExpMatch(host, \"127.*\")\n      \
               || host === \"::1\" || host === \"[::1]\") return \"DIRECT\";\n  \
           return \"{kind} {proxy}\";\n}}\n"
    )
}
