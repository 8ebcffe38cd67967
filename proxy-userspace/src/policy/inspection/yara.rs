//! YARA rules, compiled and matched by boreal.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use boreal::Compiler;
use boreal::scanner::{ScanError, ScanParams};

use super::{Finding, Form, Scanner, TOO_LONG};
use crate::config;

/// The EICAR test file, wherever it stands: in an upload it is in the midst of a form. In hexadecimal, so that this file
/// is not taken for it.
const BUILTIN: &str = "rule EICAR_test_file { strings: $text = { \
    58 35 4f 21 50 25 40 41 50 5b 34 5c 50 5a 58 35 34 28 50 5e 29 37 43 43 29 37 7d 24 45 49 43 41 52 2d 53 54 41 4e \
    44 41 52 44 2d 41 4e 54 49 56 49 52 55 53 2d 54 45 53 54 2d 46 49 4c 45 21 24 48 2b 48 2a } condition: $text }";

/// Files that one file may include, those that these include counted.
const MAX_INCLUDED: usize = 10_000;

/// Why rules can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    #[error("the rules of {} can't be used: {why}", .path.display())]
    File { path: PathBuf, why: String },
    #[error("weir's own rule can't be used: {0}")]
    Own(String),
}

/// Rules, as they were read.
pub(super) struct Rules {
    pub(super) scanner: Yara,
    pub(super) count: usize,
    /// Of their text.
    pub(super) fingerprint: u64,
    pub(super) files: Vec<(PathBuf, Option<SystemTime>)>,
}

/// Files that were read.
#[derive(Debug, Default)]
struct Read {
    files: Vec<(PathBuf, Option<SystemTime>)>,
    fingerprint: u64,
}

impl Read {
    fn file(&mut self, path: &Path) -> io::Result<String> {
        // Before it is read: what changes meanwhile is read again.
        self.files.push((path.to_owned(), std::fs::metadata(path)?.modified().ok()));
        let text = std::fs::read_to_string(path)?;
        self.fingerprint = xxhash_rust::xxh3::xxh3_64_with_seed(text.as_bytes(), self.fingerprint);
        Ok(text)
    }
}

impl Rules {
    pub(super) fn compile(settings: &config::Inspection) -> Result<Self, RulesError> {
        let mut compiler = Compiler::new();
        if settings.builtin {
            compiler
                .add_rules_str_in_namespace(BUILTIN, "weir")
                .map_err(|error| RulesError::Own(error.to_string()))?;
        }
        let read = Arc::new(Mutex::new(Read::default()));
        for path in &settings.rules {
            let failed = |why: String| RulesError::File { path: path.clone(), why };
            let (folder, included) =
                (path.parent().map(Path::to_owned).unwrap_or_default(), Arc::clone(&read));
            compiler.set_include_callback(move |name, from, _| include(&folder, name, from, &included));
            let text = read.lock().unwrap_or_else(PoisonError::into_inner).file(path);
            let text = text.map_err(|error| failed(error.to_string()))?;
            // Rules of one name may stand in several files.
            let added = compiler.add_rules_str_in_namespace(&text, path.display().to_string());
            added.map_err(|error| failed(error.to_string()))?;
        }
        let scanner = compiler.finalize();
        let read = std::mem::take(&mut *read.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Self {
            count: scanner.rules().count(),
            scanner: Yara(scanner),
            fingerprint: read.fingerprint,
            files: read.files,
        })
    }
}

/// The text of what a file includes: beside it, else beside the file that the configuration names.
fn include(folder: &Path, name: &str, from: Option<&Path>, read: &Mutex<Read>) -> io::Result<String> {
    let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
    if read.files.len() >= MAX_INCLUDED {
        return Err(io::Error::other("too many files are included"));
    }
    let beside = from.and_then(Path::parent).map(|parent| folder.join(parent).join(name));
    match beside.filter(|path| path.exists()) {
        Some(path) => read.file(&path),
        None => read.file(&folder.join(name)),
    }
}

/// Looks for them.
#[derive(Debug)]
pub(super) struct Yara(boreal::Scanner);

impl Scanner for Yara {
    fn scan(&self, content: &[u8], _: Form, until: Instant) -> Finding {
        let mut scanner = self.0.clone();
        let left = until.saturating_duration_since(Instant::now());
        scanner.set_scan_params(ScanParams::default().timeout_duration(Some(left)));
        let (error, found) = match scanner.scan_mem(content) {
            Ok(found) => (None, found),
            Err((error, found)) => (Some(error), found),
        };
        match (found.rules.iter().find(|rule| rule.matched), error) {
            (Some(rule), _) => Finding::Match(rule.name.to_owned()),
            (None, None) => Finding::Nothing,
            (None, Some(ScanError::Timeout)) => Finding::Undecided(TOO_LONG.into()),
            (None, Some(error)) => Finding::Undecided(error.to_string().into()),
        }
    }
}
