//! The kernel half seen from userspace: load, attach, tell what is captured, look up original destinations.
//!
//! A `Redirect` is the attachment: it exists exactly while the programs are attached, and nothing that outlives the
//! process (no pinned object, no file) is made, but for the holder of `fail: closed` (see `hold`). What is captured is a set of cgroups; the listeners, the data plane
//! that serves them and the heartbeat belong to others. Other network namespaces are entered elsewhere; here the
//! kernel half is told of the listeners in them.
#![deny(unsafe_code)]

mod attached;
mod btf;
mod cgroup;
mod closed;
mod destroy;
mod dns;
mod error;
mod events;
mod existing;
mod explain;
pub mod hold;
mod hooks;
mod load;
mod lock;
mod log;
mod names;
mod namespaces;
mod original;
mod others;
mod programs;
mod rules;
mod state;
mod succession;
pub mod support;
mod sys;

use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, HashMap, IterableMap as _, MapData, PerCpuArray};
use aya::{Ebpf, Pod};
use nix::time::{ClockId, clock_gettime};
use proxy_common::{ClaimKey, Counter, Policy, Siblings};

use crate::config::{self, DenyErrno, FailMode};

pub use crate::config::Action;

pub use attached::Repaired;
pub use cgroup::{CgroupId, ExecCgroup, Mount, cgroup_of, processes};
pub use dns::{DnsServers, IdleServer, SERVERS_V6, Slot};
pub use error::RedirectError;
pub use events::{Decision, Decisions};
pub use existing::{Ended, ExistingSocket, udp_peers};
pub use explain::Explained;
pub use names::{KnownNames, Names};
pub use namespaces::Unserved;
pub use original::{Captured, OriginalDestinations};
pub use others::OtherProgram;
pub use programs::Program;
pub use proxy_common::Counter as KernelCounter;
pub use rules::{Prepared as Rules, RuleState, RulesError};
pub use state::{Counters, HolderState, HookState, MapState, State};

use cgroup::Cgroup;
use closed::ClosedRecords;
use hooks::HOOKS;
use load::{map_fd, take_map};
use namespaces::Namespaces;
use programs::Programs;

/// Where the transparent front listens, in the network namespace of the thread that calls `Redirect::start`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Listeners {
    /// The first on 127.0.0.1; None: IPv4 connections are not captured.
    pub v4: Option<SocketAddrV4>,
    /// The first on ::1; None: IPv6 connections are not captured.
    pub v6: Option<SocketAddrV6>,
    /// How many ports in a row follow each of these: a power of two less one, and the same in all network namespaces.
    pub further: u16,
    /// The port for DNS over UDP at every address for which [`Slot::of_address`] gives one; None: DNS is not captured.
    pub dns_v4: Option<u16>,
    /// The first of [`SERVERS_V6`] ports on ::1 for the same.
    pub dns_v6: Option<u16>,
    /// Where the explicit proxy listens, which no program may use to get past the rules; None: nowhere.
    pub explicit: Option<SocketAddr>,
}

/// The attached kernel half. Dropping it detaches; so does the death of the process, unless there is a holder.
pub struct Redirect {
    ebpf: Ebpf,
    /// In the order of the hooks.
    links: Vec<OwnedFd>,
    holder: Option<hold::Holder>,
    cgroup: Cgroup,
    fail: FailMode,
    errno: DenyErrno,
    deny_quic: bool,
    captures_dns: bool,
    explicit: Option<SocketAddr>,
    originals: HashMap<MapData, u64, proxy_common::Captured>,
    claims: HashMap<MapData, ClaimKey, proxy_common::Captured>,
    closed: ClosedRecords,
    cgroups: Mutex<HashMap<MapData, u64, Policy>>,
    programs: Programs,
    tells_executables: bool,
    rules: Mutex<rules::Table>,
    namespaces: Namespaces,
    names: Names,
    dns_servers: DnsServers,
    counters: PerCpuArray<MapData, u64>,
    followed: Array<MapData, u32>,
    siblings: Mutex<Array<MapData, Siblings>>,
    decisions: Option<Decisions>,
    heartbeat: Heartbeat,
    original_destinations: OriginalDestinations,
    _log: Option<log::KernelLog>,
    /// Where the holder listens.
    state_dir: Option<PathBuf>,
    /// Last: the next weir may only start when this one is detached.
    lock: lock::InstanceLock,
}

impl Redirect {
    /// Loads and attaches the kernel half; nothing is captured until a cgroup is selected. Gives the first heartbeat.
    ///
    /// # Errors
    /// Each says what to do about it; nothing stays attached.
    pub fn start(capture: &config::Capture, listeners: &Listeners) -> Result<Self, RedirectError> {
        let (mount, mut redirect) = Self::load(capture, listeners, lock::InstanceLock::acquire)?;
        redirect.install_rules(Rules::new(capture)?)?;
        load::attach(&redirect.ebpf, &mount, &redirect.cgroup, &mut redirect.links)?;
        Ok(redirect)
    }

