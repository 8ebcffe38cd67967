//! The checked configuration: every value below has been validated; nothing downstream checks it again.
//!
//! [`load`] makes one out of files, environment and flags: text → located tree (`yaml`, `tree`, `sources`)
//! → checked keys (`keys`, through `section` and `kinds`) → checked combinations (`clashes`). This file is
//! what the rest of weir sees.

mod access;
mod admin;
mod auth;
mod backend_health;
mod backends;
mod body_rules;
mod cache;
mod clashes;
mod cli;
mod compression;
mod defaults;
mod dns;
mod errors;
pub mod filter_line;
mod filtering;
mod forwarded;
mod header_rules;
mod headers;
mod inspection;
mod interception;
mod keys;
mod kinds;
mod logging;
mod matching;
mod parent;
mod patterns;
mod prefix;
mod redis;
mod reference;
mod relay;
mod reload;
mod rewrites;
mod routing;
mod rules;
mod schema;
mod section;
mod security;
mod selector;
mod services;
mod shape;
mod show;
mod sources;
mod system_proxy;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod tree;
mod yaml;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use access::{AccessRule, TimeWindow};
pub use admin::{Admin, Metrics};
pub use auth::{Auth, AuthMode, CONTEXT_PREFIX, User};
pub use backend_health::{BackendHealth, Breaker, Check, CheckKind, Outliers, Retries};
pub use backends::{Algorithm, BackendGroup, Bounds, HashBy, MAX_WEIGHT, Member};
pub use body_rules::BodyRule;
pub use cache::{Cache, Disk};
pub use clashes::warnings;
pub use cli::{AllowedCommand, ArgumentPattern, Cli};
pub use compression::{Coding, Compression, Effort, MediaPattern};
pub use dns::{Dns, Domain, NotADomain, Rebinding};
pub use errors::{ConfigError, ConfigErrors, Origin};
pub use filtering::{Filtering, ListMode, Listed};
pub use forwarded::{ForwardedFields, Forwarding};
pub use header_rules::{Direction, HeaderRule};
pub use headers::SecurityHeaders;
pub use inspection::{Clamd, ClamdAddress, Inspection};
pub use interception::{Intercept, InterceptAction, InterceptRule, OnFailure, Tls, Unreadable};
pub use keys::{keys, security_of};
pub use kinds::{duration_of, size_of};
pub use logging::{Flows, LogFormat, Logging};
pub use matching::{HeaderMatch, Match, PathRegex};
pub use parent::{Credentials, Exempt, Parent, ParentKind};
pub use patterns::{HostPattern, PathPattern};
pub use prefix::Prefix;
pub use redis::{Redis, RedisPlace, RedisUrl, SharedLimits, ValueCoding};
pub use relay::Relay;
pub use reload::{needs_restart, reloaded};
pub use rewrites::Rewrite;
pub use routing::{Backend, Forward, HostField, Routing, Rule};
pub use rules::{Action, CaptureRule, MAX_RULES, Protocol};
pub use schema::schema;
pub use security::{Access, Acl, Destinations, RateLimiting, Security};
pub use selector::{BadSelector, COMPOSE_LABEL, Selector};
pub use services::{App, AppPlace, Discover, Services, service_name, service_target};
pub use show::{Effective, Loaded, effective, load_whole, load_whole_again};
pub use sources::{DEFAULT_FILE, Sources, load, load_again};
pub use system_proxy::{Configure, SystemBackend, SystemProxy};
pub use tls::{Identity, ServerTls, TlsDestination, TlsVersion, UpstreamTls};

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    pub server: Server,
    pub capture: Capture,
    pub security: Security,
    pub cache: Cache,
    pub compression: Compression,
    pub routing: Routing,
    pub forwarded: Forwarding,
    pub services: Services,
    pub upstream: Upstream,
    pub tls: Tls,
    pub relay: Relay,
    pub system_proxy: SystemProxy,
    pub admin: Admin,
    pub metrics: Metrics,
    pub cli: Cli,
    pub flows: Flows,
    pub logging: Logging,
}

