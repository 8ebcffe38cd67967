//! Reads lists.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::{Filtering, List, Place};
use crate::config::filter_line::{self, Entry, LeftOut, Named};
use crate::config::{self, Access, ListMode, Listed};

/// Most entries of all lists together.
const MAX_ENTRIES: usize = 4_000_000;
/// Most bytes of a line; a longer one is left out.
const MAX_LINE: u64 = 4096;

/// Why the lists can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error("the list {} can't be read: {source}", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the lists have more than {MAX_ENTRIES} entries; weir takes no more")]
    TooMany,
}

/// On which of the two lists an entry belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Blocked,
    Allowed,
}

pub(super) fn load(config: &config::Filtering) -> Result<Filtering, ListError> {
    let unnamed = config.unnamed.map_or(config.mode == ListMode::Blocklist, |access| access == Access::Allow);
    let mut loaded = Filtering { mode: config.mode, unnamed, ..Filtering::default() };
    for (listed, side, key) in [
        (&config.blocked, Side::Blocked, "security.filtering.domains.blocked"),
        (&config.allowed, Side::Allowed, "security.filtering.domains.allowed"),
    ] {
        read_lines(&mut loaded, listed, side, key)?;
        for path in &listed.files {
            read_file(&mut loaded, path, side)?;
        }
    }
    let seed = RandomState::new().hash_one(0);
    for list in [&mut loaded.blocked, &mut loaded.allowed] {
        list.names.finish(seed);
        list.urls.finish(seed);
    }
    Ok(loaded)
}

pub(super) fn last_change(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}

fn read_lines(loaded: &mut Filtering, listed: &Listed, side: Side, key: &str) -> Result<(), ListError> {
    let place = Place { source: source(loaded, key), line: 0 };
    for line in &listed.lines {
        // The configuration has been checked.
        let _ = read_line(loaded, line, side, place)?;
    }
    Ok(())
}

fn read_file(loaded: &mut Filtering, path: &Path, side: Side) -> Result<(), ListError> {
    let unreadable = |source| ListError::Unreadable { path: path.to_owned(), source };
    // Before it is read: what changes meanwhile is read again.
    loaded.files.push((path.to_owned(), last_change(path)));
    let source = source(loaded, &path.display().to_string());
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(unreadable)?);
    let (mut bytes, mut number) = (Vec::new(), 0_u32);
    let mut left_out: Option<(LeftOut, u32)> = None;
    let before = loaded.left_out;
    loop {
        bytes.clear();
        let read = (&mut file).take(MAX_LINE).read_until(b'\n', &mut bytes).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        number = number.saturating_add(1);
        let is_whole = bytes.ends_with(b"\n") || (read as u64) < MAX_LINE;
        if !is_whole {
            skip_line(&mut file).map_err(unreadable)?;
        }
        let read = match std::str::from_utf8(&bytes) {
            Ok(line) if is_whole => read_line(loaded, line, side, Place { source, line: number })?,
            _ => Err(LeftOut::Malformed),
        };
        if let Err(why) = read {
            loaded.left_out += 1;
            if why == LeftOut::Malformed {
                left_out.get_or_insert((why, number));
            }
        }
    }
    let count = loaded.left_out - before;
    if let Some((why, line)) = left_out {
        tracing::warn!(file = %path.display(), line, "a line of a list is left out: it {why}");
    }
    if count > 0 {
        tracing::info!(file = %path.display(), count, "lines that a proxy can't obey are left out");
    }
    Ok(())
}

fn skip_line(file: &mut BufReader<File>) -> io::Result<()> {
    loop {
        let buffer = file.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        match buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                file.consume(end + 1);
                return Ok(());
            }
            None => {
                let length = buffer.len();
                file.consume(length);
            }
        }
    }
}

fn source(loaded: &mut Filtering, name: &str) -> u16 {
    loaded.sources.push(Arc::from(name));
    // The configuration takes 1024 files a side.
    u16::try_from(loaded.sources.len() - 1).unwrap_or(u16::MAX)
}

fn read_line(
    loaded: &mut Filtering,
    line: &str,
    side: Side,
    place: Place,
) -> Result<Result<(), LeftOut>, ListError> {
    let Filtering { blocked, allowed, .. } = loaded;
    let mut full = false;
    let read = filter_line::read(line, |entry| {
        if blocked.len() + allowed.len() >= MAX_ENTRIES {
            full = true;
            return;
        }
        let is_blocked = (side == Side::Blocked) != entry.exception;
        push(if is_blocked { blocked } else { allowed }, entry, place);
    });
    if full { Err(ListError::TooMany) } else { Ok(read) }
}

fn push(list: &mut List, entry: Entry<'_>, place: Place) {
    match entry.named {
        Named::Host { name, itself, below } => {
            list.names.push(&name, (itself, below), entry.important, place);
        }
        Named::Urls(pattern) => list.urls.push(pattern, entry.important, place),
    }
}
