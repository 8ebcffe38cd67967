//! `security`: what may pass, in one place.

use super::{AccessRule, Auth, BodyRule, Filtering, HeaderRule, Inspection, SecurityHeaders, SharedLimits};

/// `security`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Security {
    pub acl: Acl,
    pub auth: Auth,
    pub filtering: Filtering,
    pub inspection: Inspection,
    pub rate_limiting: RateLimiting,
    pub shared_limits: SharedLimits,
    /// Default none.
    pub body_rules: Vec<BodyRule>,
    /// Default none.
    pub header_rules: Vec<HeaderRule>,
    pub headers: SecurityHeaders,
}

/// `security.rate_limiting`: of each client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimiting {
    /// Default off.
    pub enabled: bool,
    /// Requests and tunnels. Default 100.
    pub requests_per_second: u32,
    /// Those that may come at one time. Default 200.
    pub burst: u32,
    /// Bytes a second that it may send; 0: any. Default 0.
    pub upload: u64,
    /// Bytes a second that it may get; 0: any. Default 0.
    pub download: u64,
}

/// `security.acl`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Acl {
    /// Who may ask for what; the first that matches decides. Default none.
    pub rules: Vec<AccessRule>,
    pub destinations: Destinations,
}

/// `security.acl.destinations`: the verdict for each class of address. weir's own ports are always denied.
#[derive(Debug, Clone, PartialEq)]
pub struct Destinations {
    /// 127.0.0.0/8, ::1, and the unspecified addresses. Default deny.
    pub loopback: Access,
    /// 169.254.0.0/16, fe80::/10. Default deny.
    pub link_local: Access,
    /// Cloud metadata services: 169.254.169.254, fd00:ec2::254 and their like. Default deny.
    pub metadata: Access,
    /// RFC 1918, RFC 6598 and fc00::/7. Default allow.
    pub private: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Allow,
    Deny,
}