    /// All of it but rules and links.
    fn load(
        capture: &config::Capture,
        listeners: &Listeners,
        lock: impl FnOnce(&Cgroup) -> Result<lock::InstanceLock, RedirectError>,
    ) -> Result<(Mount, Self), RedirectError> {
        support::in_build()?;
        support::kernel()?;
        support::privilege()?;
        support::pid_namespace()?;
        let (mount, cgroup) = support::attach_cgroup(capture)?;
        let lock = lock(&cgroup)?;
        let netns = load::listener_netns()?;
        let mut ebpf = load::load(capture, listeners, netns, mount.level(&cgroup.path))?;
        let log = capture.kernel_log.then(|| log::KernelLog::start(&mut ebpf)).transpose();
        let log =
            log.map_err(|source| RedirectError::Io { what: "can't read the kernel half's log", source })?;
        let claims: HashMap<_, _, _> = take_map(&mut ebpf, "CLAIMS")?;
        let closed: HashMap<_, _, _> = take_map(&mut ebpf, "CLOSED")?;
        let rules = rules::Table::new(&mut ebpf)?;
        let decisions = Decisions::new(take_map(&mut ebpf, "EVENTS")?, rules.deciding());
        let original_destinations =
            OriginalDestinations::new(map_fd(claims.map())?, map_fd(closed.map())?, rules.deciding(), netns);
        let redirect = Self {
            cgroup,
            fail: capture.fail,
            errno: capture.errno,
            deny_quic: capture.deny_quic,
            captures_dns: load::captures_dns(capture, listeners),
            explicit: listeners.explicit,
            originals: take_map(&mut ebpf, "ORIGINALS")?,
            claims,
            closed: ClosedRecords::new(closed),
            cgroups: Mutex::new(take_map(&mut ebpf, "CGROUPS")?),
            programs: Programs::new(&mut ebpf)?,
            tells_executables: load::task_layout().is_some(),
            rules: Mutex::new(rules),
            namespaces: Namespaces::new(take_map(&mut ebpf, "NAMESPACES")?, take_map(&mut ebpf, "UNSERVED")?),
            names: Names::new(take_map(&mut ebpf, "NAMES")?, capture.dns.max_names, capture.dns.grace, netns),
            dns_servers: DnsServers::new(take_map(&mut ebpf, "DNS_SERVERS")?, netns),
            counters: take_map(&mut ebpf, "COUNTERS")?,
            followed: take_map(&mut ebpf, "FOLLOWED")?,
            siblings: Mutex::new(take_map(&mut ebpf, "SIBLINGS")?),
            decisions: Some(decisions),
            heartbeat: Heartbeat { map: Arc::new(Mutex::new(take_map(&mut ebpf, "HEARTBEAT")?)) },
            original_destinations,
            ebpf,
            links: Vec::with_capacity(HOOKS.len()),
            holder: None,
            _log: log,
            state_dir: None,
            lock,
        };
        let beaten = monotonic_ns().and_then(|now| redirect.heartbeat.beat(now));
        beaten.map_err(|source| RedirectError::Io { what: "can't write the first heartbeat", source })?;
        Ok((mount, redirect))
    }

    /// Handle for whoever accepts captured connections.
    pub fn original_destinations(&self) -> OriginalDestinations {
        self.original_destinations.clone()
    }

    /// Handle for whoever learns names.
    pub fn names(&self) -> Names {
        self.names.clone()
    }

    /// Handle for whoever takes queries to DNS servers.
    pub fn dns_servers(&self) -> DnsServers {
        self.dns_servers.clone()
    }

    /// Handle for whoever knows that the data plane is alive.
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// Redirects what processes in that cgroup and below connect to from now on.
    ///
    /// # Errors
    /// As `select_cgroup`.
    pub fn capture_cgroup(&self, cgroup: &Path) -> Result<CgroupId, RedirectError> {
        self.select_cgroup(cgroup, Action::Redirect)
    }

    /// Says what happens to connections from that cgroup and below; the nearest selected ancestor decides.
    ///
    /// # Errors
    /// `Cgroup`, `NotCgroup2` if it is none; `Map` if `capture.max_cgroups` are selected already.
    pub fn select_cgroup(&self, cgroup: &Path, action: Action) -> Result<CgroupId, RedirectError> {
        let id = Cgroup::open(cgroup)?.id;
        let mut cgroups = self.cgroups.lock().unwrap_or_else(PoisonError::into_inner);
        cgroups
            .insert(id.0, self.policy(action), 0)
            .map_err(|source| RedirectError::Map { map: "CGROUPS", source })?;
        Ok(id)
    }

