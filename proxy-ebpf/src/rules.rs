//! The ordered rules: which is the first that matches a connection. A handful of look-ups, however many rules there
//! are and however many prefixes they name; see proxy_common::rules.
//!
//! What a rule that matches means is for `decide`. Without rules all this is one look-up in an array.

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, task_struct};
use aya_ebpf::btf_maps;
use aya_ebpf::helpers::bpf_get_current_uid_gid;
use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_ktime_get_ns, bpf_probe_read_kernel};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use proxy_common::{
    CLASS_ANY, GENERATIONS, IDENTITY_CGROUP, IDENTITY_EXECUTABLE, IDENTITY_UID, Identity, MAX_CLASSES,
    MAX_RULES, NameKey, NameRules, PORTS, Policy, RULE_WORDS, RuleSet, Ruleset, USES_CGROUP,
    USES_DESTINATION, USES_DOMAIN, USES_EXECUTABLE, USES_LOOPBACK, USES_PORT, USES_UID,
};

use crate::attempt::{Attempt, Transport};
use crate::listeners::known_netns;
use crate::local::{Scope, arrival};
use crate::maps::{HAS_EXECUTABLE, PLACEHOLDER, TASK_LAYOUT, copied};

const ADDRESS_BITS: u32 = 128;

/// The rules that ask for a name of an address; written by userspace alone, which throws out the oldest.
#[map]
static NAMES: HashMap<NameKey, NameRules> = HashMap::with_max_entries(PLACEHOLDER, BPF_F_NO_PREALLOC);

/// Which generation of rules is in force.
#[map]
static ACTIVE: Array<u32> = Array::with_max_entries(1, 0);

#[map]
static RULESETS: Array<Ruleset> = Array::with_max_entries(GENERATIONS, 0);

/// What each rule says: rule n of generation g at g * MAX_RULES + n.
#[map]
static RULES: Array<Policy> = Array::with_max_entries(GENERATIONS * MAX_RULES, 0);

/// How often each rule was the first to match.
#[map]
static RULE_HITS: PerCpuArray<u64> = PerCpuArray::with_max_entries(GENERATIONS * MAX_RULES, 0);

/// Rules by who connects.
#[map]
static IDENTITIES: HashMap<Identity, RuleSet> = HashMap::with_max_entries(PLACEHOLDER, BPF_F_NO_PREALLOC);

/// Class of a destination by its longest prefix, by generation; IPv4 as v4-mapped. Each prefix's class holds the rules
/// of all prefixes around it, too: one look-up is enough. A generation that needs none has no map here.
#[btf_map]
static PREFIXES: btf_maps::ArrayOfMaps<btf_maps::LpmTrie<[u32; 4], u32, 1>, { GENERATIONS as usize }> =
    btf_maps::ArrayOfMaps::new();

/// Class of each port (host byte order), by generation.
#[btf_map]
static PORT_CLASSES: btf_maps::ArrayOfMaps<
    btf_maps::Array<u32, { PORTS as usize }>,
    { GENERATIONS as usize },
> = btf_maps::ArrayOfMaps::new();

/// The rules of each class, by generation: the words of a `RuleSet`. Not as the struct that it is: up to Linux 6.1 a map
/// whose values are a struct by BTF doesn't equal one without BTF, and userspace makes those.
#[btf_map]
static CLASSES: btf_maps::ArrayOfMaps<
    btf_maps::Array<[u64; RULE_WORDS], { MAX_CLASSES as usize }>,
    { GENERATIONS as usize },
> = btf_maps::ArrayOfMaps::new();

/// The rules in force, for one connection: userspace replaces them as a whole.
#[derive(Clone, Copy)]
pub struct Rules {
    generation: u32,
    ruleset: &'static Ruleset,
}

impl Rules {
    /// None: there are none.
    #[inline(always)]
    pub fn in_force() -> Option<Self> {
        let generation = *ACTIVE.get(0)?;
        let ruleset = RULESETS.get(generation)?;
        if ruleset.rules == 0 { None } else { Some(Self { generation, ruleset }) }
    }

    /// Whether one of them names a destination within loopback.
    #[inline(always)]
    pub fn name_loopback(self) -> bool {
        self.ruleset.uses & USES_LOOPBACK != 0
    }

    /// Adds the rules that ask for this cgroup.
    #[inline(always)]
    pub fn add_cgroup(self, id: u64, admitting: &mut RuleSet) {
        if self.ruleset.uses & USES_CGROUP != 0
            && let Some(rules) = self.identity(IDENTITY_CGROUP, id, 0)
        {
            admitting.unite(rules);
        }
    }

