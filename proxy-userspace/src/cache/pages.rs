//! Large bodies as pages of a file without a name (memfd_create(2)): the kernel sends them from there by sendfile(2),
//! which copies nothing, and everybody else reads them through a mapping, as any bytes.
//!
//! A place in the file is never used twice. What is under way to a client are its pages themselves: were another body
//! written there, that client would get it. A body that nobody holds any more is punched out; pages under way live on
//! until they have arrived. Offsets are no memory, and at 10 GB/s last for 29 years.

mod mapping;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::net::place::Place;
use mapping::Mapping;

/// Bytes of the file that are mapped at once: a mapping for each body would be more than a process may have
/// (vm.max_map_count).
const MAPPED: u64 = 64 << 20;

/// What a body's length is rounded up to: no page may have parts of two bodies.
const PAGE: u64 = 4096;

/// The file, and what of it is free.
struct Pages {
    file: File,
    free: Mutex<Free>,
}

/// The part of the newest mapping that no body has had.
struct Free {
    mapping: Option<Arc<Mapping>>,
    /// Where in the file it begins, and where the mapping ends.
    from: u64,
    end: u64,
}

/// A body's pages.
struct Kept {
    mapping: Arc<Mapping>,
    file: &'static File,
    offset: u64,
    length: usize,
}

/// Keeps content of `length` bytes. What it is then, and where in the file. None where the system has no place for it.
#[must_use]
pub fn keep(pieces: &[Bytes], length: u64) -> Option<(Bytes, Place)> {
    static PAGES: OnceLock<Option<Pages>> = OnceLock::new();
    let pages = PAGES.get_or_init(Pages::make).as_ref()?;
    let kept = pages.reserve(length)?;
    let mut at = kept.offset;
    for piece in pieces {
        // Were they more than was said, they would be in the next body's place.
        let end = at + piece.len() as u64;
        if end > kept.offset + length || pages.file.write_all_at(piece, at).is_err() {
            return None;
        }
        at = end;
    }
    (at == kept.offset + length).then(|| {
        let place = Place::new(&pages.file, kept.offset);
        (Bytes::from_owner(kept), place)
    })
}

/// The memory that so much content takes.
#[must_use]
pub fn rounded(length: u64) -> u64 {
    length.next_multiple_of(PAGE)
}

impl Pages {
    fn make() -> Option<Self> {
        // Offsets only grow: to go beyond such a limit would be a signal's death.
        if getrlimit(Resource::RLIMIT_FSIZE).ok()?.0 != RLIM_INFINITY {
            return None;
        }
        let file = memfd_create(c"weir-cache", MFdFlags::MFD_CLOEXEC).ok()?;
        let free = Free { mapping: None, from: 0, end: 0 };
        Some(Self { file: file.into(), free: Mutex::new(free) })
    }

    /// Pages for content of `length` bytes, which is more than none.
    fn reserve(&'static self, length: u64) -> Option<Kept> {
        let room = rounded(length);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.end - free.from < room {
            let mapped = room.max(MAPPED);
            let end = free.end.checked_add(mapped)?;
            free.mapping = Some(Arc::new(Mapping::of(&self.file, free.end, usize::try_from(mapped).ok()?)?));
            (free.from, free.end) = (free.end, end);
        }
        let offset = free.from;
        free.from += room;
        let mapping = Arc::clone(free.mapping.as_ref()?);
        Some(Kept { mapping, file: &self.file, offset, length: usize::try_from(length).ok()? })
    }
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        self.mapping.content(self.offset, self.length)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let room = rounded(self.length as u64);
        let (Ok(offset), Ok(room)) = (i64::try_from(self.offset), i64::try_from(room)) else { return };
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // It can't fail where there is something to punch out.
        let _ = fallocate(self.file, punch, offset, room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::fstat;

    fn content(length: usize, seed: usize) -> Vec<Bytes> {
        let byte = |index: usize| (index.wrapping_mul(31) + seed) as u8;
        let whole: Bytes = (0..length).map(byte).collect::<Vec<_>>().into();
        (0..length).step_by(10_000).map(|at| whole.slice(at..length.min(at + 10_000))).collect()
    }

    #[test]
    fn what_is_kept_is_what_was_given_and_lies_where_it_says() {
        let lengths = [1, 4095, 4096, 4097, 100_000, 1 << 20, (64 << 20) - 5000, (64 << 20) + 1, 7];
        let kept: Vec<_> = (0..lengths.len())
            .map(|index| (index, keep(&content(lengths[index], index), lengths[index] as u64).unwrap()))
            .collect();
        for (index, (bytes, _)) in &kept {
            assert!(*bytes == content(lengths[*index], *index).concat(), "{} bytes", lengths[*index]);
        }
    }

    #[test]
    fn what_is_not_as_long_as_was_said_is_not_kept() {
        assert!(keep(&content(10, 0), 11).is_none());
        assert!(keep(&content(10, 0), 9).is_none());
    }

    #[test]
    fn pages_go_with_the_last_who_holds_them() {
        let pages: &'static Pages = Box::leak(Box::new(Pages::make().unwrap()));
        let blocks = || fstat(&pages.file).unwrap().st_blocks * 512;
        let kept: Vec<_> = (0..10)
            .map(|index| {
                let kept = pages.reserve(100_000).unwrap();
                pages.file.write_all_at(&content(100_000, index).concat(), kept.offset).unwrap();
                Bytes::from_owner(kept)
            })
            .collect();
        assert_eq!(blocks(), 10 * 102_400);
        let part = kept[3].slice(50_000..60_000);
        drop(kept);
        assert_eq!(blocks(), 102_400);
        assert!(part == content(100_000, 3).concat()[50_000..60_000]);
        drop(part);
        assert_eq!(blocks(), 0);
    }
}
