//! The files of the disk store. A file appears under its name when it is complete, by rename(2), and never changes:
//! whenever weir ends, what is there is whole, or it is in `tmp`. What nobody has written through to the device may be
//! torn after a crash of the machine; checksums find that.
//!
//! ```text
//! PATH/ab/ab…-SELECTION-SERIAL-BODY-HINTS   a record; the first number is that of its key
//! PATH/ab/ab…-SERIAL.body                   a body that is too large to stand in its record
//! PATH/tmp/SERIAL                           what is being written
//! PATH/format                               which version of records this is all written in
//! ```
//!
//! What has no such name is somebody else's, and left alone.

use std::fmt;
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::{AccessFlags, access};

use crate::cache::purge::Hints;
use crate::cache::store::record::{self, FIXED, Meta};

/// Why a folder can't be used for a disk store.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("cache.disk.path: {0} can't be used: {1}; make it, and let weir's user write there")]
    Folder(PathBuf, io::Error),
    #[error("cache.disk.path: another weir uses {0}; give each a folder of its own")]
    InUse(PathBuf),
    #[error(
        "cache.disk.path: everybody may write to {0} (mode {1:o}): who does decides what is served; chmod o-w"
    )]
    WorldWritable(PathBuf, u32),
    #[error("cache.disk: can't start a thread: {0}")]
    Thread(io::Error),
}

/// The store's folder, which no other weir may use meanwhile.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    lock: Flock<File>,
}

/// What the name of a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    pub key: u128,
    pub selection: u64,
    /// Later records have greater ones.
    pub serial: u64,
    /// The serial of its body's file; 0 if the body is in the record.
    pub body: u64,
    /// What it may be found by: operators' questions need not read all records.
    pub hints: Hints,
}

/// What was found of a record.
pub(super) enum Read {
    /// `body` is None if it is in a file of its own.
    Record { meta: Box<Meta>, body: Option<Vec<u8>> },
    /// It is for something else than was asked for.
    Other,
    /// It is no record, or not a whole one, or the body's file is gone.
    Damaged,
}

impl Folder {
    /// Makes the folder if need be, and takes it.
    pub(super) fn take(path: &Path) -> Result<Self, DiskError> {
        let bad = |error| DiskError::Folder(path.into(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(bad)?;
        let folder = File::open(path).map_err(bad)?;
        let mode = folder.metadata().map_err(bad)?.mode();
        if mode & 0o002 != 0 {
            return Err(DiskError::WorldWritable(path.into(), mode & 0o7777));
        }
        Self::lock(path, folder)
    }

    /// The folder of a running weir, which hands its lock over: both share it, as it belongs to the open file
    /// description. If it is another folder's, this one is taken.
    pub(super) fn adopt(path: &Path, lock: OwnedFd) -> Result<Self, DiskError> {
        let lock = File::from(lock);
        let place = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let theirs = lock.metadata().map(place).ok();
        let is_same = theirs.is_some() && theirs == std::fs::metadata(path).map(place).ok();
        if is_same { Self::lock(path, lock) } else { Self::take(path) }
    }

    /// Another descriptor of the lock.
    pub(super) fn lock_descriptor(&self) -> io::Result<OwnedFd> {
        self.lock.as_fd().try_clone_to_owned()
    }

    fn lock(path: &Path, folder: File) -> Result<Self, DiskError> {
        let bad = |error| DiskError::Folder(path.into(), error);
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path: path.into(), lock }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(DiskError::InUse(path.into())),
            Err((_, errno)) => Err(bad(errno.into())),
        }
    }

    /// Whether anything can be written there.
    pub(super) fn probe(&self) -> io::Result<()> {
        make_folder(&self.unfinished())?;
        Ok(access(&self.unfinished(), AccessFlags::W_OK)?)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folders that have records, and that of unfinished files.
    pub(super) fn shards(&self) -> impl Iterator<Item = PathBuf> + '_ {
        (0..=u8::MAX).map(|number| self.path.join(format!("{number:02x}")))
    }

    pub(super) fn unfinished(&self) -> PathBuf {
        self.path.join("tmp")
    }

    fn shard(&self, key: u128) -> PathBuf {
        self.path.join(format!("{:02x}", key >> 120))
    }

    fn record(&self, name: &Name) -> PathBuf {
        self.shard(name.key).join(name.to_string())
    }

    fn body(&self, key: u128, serial: u64) -> PathBuf {
        self.shard(key).join(format!("{key:032x}-{serial:016x}.body"))
    }

    fn temporary(&self, serial: u64) -> PathBuf {
        self.unfinished().join(format!("{serial:016x}"))
    }