    /// The first rule that matches. `cgroups`: the rules that ask for the current cgroup or one above it.
    #[inline(always)]
    pub fn first_match(
        self,
        attempt: &Attempt<'_>,
        scope: Scope,
        cgroups: &RuleSet,
        selected: bool,
    ) -> Option<Match> {
        let ruleset = self.ruleset;
        let mut matching = ruleset.any_cgroup;
        matching.unite(cgroups);
        matching.intersect(&ruleset.of_transport(attempt.transport == Transport::Udp));
        if !selected {
            matching.intersect(&ruleset.unselected);
        }
        if scope == Scope::Loopback {
            matching.intersect(&ruleset.loopback);
        }
        if ruleset.uses & USES_DESTINATION != 0 {
            matching.intersect(self.of_destination(attempt));
        }
        if ruleset.uses & USES_DOMAIN != 0 {
            matching.intersect(self.of_domain(attempt));
        }
        if ruleset.uses & USES_PORT != 0 {
            matching.intersect(self.of_port(attempt));
        }
        if ruleset.uses & USES_UID != 0 {
            let uid = bpf_get_current_uid_gid() & 0xffff_ffff;
            matching.intersect(self.identity(IDENTITY_UID, uid, 0).unwrap_or(&ruleset.any_uid));
        }
        if ruleset.uses & USES_EXECUTABLE != 0 {
            matching.intersect(self.of_executable());
        }
        let rule = matching.first();
        if rule >= MAX_RULES {
            return None;
        }
        let index = self.generation * MAX_RULES + rule;
        let policy = copied(RULES.get(index)?);
        count(index);
        Some(Match { policy })
    }

    #[inline(always)]
    fn of_destination(self, attempt: &Attempt<'_>) -> &'static RuleSet {
        let any = &self.ruleset.any_destination;
        let Some(prefixes) = PREFIXES.get(self.generation) else { return any };
        match prefixes.get(&Key::new(ADDRESS_BITS, arrival(attempt.destination.address))) {
            Some(class) => self.class(*class, any),
            None => any,
        }
    }

    /// By the names that were resolved to this destination, in the network namespace that asks.
    #[inline(always)]
    fn of_domain(self, attempt: &Attempt<'_>) -> &'static RuleSet {
        let any = &self.ruleset.any_domain;
        let netns = known_netns(attempt.ctx);
        let address = attempt.destination.address;
        let key = NameKey { generation: self.generation, padding: 0, netns, address };
        // SAFETY: read during this run of the program only; userspace replaces entries as a whole.
        let Some(named) = (unsafe { NAMES.get(key) }) else { return any };
        // SAFETY: a plain helper call.
        if unsafe { bpf_ktime_get_ns() } < named.expires { &named.rules } else { any }
    }

    #[inline(always)]
    fn of_port(self, attempt: &Attempt<'_>) -> &'static RuleSet {
        let any = &self.ruleset.any_port;
        let port = u32::from(u16::from_be(attempt.destination.port));
        match PORT_CLASSES.get_value(self.generation, &port) {
            Some(class) => self.class(*class, any),
            None => any,
        }
    }

    #[inline(always)]
    fn class(self, class: u32, any: &'static RuleSet) -> &'static RuleSet {
        if class == CLASS_ANY {
            return any;
        }
        match CLASSES.get_value(self.generation, &class) {
            // SAFETY: the words of a RuleSet; an array's values live as long as the program runs.
            Some(words) => unsafe { &*core::ptr::from_ref(words).cast::<RuleSet>() },
            None => any,
        }
    }

    #[inline(always)]
    fn of_executable(self) -> &'static RuleSet {
        let any = &self.ruleset.any_executable;
        if HAS_EXECUTABLE.load() == 0 {
            return any;
        }
        let (inode, device) = executable();
        self.identity(IDENTITY_EXECUTABLE, inode, device).unwrap_or(any)
    }

    #[inline(always)]
    fn identity(self, kind: u32, id: u64, device: u64) -> Option<&'static RuleSet> {
        // SAFETY: read during this run of the program only; userspace changes only what is not in force.
        unsafe { IDENTITIES.get(Identity { generation: self.generation, kind, id, device }) }
    }
}

/// The first rule that matched.
pub struct Match {
    pub policy: Policy,
}

/// Inode and device of the file that the current process executes; zeros if that can't be read.
#[inline(always)]
pub fn executable() -> (u64, u64) {
    let layout = TASK_LAYOUT.load();
    // SAFETY: a plain helper call.
    let task = unsafe { bpf_get_current_task() } as *const task_struct;
    let mm = read::<u64>(task as u64, layout.task_mm);
    let file = read::<u64>(mm, layout.mm_exe_file);
    let inode = read::<u64>(file, layout.file_inode);
    let superblock = read::<u64>(inode, layout.inode_superblock);
    (read::<u64>(inode, layout.inode_number), u64::from(read::<u32>(superblock, layout.superblock_device)))
}

/// Reads kernel memory. An address that isn't one gives zeros: the helper says so and writes them.
#[inline(always)]
fn read<T: Copy>(base: u64, offset: u32) -> T {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    let from = (base + u64::from(offset)) as *const core::ffi::c_void;
    // SAFETY: room for a T, which the helper fills whatever happens; T is a plain number.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from);
        value.assume_init()
    }
}

#[inline(always)]
fn count(index: u32) {
    if let Some(hits) = RULE_HITS.get_ptr_mut(index) {
        // SAFETY: the value belongs to this CPU; a lost increment by a nested program is tolerable.
        unsafe { *hits += 1 }
    }
}