/// `server`: the explicit proxy's listener and what bounds each downstream connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Address to listen on. Default 127.0.0.1.
    pub host: IpAddr,
    /// First port to try; 0 takes any free one. Default 22180.
    pub port: u16,
    /// Ports to try in turn when `port` is taken. Default 22180-22189.
    pub port_range: RangeInclusive<u16>,
    /// Whom weir becomes once it is started by root; none: nobody else. Default none.
    pub user: Option<String>,
    /// Whether weir confines itself once it is that user. Default auto.
    pub sandbox: Sandbox,
    /// Data-plane threads; default one per available CPU.
    pub workers: usize,
    pub tls: ServerTls,
    /// Serve /proxy.pac. Default on.
    pub pac: bool,
    /// Speak SOCKS5 on the same port. Default on.
    pub socks5: bool,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub http2: Http2,
}

/// `server.timeouts`.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeouts {
    /// From the first byte of a request head to its end. Default 10s.
    pub request_head: Duration,
    /// No byte of a body arrived from either peer. Default 30s.
    pub read: Duration,
    /// A peer took no byte. Default 30s.
    pub write: Duration,
    /// A keep-alive connection without a request. Default 60s.
    pub idle: Duration,
    /// A tunnel in which nothing moves. Default 1h.
    pub tunnel_idle: Duration,
    /// How long connections may go on after SIGTERM before they are reset. Default 10s.
    pub drain: Duration,
    /// How long connections may go on in the old process after an upgrade; then they have `drain`. Default 1d.
    pub upgrade: Duration,
}

/// `server.limits`.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Longest request target, in bytes; longer → 414. Default 8192.
    pub url: usize,
    /// Largest request head, in bytes; larger → 431. Default 16KiB.
    pub head: usize,
    /// Most header fields in one head; more → 431. Default 100.
    pub header_count: usize,
    /// Largest request body, in bytes; larger → 413. Tunnels have none. Default 10MiB; 0 means no limit.
    pub body: u64,
    /// Bytes a second that a peer must move on average where it is waited for. Default 100; 0 means any.
    pub min_rate: u64,
    /// Downstream connections at one time, all workers together; more are closed at once. Default 16384.
    pub connections: usize,
    /// Those of one client to the explicit port. Default auto.
    pub connections_per_client: PerClient,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PerClient {
    /// None while weir listens on loopback, where all clients have one address; else a sixteenth of all.
    Auto,
    /// 0 is no limit.
    Most(usize),
}

impl Server {
    /// The most connections of one client, if there is a limit.
    #[must_use]
    pub fn connections_per_client(&self) -> Option<usize> {
        match self.limits.connections_per_client {
            PerClient::Auto if self.host.is_loopback() => None,
            PerClient::Auto => Some((self.limits.connections / 16).max(1)),
            PerClient::Most(0) => None,
            PerClient::Most(most) => Some(most),
        }
    }
}

/// `server.http2`: what a client may have under way on one HTTP/2 connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Http2 {
    /// Streams that a client may have open at one time. Default 100.
    pub max_streams: u32,
    /// Largest list of fields, as RFC 9113 §6.5.2 counts it. Default 64KiB.
    pub header_list: u32,
    /// Bytes that a client may send ahead on one stream. Default 256KiB.
    pub stream_window: u32,
    /// The same on all streams of a connection together. Default 1MiB.
    pub connection_window: u32,
    /// Bytes of responses that wait on one stream for the client to take them. Default 64KiB.
    pub send_buffer: usize,
}

