//! What the kernel half would do with a process's connect(): the order of `decide` in proxy-ebpf, asked of
//! /proc and the same maps. The kernel decides; this only tells.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use proxy_common::{ACTION_BYPASS, ACTION_DENY, FAIL_OPEN, Policy};

use super::cgroup::{Cgroup, Mount};
use super::{Redirect, RedirectError};
use crate::netns::NetnsId;

/// A verdict and the rule behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// `direct`, `redirect` or `deny`.
    pub verdict: &'static str,
    pub reason: String,
}

impl Redirect {
    /// Says what would happen if the process connected to `destination` by TCP now.
    ///
    /// # Errors
    /// There is no such process, or /proc can't be read.
    pub fn explain(&self, pid: u32, destination: SocketAddr) -> io::Result<Explained> {
        let direct = |reason: &str| Ok(Explained { verdict: "direct", reason: reason.to_owned() });
        let path = cgroup_of(pid)?;
        if pid == std::process::id() {
            return direct("it is weir itself");
        }
        if is_exempt(destination.ip()) {
            return direct("loopback, unspecified, link-local and multicast addresses are never captured");
        }
        let Some((selected, policy)) = self.nearest_selected(&path) else {
            let cgroup = path.display();
            return direct(&format!("neither its cgroup {cgroup} nor one above it is selected"));
        };
        let selected = selected.display();
        match policy.action {
            ACTION_BYPASS => direct(&format!("the cgroup {selected} is selected for bypass")),
            ACTION_DENY => Ok(Explained {
                verdict: "deny",
                reason: format!("the cgroup {selected} is selected for deny"),
            }),
            _ if !self.serves_netns_of(pid)? => {
                let reason = "it lives in another network namespace, in which weir doesn't listen";
                Ok(match policy.fail {
                    FAIL_OPEN => Explained { verdict: "direct", reason: reason.to_owned() },
                    _ => Explained { verdict: "deny", reason: format!("{reason} (capture.fail: closed)") },
                })
            }
            _ => Ok(Explained { verdict: "redirect", reason: format!("the cgroup {selected} is selected") }),
        }
    }

    fn serves_netns_of(&self, pid: u32) -> io::Result<bool> {
        let id = NetnsId::of_process(pid)?;
        Ok(id == NetnsId::own()? || self.namespaces.serves(id))
    }

    /// The nearest selected cgroup at or above `path`, and what was selected for it.
    fn nearest_selected(&self, path: &Path) -> Option<(PathBuf, Policy)> {
        path.ancestors().take_while(|ancestor| ancestor.starts_with(self.cgroup())).find_map(|ancestor| {
            let id = Cgroup::open(ancestor).ok()?.id;
            Some((ancestor.to_owned(), self.policy_of(id)?))
        })
    }
}

/// The cgroup v2 directory of a process (cgroups(7): the line that begins with `0::`).
fn cgroup_of(pid: u32) -> io::Result<PathBuf> {
    let mount = Mount::find().map_err(|error: RedirectError| io::Error::other(error.to_string()))?;
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let line = cgroups.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = line.ok_or_else(|| io::Error::other("it is in no cgroup of version 2"))?;
    Ok(mount.point.join(path))
}

/// As `is_exempt` in proxy-ebpf's decide.rs.
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