    /// Forgets a selected cgroup; connections already captured go on. One that isn't selected is no error.
    ///
    /// # Errors
    /// `Map` if the kernel refuses.
    pub fn release_cgroup(&self, cgroup: CgroupId) -> Result<(), RedirectError> {
        let mut cgroups = self.cgroups.lock().unwrap_or_else(PoisonError::into_inner);
        match cgroups.remove(&cgroup.0).map_err(load::io_error) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RedirectError::Io { what: "can't release a cgroup", source })
            }
            _ => Ok(()),
        }
    }

    /// Puts rules in force in place of the present ones, at once: no connection is judged by neither.
    ///
    /// # Errors
    /// `Rules` if the kernel refuses; those in force stay.
    pub fn install_rules(&self, rules: Rules) -> Result<(), RedirectError> {
        Ok(self.table().install(rules, &self.names)?)
    }

    /// Looks again for the cgroups and executables that the rules name: they come and go.
    ///
    /// # Errors
    /// `Rules` if the kernel has no room for what was found.
    pub fn refresh_rules(&self) -> Result<(), RedirectError> {
        Ok(self.table().refresh()?)
    }

    /// The rules in force, in their order.
    pub fn rules(&self) -> Vec<RuleState> {
        self.table().state()
    }

    fn table(&self) -> MutexGuard<'_, rules::Table> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the explicit proxy listens, as the programs were told when they were loaded.
    #[must_use]
    pub fn explicit_listener(&self) -> Option<SocketAddr> {
        self.explicit
    }

    /// The attach cgroup's directory; `weir exec` cgroups are made below it.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup.path
    }

    /// What the kernel has attached and how full its maps are. Walks the maps: for status, not for each connection.
    pub fn state(&self) -> State {
        let hooks: Vec<HookState> = HOOKS.iter().map(|hook| self.hook_state(hook)).collect();
        let cgroups = self.cgroups.lock().unwrap_or_else(PoisonError::into_inner);
        let maps = vec![
            map_state("ORIGINALS", &self.originals),
            map_state("CLAIMS", &self.claims),
            map_state("CLOSED", &self.closed.lock().map),
            map_state("CGROUPS", &cgroups),
            map_state("SELECTED", &self.programs.lock().map),
            map_state("IDENTITIES", self.table().identities()),
            map_state("NAMESPACES", &self.namespaces.lock().map),
            map_state("DNS_SERVERS", &self.dns_servers.lock().map),
            map_state("NAMES", self.names.lock().map()),
        ];
        let problems = self.problems(&hooks, &maps);
        let (rules, holder) = (self.rules(), self.holder());
        let others = self.other_programs();
        State { cgroup: self.cgroup.path.clone(), problems, hooks, others, maps, rules, holder }
    }

    /// Forgets connections that were closed before they were accepted, and have been waiting since the last call.
    pub fn sweep_closed(&self) {
        self.closed.sweep();
    }

    /// The kernel half's counters; a counter the kernel won't read is 0.
    pub fn counters(&self) -> Counters {
        let mut values = [0; Counter::COUNT as usize];
        for (index, value) in (0..).zip(&mut values) {
            *value = self.counters.get(&index, 0).map_or(0, |per_cpu| per_cpu.iter().sum());
        }
        Counters::new(values)
    }

    /// What is selected for exactly this cgroup.
    fn policy_of(&self, cgroup: CgroupId) -> Option<Policy> {
        let cgroups = self.cgroups.lock().unwrap_or_else(PoisonError::into_inner);
        cgroups.get(&cgroup.0, 0).ok()
    }

    fn policy(&self, action: Action) -> Policy {
        rules::policy(action, self.fail, self.errno)
    }
}

fn map_state<K: Pod, V: Pod>(name: &'static str, map: &HashMap<MapData, K, V>) -> MapState {
    let capacity = map.map().info().map_or(0, |info| info.max_entries());
    // The walk starts anew when the entry it stands on is deleted: bounded, or a busy map would never end it.
    let entries = map.keys().take(capacity as usize).filter(Result::is_ok).count();
    MapState { name, entries: u32::try_from(entries).unwrap_or(capacity), capacity }
}

impl Drop for Redirect {
    fn drop(&mut self) {
        // First: it has the links, too.
        self.holder = None;
        while let Some(link) = self.links.pop() {
            drop(link);
        }
    }
}

/// Tells the kernel half that the data plane is alive. Cheap to clone.
#[derive(Clone)]
pub struct Heartbeat {
    map: Arc<Mutex<Array<MapData, u64>>>,
}

impl Heartbeat {
    /// Records life at `monotonic_ns` (CLOCK_MONOTONIC, the programs' clock): one system call.
    ///
    /// # Errors
    /// The kernel refused; the programs will take weir for dead after `capture.heartbeat_timeout`.
    pub fn beat(&self, monotonic_ns: u64) -> io::Result<()> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.set(0, monotonic_ns, 0).map_err(load::io_error)
    }
}

/// Now, on the clock that `Heartbeat::beat` wants.
///
/// # Errors
/// The system has no monotonic clock.
pub fn monotonic_ns() -> io::Result<u64> {
    let now = std::time::Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    Ok(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_can_be_used_by_every_worker() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Redirect>();
        check::<OriginalDestinations>();
        check::<Heartbeat>();
    }

    #[test]
    #[cfg(not(weir_kernel_half))]
    fn a_build_without_the_kernel_half_says_so() {
        let started = Redirect::start(&config::Capture::default(), &Listeners::default());
        let text = started.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains("cargo xtask build-ebpf"), "{text}");
    }
}