/// `capture`: transparent interception by the kernel half.
#[derive(Debug, Clone, PartialEq)]
pub struct Capture {
    /// auto: capture where the kernel half is present and can be loaded. Default auto.
    pub mode: CaptureMode,
    /// cgroup v2 directory the programs are attached to. Default: the root of the cgroup2 mount.
    pub cgroup: Option<PathBuf>,
    /// What is captured, beside `weir exec` and what is added while weir runs. Default: nothing.
    pub targets: Vec<Selector>,
    /// The API sockets of container engines; looked at only if a target needs one. Default: docker's and podman's.
    pub engine_sockets: Vec<PathBuf>,
    /// What happens to a captured connect() while weir is dead, stopped or stuck. Default open.
    pub fail: FailMode,
    /// The errno of a refused connect(). Default refused.
    pub errno: DenyErrno,
    /// Age at which the data plane's heartbeat counts as lost. Default 500ms.
    pub heartbeat_timeout: Duration,
    /// How long the client may stay silent before its connection is relayed as opaque bytes. Default 50ms.
    pub detect_timeout: Duration,
    /// Original ports whose servers speak first: relayed at once, without waiting for the client.
    pub server_first_ports: Vec<u16>,
    /// Captured connections the kernel maps can hold at one time. Default 65536.
    pub max_connections: u32,
    /// cgroups that can be selected at one time. Default 4096.
    pub max_cgroups: u32,
    /// Refuse UDP/443 where TCP/443 would be captured. Default on.
    pub deny_quic: bool,
    /// DNS of captured processes.
    pub dns: Dns,
    /// What happens to a connect(), in this order, the first that matches; then what was selected. Default none.
    pub rules: Vec<CaptureRule>,
    /// Log from the eBPF programs (aya-log); costs per connect. Default off.
    pub kernel_log: bool,
}

/// Whether weir gives up what it has no use for, beside its privileges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// As much as this kernel can, but for a weir that runs programs (`cli.enabled`): they would be confined, too.
    Auto,
    /// All of it, or weir does not start.
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureMode {
    /// Capture if possible; otherwise say why and serve explicitly.
    Auto,
    /// Capture or refuse to start.
    Required,
    /// Never load the kernel half.
    Off,
}

impl Limits {
    /// The most that `header_count` can be set to.
    pub const MAX_HEADER_COUNT: usize = 256;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailMode {
    /// The connection goes direct.
    Open,
    /// connect() fails with the configured errno.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenyErrno {
    /// ECONNREFUSED.
    Refused,
    /// EHOSTUNREACH.
    HostUnreachable,
}

/// `upstream`.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// One TCP connect, all addresses of a name together. Default 10s.
    pub connect_timeout: Duration,
    /// How long a resolved name is used again. Default 30s.
    pub dns_cache_ttl: Duration,
    /// Names kept in that cache. Default 4096.
    pub dns_cache_size: usize,
    /// Idle HTTP connections kept, all workers and origins together. Default 8192.
    pub idle: usize,
    /// The same per origin and worker. Default 8192.
    pub idle_per_origin: usize,
    /// How long such a connection is kept. Default 60s.
    pub idle_timeout: Duration,
    /// How often a connection that is refused is tried again. Default 2.
    pub retries: u32,
    /// The wait before the first of these; each further one is twice as long. Default 50ms.
    pub backoff: Duration,
    /// Requests under way at one origin at one time, all workers together. Default 0, no limit.
    pub max_per_origin: usize,
    /// Requests that may wait for that; more → 503. Default 128.
    pub queue: usize,
    /// How long they may wait; longer → 503. Default 5s.
    pub queue_timeout: Duration,
    pub tls: UpstreamTls,
    pub http2: UpstreamHttp2,
    /// A proxy behind weir, for what the explicit proxy is asked for. Default none.
    pub parent: Option<Arc<Parent>>,
    /// What does not go through it.
    pub no_proxy: Vec<Exempt>,
    /// Servers that are really elsewhere. Default none.
    pub rewrites: Vec<Rewrite>,
}

/// `upstream.http2`.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamHttp2 {
    /// Offer HTTP/2 in TLS handshakes. Default on.
    pub enabled: bool,
    /// Servers of http:// URLs that are spoken to in HTTP/2 at once. Default none.
    pub prior_knowledge: Vec<HostPattern>,
    /// Requests on one connection before another is opened. Default 100.
    pub max_streams: usize,
}
