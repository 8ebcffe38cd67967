//! Every key, one line each: name, default, kind and range.
//!
//! What a key means is told by the field of the same name in `mod.rs`, and to users by config/proxy.yaml.
//! Limits that one key sets on another are in `clashes.rs`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::cache;
use super::defaults::default_state_dir;
use super::errors::{ConfigErrors, Origin, Report};
use super::kinds::{
    GIB, KIB, MIB, address, auto_or, choice, duration, log_filter, mapped, none_or, number, optional, path,
    port_range, selector, size, switch,
};
use super::schema::Described;
use super::section::Section;
use super::shape::{Hide, Shape, shaped};
use super::tree::Node;
use super::yaml;
use super::{
    Access, Acl, Admin, Capture, CaptureMode, Config, DenyErrno, Destinations, FailMode, Flows, Http2,
    Limits, LogFormat, Logging, Metrics, PerClient, RateLimiting, Sandbox, Security, Server, SharedLimits,
    Timeouts, Upstream, UpstreamHttp2,
};
use super::{
    access, auth, body_rules, cli, compression, dns, filtering, forwarded, header_rules, headers, inspection,
    interception, parent, patterns, redis, relay, rewrites, routing, rules, services, system_proxy, tls,
};

pub(super) fn read(tree: &Node, report: &mut Report) -> Config {
    Section::root(tree, report, |s| Config {
        server: s.section("server", server),
        capture: s.section("capture", capture),
        security: s.section("security", security),
        cache: s.section("cache", cache::cache),
        compression: s.section("compression", compression::compression),
        routing: s.section("routing", routing::routing),
        forwarded: s.section("forwarded", forwarded::forwarding),
        services: s.section("services", services::services),
        upstream: s.section("upstream", upstream),
        tls: s.section("tls", interception::read),
        relay: s.section("relay", relay::read),
        system_proxy: s.section("system_proxy", system_proxy::read),
        admin: s.section("admin", admin),
        metrics: s.section("metrics", metrics),
        cli: s.section("cli", cli::cli),
        flows: s.section("flows", flows),
        logging: s.section("logging", logging),
    })
}

/// What each key is, those of entries of lists too, in the order in which they are read.
pub(super) fn described() -> Vec<Described> {
    let mut report = Report::describing();
    read(&Node::empty(), &mut report);
    report.into_described()
}

/// Every key that there is, sections too, as `server.timeouts.read`.
pub fn keys() -> Vec<String> {
    let mut report = Report::default();
    read(&Node::empty(), &mut report);
    report.known_keys()
}

/// The part of `security` that a context may have for itself (`acl.rules` and `filtering`), from JSON or YAML.
///
/// # Errors
/// What is wrong with it.
pub fn security_of(text: &str) -> Result<Security, ConfigErrors> {
    let mut report = Report::default();
    let at = |line, column| Origin::File { file: "policy".into(), line, column };
    let Some(tree) = yaml::parse(text, &at, &mut report) else {
        report.finish(())?;
        return Ok(Security::default());
    };
    let security = Section::root(&tree, &mut report, |s| Security {
        acl: s.section("acl", |s| Acl { rules: access::read(s), destinations: Destinations::default() }),
        filtering: s.section("filtering", filtering::read),
        ..Security::default()
    });
    report.finish(security)
}

fn server(s: &mut Section<'_, '_>) -> Server {
    const SANDBOX: &[(&str, Sandbox)] =
        &[("auto", Sandbox::Auto), ("on", Sandbox::On), ("off", Sandbox::Off)];

    let d = Server::default();
    Server {
        host: s.read("host", d.host, address()),
        port: s.read("port", d.port, number(0..=u16::MAX)),
        port_range: s.read("port_range", d.port_range, port_range()),
        user: s.read("user", d.user, none_or(|text: &str| Ok(text.to_owned()))),
        sandbox: s.read("sandbox", d.sandbox, choice(SANDBOX)),
        workers: s.read("workers", d.workers, auto_or(|| Server::default().workers, number(1..=1024))),
        tls: s.section("tls", tls::server_tls),
        pac: s.read("pac", d.pac, switch()),
        socks5: s.read("socks5", d.socks5, switch()),
        timeouts: s.section("timeouts", timeouts),
        limits: s.section("limits", limits),
        http2: s.section("http2", http2),
    }
}