    /// Writes a record as a whole, or nothing.
    pub(super) fn write(&self, name: &Name, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.temporary(name.serial);
        let written = self
            .begin(name.serial)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| self.put(&temporary, &self.record(name)));
        if written.is_err() {
            // There may be none.
            let _ = std::fs::remove_file(temporary);
        }
        written
    }

    /// A new file, under a name of no meaning.
    pub(super) fn begin(&self, serial: u64) -> io::Result<File> {
        let path = self.temporary(serial);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_folder(&self.unfinished())?;
                options.open(&path)
            }
            opened => opened,
        }
    }

    /// Gives a body that is complete its name.
    pub(super) fn put_body(&self, key: u128, serial: u64) -> io::Result<()> {
        self.put(&self.temporary(serial), &self.body(key, serial))
    }

    pub(super) fn abandon(&self, serial: u64) {
        // There may be none.
        let _ = std::fs::remove_file(self.temporary(serial));
    }

    fn put(&self, from: &Path, to: &Path) -> io::Result<()> {
        match std::fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_folder(to.parent().unwrap_or(&self.path))?;
                std::fs::rename(from, to)
            }
            renamed => renamed,
        }
    }

    /// Reads a record, and its body if `wanted` says that it is the right one.
    pub(super) fn read(&self, name: &Name, wanted: impl FnOnce(&Meta) -> bool) -> io::Result<Read> {
        let file = open(&self.record(name))?;
        let length = file.metadata()?.len();
        let mut first = [0; FIXED];
        if read(&file, &mut first, 0)?.is_none() {
            return Ok(Read::Damaged);
        }
        let Some(fixed) = record::fixed(&first) else { return Ok(Read::Damaged) };
        let inside = if fixed.body_file == 0 { fixed.body } else { 0 };
        let whole = (FIXED + fixed.meta) as u64;
        if whole.checked_add(inside) != Some(length) || fixed.body_file != name.body {
            return Ok(Read::Damaged);
        }
        let mut meta = vec![0; fixed.meta];
        let meta = match read(&file, &mut meta, FIXED as u64)?.and_then(|()| record::meta(&first, &meta)) {
            Some(meta) => meta,
            None => return Ok(Read::Damaged),
        };
        if !wanted(&meta) {
            return Ok(Read::Other);
        }
        let body = match fixed.body_file {
            0 => {
                let mut body = vec![0; usize::try_from(inside).map_err(io::Error::other)?];
                let is_whole = read(&file, &mut body, whole)?.is_some();
                if !is_whole || !record::is_intact(&body, &meta.sums) {
                    return Ok(Read::Damaged);
                }
                Some(body)
            }
            _ => None,
        };
        Ok(Read::Record { meta: Box::new(meta), body })
    }

    /// Opens a body that is to have so many bytes.
    pub(super) fn open_body(&self, key: u128, serial: u64, length: u64) -> io::Result<File> {
        let file = open(&self.body(key, serial))?;
        match file.metadata()?.len() == length {
            true => Ok(file),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    pub(super) fn remove(&self, name: &Name) -> io::Result<()> {
        removed(std::fs::remove_file(self.record(name)))
    }

    pub(super) fn remove_body(&self, key: u128, serial: u64) -> io::Result<()> {
        removed(std::fs::remove_file(self.body(key, serial)))
    }
}

/// What is gone already is removed.
fn removed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Opens a file for reading: no link, and nothing else that only looks like one (a pipe would make us wait).
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => io::ErrorKind::InvalidData.into(),
        _ => error,
    })?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Fills `bytes` from `offset` on. None: the file ends before.
pub(super) fn read(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<Option<()>> {
    match file.read_exact_at(bytes, offset) {
        Ok(()) => Ok(Some(())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

impl Name {
    /// Reads a record's name.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (key, rest) = text.split_once('-')?;
        let (selection, rest) = rest.split_once('-')?;
        let (serial, rest) = rest.split_once('-')?;
        let (body, hints) = rest.split_once('-')?;
        let name = Self {
            key: u128::from_str_radix(key, 16).ok()?,
            selection: number(selection)?,
            serial: number(serial)?,
            body: number(body)?,
            hints: Hints(number(hints)?),
        };
        // Nothing but what we write.
        (name.to_string() == text).then_some(name)
    }
}

/// The key and serial of a body's name.
pub(super) fn parse_body(text: &str) -> Option<(u128, u64)> {
    let (key, serial) = text.strip_suffix(".body")?.split_once('-')?;
    let (key, serial) = (u128::from_str_radix(key, 16).ok()?, number(serial)?);
    (format!("{key:032x}-{serial:016x}.body") == text).then_some((key, serial))
}

/// The serial of an unfinished file.
pub(super) fn parse_temporary(text: &str) -> Option<u64> {
    number(text).filter(|serial| format!("{serial:016x}") == text)
}

fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

impl fmt::Display for Name {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, selection, serial, body, hints: Hints(hints) } = self;
        write!(text, "{key:032x}-{selection:016x}-{serial:016x}-{body:016x}-{hints:016x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = Name { key: 0xab << 120 | 7, selection: u64::MAX, serial: 3, body: 0, hints: Hints(9) };
        let text = name.to_string();
        assert!(text.starts_with("ab0000") && text.len() == 100, "{text}");
        assert_eq!(Name::parse(&text), Some(name));
        for other in [
            "",
            "README",
            "ab-1-2-3-4",
            &text[..83],
            &text.to_uppercase(),
            &format!("{text}x"),
            &format!("+{text}"),
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
            assert_eq!(parse_body(other), None, "{other}");
            assert_eq!(parse_temporary(other), None, "{other}");
        }
        assert_eq!(parse_body(&format!("{:032x}-{:016x}.body", 5, 6)), Some((5, 6)));
        assert_eq!(parse_temporary(&format!("{:016x}", 6)), Some(6));
    }

    #[test]
    fn one_weir_a_folder_and_nobody_elses() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let taken = Folder::take(&path).unwrap();
        assert!(matches!(Folder::take(&path), Err(DiskError::InUse(_))));
        drop(taken);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(matches!(Folder::take(&path), Err(DiskError::WorldWritable(_, 0o777))));
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(matches!(Folder::take(&folder.path().join("file")), Err(DiskError::Folder(..))));
    }
}
