//! A part of the file as memory.
#![expect(unsafe_code, reason = "mapped memory")]

use std::ffi::c_void;
use std::fs::File;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping, for reading.
pub(super) struct Mapping {
    start: NonNull<c_void>,
    offset: u64,
    length: usize,
}

// SAFETY: it is memory that only `munmap` in `drop` changes, which takes it whole.
unsafe impl Send for Mapping {}
// SAFETY: as above; through a shared reference it is only read.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `length` bytes of the file, from `offset` on. The file may be shorter. None: the system has no room for it.
    pub(super) fn of(file: &File, offset: u64, length: usize) -> Option<Self> {
        let (from, size) = (i64::try_from(offset).ok()?, NonZeroUsize::new(length)?);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe { mmap(None, size, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, from) };
        Some(Self { start: start.ok()?, offset, length })
    }

    /// What lies in the file from `offset` on, which must have been written, and is not changed while it is borrowed: a
    /// place belongs to one body, and is punched out when nobody holds that.
    pub(super) fn content(&self, offset: u64, length: usize) -> &[u8] {
        let within = usize::try_from(offset - self.offset).unwrap_or(usize::MAX);
        assert!(within <= self.length && length <= self.length - within, "a body lies within its mapping");
        // SAFETY: within the mapping, which lives as long as the borrow; written, so there are pages behind it; and
        // nobody writes there.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<u8>().add(within), length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `of` with this length; nobody borrows from it any more.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}