fn http2(s: &mut Section<'_, '_>) -> Http2 {
    let d = Http2::default();
    Http2 {
        max_streams: s.read("max_streams", d.max_streams, number(1..=10_000)),
        header_list: s.read("header_list", d.header_list, size(KIB..=MIB)),
        stream_window: s.read("stream_window", d.stream_window, size(64 * KIB..=64 * MIB)),
        connection_window: s.read("connection_window", d.connection_window, size(64 * KIB..=1024 * MIB)),
        send_buffer: s.read("send_buffer", d.send_buffer, size(16 * KIB..=64 * MIB)),
    }
}

fn timeouts(s: &mut Section<'_, '_>) -> Timeouts {
    let d = Timeouts::default();
    Timeouts {
        request_head: s.read("request_head", d.request_head, duration(ms(10)..=hours(1))),
        read: s.read("read", d.read, duration(ms(10)..=hours(24))),
        write: s.read("write", d.write, duration(ms(10)..=hours(24))),
        idle: s.read("idle", d.idle, duration(ms(10)..=hours(24))),
        tunnel_idle: s.read("tunnel_idle", d.tunnel_idle, duration(ms(10)..=hours(30 * 24))),
        drain: s.read("drain", d.drain, duration(ms(0)..=hours(1))),
        upgrade: s.read("upgrade", d.upgrade, duration(ms(0)..=hours(30 * 24))),
    }
}

fn limits(s: &mut Section<'_, '_>) -> Limits {
    let d = Limits::default();
    Limits {
        url: s.read("url", d.url, size(64..=MIB)),
        head: s.read("head", d.head, size(KIB..=MIB)),
        header_count: s.read("header_count", d.header_count, number(1..=Limits::MAX_HEADER_COUNT)),
        body: s.read("body", d.body, size(0..=1024 * GIB)),
        min_rate: s.read("min_rate", d.min_rate, size(0..=1 << 20)),
        connections: s.read("connections", d.connections, number(1..=1_000_000)),
        connections_per_client: s.read(
            "connections_per_client",
            d.connections_per_client,
            auto_or(|| PerClient::Auto, mapped(number(0..=1_000_000), PerClient::Most)),
        ),
    }
}

pub(super) const ACCESS: &[(&str, Access)] = &[("allow", Access::Allow), ("deny", Access::Deny)];
pub(super) const FAIL_MODES: &[(&str, FailMode)] = &[("open", FailMode::Open), ("closed", FailMode::Closed)];
pub(super) const ERRNOS: &[(&str, DenyErrno)] =
    &[("refused", DenyErrno::Refused), ("host_unreachable", DenyErrno::HostUnreachable)];

fn capture(s: &mut Section<'_, '_>) -> Capture {
    const MODES: &[(&str, CaptureMode)] =
        &[("auto", CaptureMode::Auto), ("required", CaptureMode::Required), ("off", CaptureMode::Off)];
    // A beat comes every 100 ms: a shorter timeout would take a busy machine for a dead weir.
    const HEARTBEAT: RangeInclusive<Duration> = ms(200)..=ms(10_000);

    let d = Capture::default();
    Capture {
        mode: s.read("mode", d.mode, choice(MODES)),
        cgroup: s.read("cgroup", d.cgroup, auto_or(|| None, optional(path()))),
        targets: s.list("targets", d.targets, selector),
        engine_sockets: s.list("engine_sockets", d.engine_sockets, path()),
        fail: s.read("fail", d.fail, choice(FAIL_MODES)),
        errno: s.read("errno", d.errno, choice(ERRNOS)),
        heartbeat_timeout: s.read("heartbeat_timeout", d.heartbeat_timeout, duration(HEARTBEAT)),
        detect_timeout: s.read("detect_timeout", d.detect_timeout, duration(ms(1)..=ms(10_000))),
        server_first_ports: s.list("server_first_ports", d.server_first_ports, number(1..=u16::MAX)),
        max_connections: s.read("max_connections", d.max_connections, number(64..=4_194_304)),
        max_cgroups: s.read("max_cgroups", d.max_cgroups, number(1..=65_536)),
        deny_quic: s.read("deny_quic", d.deny_quic, switch()),
        dns: s.section("dns", dns::read),
        rules: rules::read(s),
        kernel_log: s.read("kernel_log", d.kernel_log, switch()),
    }
}

