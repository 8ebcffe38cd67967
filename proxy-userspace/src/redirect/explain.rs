//! What the kernel half would do with a process's connect(): the order of `decide` in proxy-ebpf, asked of
//! /proc and the same maps. The kernel decides; this only tells.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use proxy_common::{ACTION_BYPASS, ACTION_DENY, DNS_PORT, FAIL_OPEN, Identity, Policy};

use super::cgroup::{Cgroup, Mount, cgroup_of};
use super::load::QUIC_PORT;
use super::rules::Question;
use super::rules::host::executed_by;
use super::{Redirect, RedirectError};
use crate::config::Protocol;
use crate::netns::NetnsId;

/// A verdict and the rule behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// `direct`, `redirect` or `deny`.
    pub verdict: &'static str,
    pub reason: String,
}

impl Explained {
    fn exempt() -> Self {
        let reason = "loopback, unspecified, link-local and multicast addresses are never captured, and no rule that \
                      holds for this one denies it";
        Self { verdict: "direct", reason: reason.to_owned() }
    }

    fn first_to_deny(rule: &str) -> Self {
        Self { verdict: "deny", reason: format!("rule `{rule}` is the first that matches") }
    }
}

impl Redirect {
    /// Says what would happen if the process connected to `destination` now, or sent a datagram there.
    ///
    /// # Errors
    /// There is no such process, or /proc can't be read.
    pub fn explain(&self, pid: u32, protocol: Protocol, destination: SocketAddr) -> io::Result<Explained> {
        let direct = |reason: &str| Ok(Explained { verdict: "direct", reason: reason.to_owned() });
        let mount = Mount::find().map_err(|error: RedirectError| io::Error::other(error.to_string()))?;
        let path = cgroup_of(pid, &mount)?;
        if pid == std::process::id() || self.siblings().contains(&pid) {
            return direct("it is weir itself");
        }
        if !path.starts_with(self.cgroup()) {
            return direct(&format!(
                "its cgroup {} is outside of {}, where weir is attached (capture.cgroup)",
                path.display(),
                self.cgroup().display()
            ));
        }
        let dns = self.captures_dns && destination.port() == DNS_PORT;
        let exempt = is_exempt(destination.ip()) && !(dns && is_local_server(destination.ip()));
        let explicit = exempt && self.is_explicit_listener(pid, protocol, destination)?;
        let uid = uid_of(pid)?;
        let executable = executed_by(pid);
        let selected = self.selected(&path, uid, executable);
        let question = Question {
            destination,
            protocol,
            uid,
            cgroups: self.visible_cgroups(&path),
            selected: selected.is_some(),
            executable,
            by_name: self.names.rules_of(self.netns_of(pid)?, destination.ip()),
            by_loopback: exempt && !explicit,
        };
        let may_match = !exempt || explicit || is_loopback(destination.ip());
        let matched = may_match.then(|| self.table().first_match(&question)).flatten();
        if exempt {
            let denying = matched.filter(|(_, policy)| policy.action == ACTION_DENY);
            return Ok(denying.map_or_else(Explained::exempt, |(name, _)| Explained::first_to_deny(&name)));
        }
        let (policy, because) = match (matched, selected) {
            (Some((name, policy)), _) => (policy, format!("rule `{name}` is the first that matches")),
            (None, Some((what, policy))) => (policy, format!("no rule matches, and {what} is selected")),
            (None, None) => {
                let cgroup = path.display();
                return direct(&format!(
                    "no rule matches, and neither its cgroup {cgroup} nor one above it is selected"
                ));
            }
        };
        self.carried_out(pid, (protocol, destination.port()), policy, because)
    }

