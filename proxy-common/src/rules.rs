//! Ordered rules as the kernel half evaluates them: bit-vector classification (Lakshman and Stiliadis, SIGCOMM 1998).
//! Each rule is a bit. Each property of a connection is looked up once and gives the set of rules that admit it; the
//! lowest bit of the intersection is the first rule that matches. The cost does not depend on the number of rules.
//!
//! Rules are replaced as a whole: there are two generations of everything below, and one number says which is read.

/// Most rules at one time.
pub const MAX_RULES: u32 = 256;
/// Words of a set of rules.
pub const RULE_WORDS: usize = (MAX_RULES / 64) as usize;

/// Generations of rules: the one that is read, and the one that is being built.
pub const GENERATIONS: u32 = 2;

/// Distinct sets of rules that destinations and ports may belong to, all prefixes and ports together.
pub const MAX_CLASSES: u32 = 4096;
/// The class of what no prefix and no port names: `Ruleset::any_destination`, `Ruleset::any_port`.
pub const CLASS_ANY: u32 = 0;

/// Every port there is.
pub const PORTS: u32 = 65536;

/// A set of rules, rule n in bit n % 64 of word n / 64.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RuleSet {
    pub words: [u64; RULE_WORDS],
}

impl RuleSet {
    pub const EMPTY: Self = Self { words: [0; RULE_WORDS] };

    pub const fn insert(&mut self, rule: u32) {
        self.words[(rule / 64) as usize] |= 1 << (rule % 64);
    }

    pub const fn contains(&self, rule: u32) -> bool {
        self.words[(rule / 64) as usize] & 1 << (rule % 64) != 0
    }

    /// Word by word, without a loop: the kernel half may not index its stack by a variable without CAP_PERFMON.
    #[inline(always)]
    pub const fn intersect(&mut self, other: &Self) {
        self.words[0] &= other.words[0];
        self.words[1] &= other.words[1];
        self.words[2] &= other.words[2];
        self.words[3] &= other.words[3];
    }

    #[inline(always)]
    pub const fn unite(&mut self, other: &Self) {
        self.words[0] |= other.words[0];
        self.words[1] |= other.words[1];
        self.words[2] |= other.words[2];
        self.words[3] |= other.words[3];
    }

    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.words[0] | self.words[1] | self.words[2] | self.words[3] == 0
    }

    /// The first rule in it; `MAX_RULES` if it is empty.
    #[inline(always)]
    pub const fn first(&self) -> u32 {
        let (base, word) = match self.words {
            [0, 0, 0, 0] => return MAX_RULES,
            [0, 0, 0, word] => (192, word),
            [0, 0, word, _] => (128, word),
            [0, word, ..] => (64, word),
            [word, ..] => (0, word),
        };
        base + lowest_bit(word)
    }
}

/// By halves: eBPF has no instruction for it, and the compiler's stand-in is a table. `word` is not 0.
#[inline(always)]
const fn lowest_bit(mut word: u64) -> u32 {
    let mut bit = 0;
    if word & 0xffff_ffff == 0 {
        bit += 32;
        word >>= 32;
    }
    if word & 0xffff == 0 {
        bit += 16;
        word >>= 16;
    }
    if word & 0xff == 0 {
        bit += 8;
        word >>= 8;
    }
    if word & 0xf == 0 {
        bit += 4;
        word >>= 4;
    }
    if word & 3 == 0 {
        bit += 2;
        word >>= 2;
    }
    if word & 1 == 0 {
        bit += 1;
    }
    bit
}

/// What there is to know of a generation besides its maps: entry of the array `RULESETS`.
///
/// The `any_` sets hold the rules that don't ask for that property: what a look-up that finds nothing stands for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The `USES_` bits: properties that some rule asks for. Others are not looked up.
    pub uses: u32,
    /// 0: there are no rules.
    pub rules: u32,
    /// Rules that admit TCP, and UDP.
    pub tcp: RuleSet,
    pub udp: RuleSet,
    /// Rules that don't ask for a selected cgroup.
    pub unselected: RuleSet,
    /// Rules that name loopback, or a part of it: the others don't hold there.
    pub loopback: RuleSet,
    pub any_destination: RuleSet,
    pub any_port: RuleSet,
    pub any_uid: RuleSet,
    pub any_cgroup: RuleSet,
    pub any_executable: RuleSet,
    pub any_domain: RuleSet,
}

impl Ruleset {
    /// The rules that admit UDP, or TCP. Reads both: a pointer to one or the other is none that the kernel would accept
    /// without CAP_PERFMON.
    #[inline(always)]
    pub const fn of_transport(&self, udp: bool) -> RuleSet {
        let udp = (udp as u64).wrapping_neg();
        RuleSet {
            words: [
                self.udp.words[0] & udp | self.tcp.words[0] & !udp,
                self.udp.words[1] & udp | self.tcp.words[1] & !udp,
                self.udp.words[2] & udp | self.tcp.words[2] & !udp,
                self.udp.words[3] & udp | self.tcp.words[3] & !udp,
            ],
        }
    }
}

pub const USES_DESTINATION: u32 = 1;
pub const USES_PORT: u32 = 1 << 1;
pub const USES_UID: u32 = 1 << 2;
pub const USES_CGROUP: u32 = 1 << 3;
pub const USES_EXECUTABLE: u32 = 1 << 4;
pub const USES_DOMAIN: u32 = 1 << 5;
/// `Ruleset::loopback` is not empty.
pub const USES_LOOPBACK: u32 = 1 << 6;

/// Key of the map `IDENTITIES`: who connects. Its value is the set of rules that admit it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    pub generation: u32,
    /// One of the `IDENTITY_` constants.
    pub kind: u32,
    /// A user id, a cgroup id, or an inode number.
    pub id: u64,
    /// The inode's device as the kernel numbers it (major << 20 | minor); else 0.
    pub device: u64,
}

/// A user id, as the initial user namespace numbers it.
pub const IDENTITY_UID: u32 = 1;
/// A cgroup: it, and what is below it.
pub const IDENTITY_CGROUP: u32 = 2;
/// The file that the process executes.
pub const IDENTITY_EXECUTABLE: u32 = 3;

const _: () = {
    assert!(MAX_RULES.is_multiple_of(64));
    // `intersect`, `unite`, `is_empty` and `first` are written out for four.
    assert!(RULE_WORDS == 4);
    assert!(size_of::<RuleSet>() == 32);
    assert!(size_of::<Ruleset>() == 8 + 10 * 32);
    assert!(size_of::<Identity>() == 24);
};

#[cfg(feature = "user")]
mod pod {
    use super::{Identity, RuleSet, Ruleset};

    // SAFETY: repr(C), no implicit padding (sizes asserted above), every bit pattern is a value.
    unsafe impl aya::Pod for RuleSet {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Ruleset {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Identity {}
}
