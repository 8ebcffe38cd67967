//! `security.filtering`: lists of what may be asked for, or may not.

use std::path::PathBuf;

use super::filter_line;
use super::kinds::{Fault, auto_or, choice, optional, path, quoted};
use super::section::Section;
use super::{Access, keys::ACCESS};

/// `security.filtering`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filtering {
    pub mode: ListMode,
    pub blocked: Listed,
    pub allowed: Listed,
    /// Connections that tell no name. Default auto: as the mode has it.
    pub unnamed: Option<Access>,
}

/// What the lists are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListMode {
    /// What is blocked is refused, but for what is allowed.
    #[default]
    Blocklist,
    /// What is not allowed is refused, and of that what is blocked.
    Allowlist,
}

/// The entries of one side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed {
    /// Each is a line that [`filter_line::read`] takes.
    pub lines: Vec<String>,
    pub files: Vec<PathBuf>,
}

impl Listed {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.files.is_empty()
    }
}

pub(super) fn read(s: &mut Section<'_, '_>) -> Filtering {
    const MODES: &[(&str, ListMode)] =
        &[("blocklist", ListMode::Blocklist), ("allowlist", ListMode::Allowlist)];
    let mode = s.read("mode", ListMode::default(), choice(MODES));
    let (blocked, allowed) = s.section("domains", |s| {
        let blocked = Listed {
            lines: s.list("blocked", Vec::new(), line),
            files: s.list("blocked_files", Vec::new(), path()),
        };
        let allowed = Listed {
            lines: s.list("allowed", Vec::new(), line),
            files: s.list("allowed_files", Vec::new(), path()),
        };
        (blocked, allowed)
    });
    let unnamed = s.read("unnamed", None, auto_or(|| None, optional(choice(ACCESS))));
    Filtering { mode, blocked, allowed, unnamed }
}

/// An entry of a list. Where it stands in the configuration it has to be one that holds.
fn line(text: &str) -> Result<String, Fault> {
    let mut count = 0;
    match filter_line::read(text, |_| count += 1) {
        Ok(()) if count > 0 => Ok(text.to_owned()),
        Ok(()) => Err(format!("{} says nothing", quoted(text)).into()),
        Err(why) => Err(format!("{} {why}", quoted(text)).into()),
    }
}
