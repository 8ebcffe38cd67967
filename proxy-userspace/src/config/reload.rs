//! What of a configuration that is read again holds at once, and what only from the next start on.

use super::errors::Report;
use super::tree::Node;
use super::{Admin, Cache, Capture, Config, ConfigErrors, Logging, Security, Server, clashes};

/// Keys, and sections with all that is below them, whose values are those of the start.
const FIXED: &[&str] = &[
    "server.user",
    "server.sandbox",
    "server.workers",
    "capture",
    "cache.enabled",
    "cache.disk",
    "cache.redis",
    "security.rate_limiting.redis",
    "tls",
    "system_proxy",
    "admin",
    "metrics",
    "logging.format",
];

/// What of these holds at once all the same.
const CHANGEABLE: &[&str] =
    &["capture.rules", "capture.detect_timeout", "capture.server_first_ports", "admin.token_file"];

/// The explicit proxy's place. While the kernel half is loaded, it knows this one and no other.
const PLACE: &[&str] = &["server.host", "server.port", "server.port_range"];

/// Whether a new value of this key holds from the next start on only.
#[must_use]
pub fn needs_restart(key: &str, captures: bool) -> bool {
    let is_of = |keys: &[&str]| {
        keys.iter()
            .any(|of| key.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    };
    is_of(FIXED) && !is_of(CHANGEABLE) || captures && is_of(PLACE)
}

/// The configuration that holds when `new` is read while `old` does; `captures`: with the kernel half.
///
/// # Errors
/// What is new does not go together with what stays.
pub fn reloaded(old: &Config, mut new: Config, captures: bool) -> Result<Config, ConfigErrors> {
    if captures {
        let Server { host, port, ref port_range, .. } = old.server;
        (new.server.host, new.server.port, new.server.port_range) = (host, port, port_range.clone());
    }
    let config = Config {
        server: Server {
            user: old.server.user.clone(),
            sandbox: old.server.sandbox,
            workers: old.server.workers,
            ..new.server
        },
        capture: Capture {
            rules: new.capture.rules,
            detect_timeout: new.capture.detect_timeout,
            server_first_ports: new.capture.server_first_ports,
            ..old.capture.clone()
        },
        cache: Cache {
            enabled: old.cache.enabled,
            disk: old.cache.disk.clone(),
            redis: old.cache.redis.clone(),
            ..new.cache
        },
        security: Security { shared_limits: old.security.shared_limits.clone(), ..new.security },
        tls: old.tls.clone(),
        system_proxy: old.system_proxy.clone(),
        admin: Admin { token_file: new.admin.token_file, ..old.admin.clone() },
        metrics: old.metrics,
        logging: Logging { format: old.logging.format, ..new.logging },
        ..new
    };
    let mut report = Report::default();
    clashes::check(&config, &Node::empty(), &mut report);
    report.finish(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load_whole};

    /// Every key that is told to need a restart keeps its value, and no other does.
    #[test]
    fn what_is_told_is_what_is_done() {
        let old = Config::default();
        for (setting, kept) in [
            ("server.workers=7", true),
            ("server.user=nobody", true),
            ("server.sandbox=off", true),
            ("server.port=9", false),
            ("server.timeouts.idle=9s", false),
            ("capture.mode=off", true),
            ("capture.dns.grace=9s", true),
            ("capture.detect_timeout=9ms", false),
            ("capture.targets=['unit:a.service']", true),
            ("security.rate_limiting.enabled=true", false),
            ("security.rate_limiting.redis.timeout=9ms", true),
            ("cache.enabled=true", true),
            ("cache.disk.path=/x", true),
            ("cache.redis.timeout=9ms", true),
            ("cache.max_memory=64MB", false),
            ("routing.default_backend=http://a", false),
            ("upstream.retries=9", false),
            ("relay.pipe_size=64KiB", false),
            ("system_proxy.pac=true", true),
            ("admin.port=9", true),
            ("admin.token_file=/x", false),
            ("metrics.enabled=true", true),
            ("cli.enabled=true", false),
            ("flows.keep=9", false),
            ("logging.format=json", true),
            ("logging.level=debug", false),
        ] {
            let sources = Sources { overrides: vec![setting.to_owned()], ..Sources::default() };
            let new = load_whole(&sources).unwrap();
            assert_ne!(new.config, old, "{setting}");
            assert_eq!(reloaded(&old, new.config, false).unwrap() == old, kept, "{setting}");
            assert_eq!(needs_restart(setting.split('=').next().unwrap(), false), kept, "{setting}");
        }
    }
    /// The kernel half would not know where the explicit proxy is, and let programs pass through it.
    #[test]
    fn with_the_kernel_half_the_proxy_stays_where_it_is() {
        let old = Config::default();
        let sources = Sources { overrides: vec!["server.port=9".to_owned()], ..Sources::default() };
        let new = load_whole(&sources).unwrap().config;
        assert_eq!(reloaded(&old, new, true).unwrap(), old);
        assert!(needs_restart("server.port", true) && !needs_restart("server.pac", true));
    }
}
