//! What rules name, found on this host: ids of users, cgroups and files, and destinations in files. Cgroups and files
//! come and go, so they are looked for again and again; users and destination files are read once.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::User;
use proxy_common::{IDENTITY_CGROUP, IDENTITY_EXECUTABLE, Identity};

use crate::config::filter_line::{self, Named};
use crate::config::{CaptureRule, Domain, Prefix};
use crate::privilege;
use crate::redirect::cgroup::Cgroup;

use super::RulesError;
use super::domains::Named as Names;

/// Most destinations of all rules together.
pub(super) const MAX_DESTINATIONS: usize = 4_000_000;
/// Longest line of a file that is read; filter lists have long ones.
const MAX_LINE: usize = 64 << 10;
/// Directories of the cgroup tree looked through for a unit.
const MAX_CGROUPS_SEEN: usize = 65_536;

/// The numbers of a rule's users.
pub(super) fn uids(rule: &CaptureRule) -> Result<Vec<u32>, RulesError> {
    let uid = |user: &String| match user.parse() {
        Ok(uid) => Ok(uid),
        Err(_) => match User::from_name(user) {
            Ok(Some(found)) => Ok(found.uid.as_raw()),
            _ => Err(RulesError::NoSuchUser { rule: rule.name.clone(), user: user.clone() }),
        },
    };
    rule.users.iter().map(uid).collect()
}

/// Reads a rule's destination files: a prefix or address a line; empty lines and what follows `#` don't count.
pub(super) fn destinations(
    rule: &CaptureRule,
    number: u8,
    into: &mut Vec<(Prefix, u8)>,
) -> Result<(), RulesError> {
    into.extend(rule.destinations.iter().map(|prefix| (*prefix, number)));
    for path in &rule.destination_files {
        each_line(path, "destinations", |text, line| {
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                return Ok(());
            }
            let bad = |_| RulesError::BadDestination { path: path.clone(), line, text: shown(text) };
            let prefix = text.parse().map_err(bad)?;
            if into.len() >= MAX_DESTINATIONS {
                return Err(RulesError::TooManyDestinations);
            }
            into.push((prefix, number));
            Ok(())
        })?;
    }
    Ok(())
}

/// Reads a rule's domain files: a name a line, as destinations are, or a filter list, of which names count and URLs and
/// exceptions do not. So one list serves the kernel half and `security.filtering`.
pub(super) fn domains(rule: &CaptureRule, number: u8, into: &mut Names) -> Result<(), RulesError> {
    rule.domains.iter().for_each(|domain| into.push(domain, number));
    for path in &rule.domain_files {
        each_line(path, "domains", |text, line| {
            let text = filter_line::without_comment(text);
            if text.is_empty() {
                return Ok(());
            }
            let bad = |_| RulesError::BadDomain { path: path.clone(), line, text: shown(text) };
            if into.is_full() {
                return Err(RulesError::TooManyDomains);
            }
            if !filter_line::is_of_list(text) {
                into.push(&text.parse::<Domain>().map_err(bad)?, number);
                return Ok(());
            }
            // What a list has beside names is not for the kernel half.
            let _ = filter_line::read(text, |entry| {
                if let Named::Host { name, itself, below } = entry.named
                    && !entry.exception
                {
                    let kinds = [(itself, false), (below, true)];
                    for (_, below) in kinds.into_iter().filter(|(said, _)| *said) {
                        into.push(&Domain { name: name.clone(), below }, number);
                    }
                }
            });
            Ok(())
        })?;
    }
    Ok(())
}

fn each_line(
    path: &Path,
    what: &'static str,
    mut read: impl FnMut(&str, usize) -> Result<(), RulesError>,
) -> Result<(), RulesError> {
    let unreadable = |source| RulesError::File { what, path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    let (mut line, mut count) = (String::new(), 0);
    while read_line(&mut file, &mut line).map_err(unreadable)? > 0 {
        count += 1;
        read(line.trim(), count)?;
    }
    Ok(())
}

fn shown(text: &str) -> String {
    text.escape_debug().take(60).collect()
}

fn read_line(file: &mut BufReader<File>, line: &mut String) -> std::io::Result<usize> {
    line.clear();
    let read = std::io::Read::take(file, MAX_LINE as u64).read_line(line)?;
    if read == MAX_LINE && !line.ends_with('\n') {
        return Err(std::io::Error::other(format!("a line has more than {MAX_LINE} bytes")));
    }
    Ok(read)
}

/// What may not be there, or be another one tomorrow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Cgroup(PathBuf),
    Unit(String),
    Executable(PathBuf),
}

