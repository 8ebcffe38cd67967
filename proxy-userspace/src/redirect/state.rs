//! What the kernel says about the kernel half: attached or not, how full, how often. Nothing here is remembered.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use proxy_common::Counter;
use serde::{Serialize, Serializer};

use super::others::OtherProgram;
use super::rules::RuleState;

/// The kernel half at this moment.
#[derive(Debug, Clone, Serialize)]
pub struct State {
    /// The attach cgroup.
    pub cgroup: PathBuf,
    /// What is not as it should be, and why; told to people.
    pub problems: Vec<String>,
    pub hooks: Vec<HookState>,
    /// Other people's programs that run on the same connections, as the kernel runs them.
    pub others: Vec<OtherProgram>,
    pub maps: Vec<MapState>,
    /// In their order; the first that matches counts.
    pub rules: Vec<RuleState>,
    /// The process that keeps the programs attached if weir dies; none with `capture.fail: open`.
    pub holder: Option<HolderState>,
}

impl State {
    /// True if every hook runs our program, and nothing else is wrong.
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty() && self.hooks.iter().all(|hook| hook.attached)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HolderState {
    pub pid: u32,
    /// If not, connections go direct when weir dies, `capture.fail: closed` or not.
    pub running: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct HookState {
    /// As `bpftool cgroup show` calls it.
    pub name: &'static str,
    /// Our program's id, as `bpftool prog` shows it.
    pub program_id: u32,
    /// Whether the attach cgroup runs that program on this hook.
    pub attached: bool,
    /// Other programs directly on the same hook of the same cgroup.
    pub foreign: Vec<u32>,
}

#[derive(Debug, Clone, Serialize)]
pub struct MapState {
    pub name: &'static str,
    pub entries: u32,
    pub capacity: u32,
}

/// The kernel half's counters since it was loaded, all CPUs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    values: [u64; Counter::COUNT as usize],
}

impl Counters {
    pub(super) fn new(values: [u64; Counter::COUNT as usize]) -> Self {
        Self { values }
    }

    pub fn value(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }

    /// Names and values, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Counter::ALL.iter().map(|&counter| (counter.name(), self.value(counter)))
    }
}

impl Serialize for Counters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}