    /// What comes of a policy.
    fn carried_out(
        &self,
        pid: u32,
        (protocol, port): (Protocol, u16),
        policy: Policy,
        because: String,
    ) -> io::Result<Explained> {
        let direct = |reason: &str| Ok(Explained { verdict: "direct", reason: reason.to_owned() });
        let dns = self.captures_dns && port == DNS_PORT;
        match policy.action {
            ACTION_BYPASS => direct(&format!("{because}: bypass")),
            ACTION_DENY => Ok(Explained { verdict: "deny", reason: because }),
            _ if protocol == Protocol::Udp && !dns && !(self.deny_quic && port == QUIC_PORT) => {
                direct(&format!("{because}, and UDP is not relayed"))
            }
            _ if !self.serves_netns_of(pid)? => {
                let reason = "it lives in another network namespace, in which weir doesn't listen";
                Ok(match policy.fail {
                    FAIL_OPEN => Explained { verdict: "direct", reason: reason.to_owned() },
                    _ => Explained { verdict: "deny", reason: format!("{reason} (capture.fail: closed)") },
                })
            }
            _ if protocol == Protocol::Udp && !dns => {
                Ok(Explained { verdict: "deny", reason: format!("{because}, and this is QUIC") })
            }
            _ => Ok(Explained { verdict: "redirect", reason: because }),
        }
    }

    /// As in proxy-ebpf's local.rs.
    fn is_explicit_listener(
        &self,
        pid: u32,
        protocol: Protocol,
        destination: SocketAddr,
    ) -> io::Result<bool> {
        let (ip, port) = (destination.ip().to_canonical(), destination.port());
        let is_it = self.explicit.is_some_and(|own| {
            let its_address = own.ip().is_unspecified() || ip.is_unspecified() || ip == own.ip();
            port == own.port() && its_address && protocol == Protocol::Tcp
        });
        Ok(is_it && NetnsId::of_process(pid)? == NetnsId::own()?)
    }

    /// Ids of a cgroup and of those above it, up to the attach cgroup.
    fn visible_cgroups(&self, path: &Path) -> Vec<u64> {
        let visible = path.ancestors().take_while(|ancestor| ancestor.starts_with(self.cgroup()));
        visible.filter_map(|ancestor| Some(Cgroup::open(ancestor).ok()?.id.0)).collect()
    }

    fn serves_netns_of(&self, pid: u32) -> io::Result<bool> {
        let id = NetnsId::of_process(pid)?;
        Ok(id == NetnsId::own()? || self.namespaces.serves(id))
    }

    /// Its cookie, where names may be known of it; None: it is weir's own, or none that weir listens in.
    fn netns_of(&self, pid: u32) -> io::Result<Option<u64>> {
        Ok(self.namespaces.cookie(NetnsId::of_process(pid)?))
    }

    /// What of it is selected, and what was said of that.
    fn selected(&self, path: &Path, uid: u32, executable: Option<Identity>) -> Option<(String, Policy)> {
        if let Some((cgroup, policy)) = self.nearest_selected(path) {
            return Some((format!("the cgroup {}", cgroup.display()), policy));
        }
        // Outside of the attach cgroup no program of weir's runs.
        let (what, policy) =
            self.selected_program(uid, executable).filter(|_| path.starts_with(self.cgroup()))?;
        Some((what.to_owned(), policy))
    }

    /// The nearest selected cgroup at or above `path`, and what was selected for it.
    fn nearest_selected(&self, path: &Path) -> Option<(PathBuf, Policy)> {
        path.ancestors().take_while(|ancestor| ancestor.starts_with(self.cgroup())).find_map(|ancestor| {
            let id = Cgroup::open(ancestor).ok()?.id;
            Some((ancestor.to_owned(), self.policy_of(id)?))
        })
    }
}

/// The real user id (proc_pid_status(5)), as weir's own user namespace numbers it.
fn uid_of(pid: u32) -> io::Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uid = line.and_then(|uids| uids.split_whitespace().next()?.parse().ok());
    uid.ok_or_else(|| io::Error::other("its user is not told"))
}

/// Or the unspecified address, which is the same.
fn is_loopback(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || address.is_unspecified()
}

/// As `is_exempt` in proxy-ebpf's local.rs.
fn is_exempt(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let link_local = v4.is_link_local() && v4.octets() != [169, 254, 169, 254];
            v4.is_loopback() || v4.is_unspecified() || link_local || v4.octets()[0] >= 224
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast()
        }
    }
}

/// As `is_local_server` in proxy-ebpf's dns.rs.
fn is_local_server(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback(),
    }
}
