//! The default of every key: what an empty configuration file means.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::{
    Access, Admin, Capture, CaptureMode, DenyErrno, Destinations, Dns, FailMode, Flows, Http2, Limits,
    LogFormat, Logging, Metrics, PerClient, RateLimiting, Sandbox, Server, ServerTls, Timeouts, Upstream,
    UpstreamHttp2, UpstreamTls,
};

impl Default for Server {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 22180,
            port_range: 22180..=22189,
            user: None,
            sandbox: Sandbox::Auto,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            tls: ServerTls::default(),
            pac: true,
            socks5: true,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            http2: Http2::default(),
        }
    }
}

impl Default for RateLimiting {
    fn default() -> Self {
        Self { enabled: false, requests_per_second: 100, burst: 200, upload: 0, download: 0 }
    }
}

impl Default for UpstreamHttp2 {
    fn default() -> Self {
        Self { enabled: true, prior_knowledge: Vec::new(), max_streams: 100 }
    }
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            max_streams: 100,
            header_list: 64 << 10,
            stream_window: 256 << 10,
            connection_window: 1 << 20,
            send_buffer: 64 << 10,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request_head: Duration::from_secs(10),
            read: Duration::from_secs(30),
            write: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            tunnel_idle: Duration::from_secs(3600),
            drain: Duration::from_secs(10),
            upgrade: Duration::from_secs(24 * 3600),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            url: 8192,
            head: 16 << 10,
            header_count: 100,
            body: 10 << 20,
            min_rate: 100,
            connections: 16384,
            connections_per_client: PerClient::Auto,
        }
    }
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            mode: CaptureMode::Auto,
            cgroup: None,
            targets: Vec::new(),
            engine_sockets: vec!["/run/docker.sock".into(), "/run/podman/podman.sock".into()],
            fail: FailMode::Open,
            errno: DenyErrno::Refused,
            heartbeat_timeout: Duration::from_millis(500),
            detect_timeout: Duration::from_millis(50),
            // ftp, ssh, telnet, smtp, pop3, nntp, imap, submission, mysql, vnc
            server_first_ports: vec![21, 22, 23, 25, 110, 119, 143, 587, 3306, 5900],
            max_connections: 65536,
            max_cgroups: 4096,
            deny_quic: true,
            dns: Dns::default(),
            rules: Vec::new(),
            kernel_log: false,
        }
    }
}

impl Default for Destinations {
    fn default() -> Self {
        Self {
            loopback: Access::Deny,
            link_local: Access::Deny,
            metadata: Access::Deny,
            private: Access::Allow,
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            dns_cache_ttl: Duration::from_secs(30),
            dns_cache_size: 4096,
            idle: 8192,
            idle_per_origin: 8192,
            idle_timeout: Duration::from_secs(60),
            retries: 2,
            backoff: Duration::from_millis(50),
            max_per_origin: 0,
            queue: 128,
            queue_timeout: Duration::from_secs(5),
            tls: UpstreamTls::default(),
            http2: UpstreamHttp2::default(),
            parent: None,
            no_proxy: Vec::new(),
            rewrites: Vec::new(),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 22140,
            socket: None,
            token_file: None,
            reload_on_change: true,
            state_dir: default_state_dir(),
        }
    }
}

/// Where a weir of this user keeps its state.
pub(super) fn default_state_dir() -> PathBuf {
    let user = nix::unistd::geteuid();
    if user.is_root() {
        return "/run/weir".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder).join("weir"),
        None => std::env::temp_dir().join(format!("weir-{user}")),
    }
}

/// Where a weir of this user keeps what has to outlive the machine's start.
pub(super) fn default_lasting_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return "/var/lib/weir".into();
    }
    let folder = |name: &str| std::env::var_os(name).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let state = folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")));
    state.map_or_else(default_state_dir, |state| state.join("weir"))
}

impl Default for Metrics {
    fn default() -> Self {
        Self { enabled: false, port: 9090 }
    }
}

/// Where a weir of this user keeps its certificate authority: it outlives the machine's start, as those who trust it do.
pub(super) fn default_authority_folder() -> PathBuf {
    default_lasting_dir().join("ca")
}

impl Default for Flows {
    fn default() -> Self {
        Self { keep: 1024 }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text, access: true }
    }
}