fn security(s: &mut Section<'_, '_>) -> Security {
    let d = Destinations::default();
    let mut shared_limits = SharedLimits::default();
    let limits = |s: &mut Section<'_, '_>| {
        let limits = rate_limiting(s);
        shared_limits = s.section("redis", redis::shared_limits);
        limits
    };
    Security {
        acl: s.section("acl", |s| Acl {
            rules: access::read(s),
            destinations: s.section("destinations", |s| Destinations {
                loopback: s.read("loopback", d.loopback, choice(ACCESS)),
                link_local: s.read("link_local", d.link_local, choice(ACCESS)),
                metadata: s.read("metadata", d.metadata, choice(ACCESS)),
                private: s.read("private", d.private, choice(ACCESS)),
            }),
        }),
        auth: s.section("auth", auth::read),
        filtering: s.section("filtering", filtering::read),
        inspection: s.section("inspection", inspection::read),
        rate_limiting: s.section("rate_limiting", limits),
        shared_limits,
        body_rules: body_rules::read(s),
        header_rules: header_rules::read(s),
        headers: s.section("headers", headers::security_headers),
    }
}

fn rate_limiting(s: &mut Section<'_, '_>) -> RateLimiting {
    let d = RateLimiting::default();
    RateLimiting {
        enabled: s.read("enabled", d.enabled, switch()),
        requests_per_second: s.read("requests_per_second", d.requests_per_second, number(1..=1_000_000)),
        burst: s.read("burst", d.burst, number(1..=1_000_000)),
        upload: s.read("upload", d.upload, size(0..=1024 * GIB)),
        download: s.read("download", d.download, size(0..=1024 * GIB)),
    }
}

fn upstream(s: &mut Section<'_, '_>) -> Upstream {
    let d = Upstream::default();
    Upstream {
        connect_timeout: s.read("connect_timeout", d.connect_timeout, duration(ms(10)..=ms(600_000))),
        dns_cache_ttl: s.read("dns_cache_ttl", d.dns_cache_ttl, duration(ms(0)..=hours(24))),
        dns_cache_size: s.read("dns_cache_size", d.dns_cache_size, number(0..=1_000_000)),
        idle: s.read("idle", d.idle, number(0..=1_000_000)),
        idle_per_origin: s.read("idle_per_origin", d.idle_per_origin, number(0..=65_536)),
        idle_timeout: s.read("idle_timeout", d.idle_timeout, duration(ms(10)..=hours(24))),
        retries: s.read("retries", d.retries, number(0..=10)),
        backoff: s.read("backoff", d.backoff, duration(ms(1)..=ms(10_000))),
        max_per_origin: s.read("max_per_origin", d.max_per_origin, number(0..=1_000_000)),
        queue: s.read("queue", d.queue, number(0..=1_000_000)),
        queue_timeout: s.read("queue_timeout", d.queue_timeout, duration(ms(10)..=ms(600_000))),
        tls: s.section("tls", tls::upstream_tls),
        http2: s.section("http2", upstream_http2),
        parent: s.read(
            "parent",
            d.parent,
            shaped(Shape::Secret(Hide::UserInfo, Shape::Text.into()), parent::parent),
        ),
        no_proxy: s.list("no_proxy", d.no_proxy, parent::exempt),
        rewrites: rewrites::read(s),
    }
}

fn upstream_http2(s: &mut Section<'_, '_>) -> UpstreamHttp2 {
    let d = UpstreamHttp2::default();
    UpstreamHttp2 {
        enabled: s.read("enabled", d.enabled, switch()),
        prior_knowledge: s.list("prior_knowledge", d.prior_knowledge, patterns::host_pattern),
        max_streams: s.read("max_streams", d.max_streams, number(1..=10_000)),
    }
}

fn admin(s: &mut Section<'_, '_>) -> Admin {
    let d = Admin::default();
    Admin {
        host: s.read("host", d.host, address()),
        port: s.read("port", d.port, number(0..=u16::MAX)),
        socket: s.read("socket", d.socket, auto_or(|| None, optional(path()))),
        token_file: s.read("token_file", d.token_file, none_or(path())),
        reload_on_change: s.read("reload_on_change", d.reload_on_change, switch()),
        state_dir: s.read("state_dir", d.state_dir, auto_or(default_state_dir, path())),
    }
}

fn metrics(s: &mut Section<'_, '_>) -> Metrics {
    let d = Metrics::default();
    Metrics {
        enabled: s.read("enabled", d.enabled, switch()),
        port: s.read("port", d.port, number(0..=u16::MAX)),
    }
}

fn flows(s: &mut Section<'_, '_>) -> Flows {
    let d = Flows::default();
    Flows { keep: s.read("keep", d.keep, number(0..=1_000_000)) }
}

fn logging(s: &mut Section<'_, '_>) -> Logging {
    const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

    let d = Logging::default();
    Logging {
        level: s.read("level", d.level, log_filter),
        format: s.read("format", d.format, choice(FORMATS)),
        access: s.read("access", d.access, switch()),
    }
}

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}