impl Wanted {
    pub(super) fn of(rule: &CaptureRule) -> Vec<Self> {
        let cgroups = rule.cgroups.iter().cloned().map(Self::Cgroup);
        let units = rule.units.iter().cloned().map(Self::Unit);
        let executables = rule.executables.iter().cloned().map(Self::Executable);
        cgroups.chain(units).chain(executables).collect()
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Cgroup(path) => format!("cgroup {}", path.display()),
            Self::Unit(unit) => format!("unit {unit}"),
            Self::Executable(path) => format!("executable {}", path.display()),
        }
    }
}

/// A look at the host: the cgroup tree is walked once, and only if a unit is wanted.
pub(super) struct Look<'a> {
    /// The attach cgroup: above it, nothing is seen by the kernel half.
    attach: &'a Path,
    mount: &'a Path,
    directories: Option<Vec<PathBuf>>,
}

impl<'a> Look<'a> {
    pub(super) fn new(mount: &'a Path, attach: &'a Path) -> Self {
        Self { attach, mount, directories: None }
    }

    /// What it is called by the kernel now; empty: it isn't there.
    pub(super) fn find(&mut self, wanted: &Wanted) -> Vec<Identity> {
        match wanted {
            Wanted::Cgroup(path) => self.cgroup(path).into_iter().collect(),
            Wanted::Unit(unit) => {
                let (mount, attach) = (self.mount, self.attach);
                let directories = self.directories.get_or_insert_with(|| below(attach));
                let named = directories.iter().filter(|path| path.file_name() == Some(unit.as_ref()));
                let paths: Vec<PathBuf> = named.cloned().collect();
                debug_assert!(paths.iter().all(|path| path.starts_with(mount)));
                paths.iter().filter_map(|path| self.cgroup(path)).collect()
            }
            Wanted::Executable(path) => executable(path).into_iter().collect(),
        }
    }

    /// `path` is a directory of the mount, or a path within the hierarchy as /proc/PID/cgroup has it.
    fn cgroup(&self, path: &Path) -> Option<Identity> {
        let within = self.mount.join(path.strip_prefix("/").unwrap_or(path));
        let path = if path.starts_with(self.mount) { path } else { &within };
        let cgroup = Cgroup::open(path).ok().filter(|cgroup| cgroup.path.starts_with(self.attach))?;
        Some(Identity { kind: IDENTITY_CGROUP, id: cgroup.id.0, ..Identity::default() })
    }
}

/// Every cgroup at `top` and below, with a bound.
fn below(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next) {
        next += 1;
        let Ok(entries) = fs::read_dir(path) else { continue };
        let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        found.extend(directories.map(|entry| entry.path()));
        if found.len() > MAX_CGROUPS_SEEN {
            break;
        }
    }
    found
}

/// The file as the kernel half sees it: `st_dev` may be another number than the superblock's (btrfs), so the mount is
/// asked for that.
pub(in crate::redirect) fn executable(path: &Path) -> Option<Identity> {
    identity(&File::open(path).ok()?)
}

/// What a process executes now.
pub(in crate::redirect) fn executed_by(pid: u32) -> Option<Identity> {
    identity(&privilege::executable(pid).ok()?)
}

fn identity(file: &File) -> Option<Identity> {
    let metadata = file.metadata().ok()?;
    let device = superblock_of(file).unwrap_or_else(|| {
        let device = metadata.dev();
        kernel_device(nix::sys::stat::major(device), nix::sys::stat::minor(device))
    });
    Some(Identity { kind: IDENTITY_EXECUTABLE, id: metadata.ino(), device, ..Identity::default() })
}

/// proc_pid_fdinfo(5) gives the mount, proc_pid_mountinfo(5) its device.
fn superblock_of(file: &File) -> Option<u64> {
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    let mount = about.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().to_owned();
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(&mount))?;
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    Some(kernel_device(major.parse().ok()?, minor.parse().ok()?))
}

/// `MKDEV` of the kernel's linux/kdev_t.h.
fn kernel_device(major: u64, minor: u64) -> u64 {
    major << 20 | minor
}
