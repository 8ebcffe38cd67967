//! A stored response as bytes, for stores that keep it outside of memory. Everything is checked before it is used: a
//! record that was cut off, damaged, or written by something else is none.
//!
//! The checksums (XXH3) tell accidents from content. They are no signature: who may write to a store may say what it
//! holds.
//!
//! ```text
//! offset  bytes  all numbers little-endian
//!      0      8  "weircach"
//!      8      4  version
//!     12      4  length of the meta data
//!     16      8  length of the body
//!     24      8  0 if the body follows the meta data, else the number of the file that it is in
//!     32      8  checksum of the 32 bytes before and of the meta data
//!     40         meta data, body
//! ```

use std::sync::Arc;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::cache::conditional::Validators;
use crate::cache::entry::{Entry, Stored};
use crate::cache::freshness::Freshness;
use crate::cache::key::Key;
use crate::cache::stored_head::StoredHead;
use crate::cache::vary::Selection;
use crate::http::trailers;

/// Changes with every change of what is written here. What has another is not read.
pub(super) const VERSION: u32 = 3;

const MAGIC: &[u8; 8] = b"weircach";

/// What stands before the meta data.
pub(super) const FIXED: usize = 40;

/// The most of meta data that is read: heads have up to 1 MiB, and each checksum of a body stands for [`CHUNK`] bytes.
pub(super) const MAX_META: usize = 16 << 20;

/// Bodies are checked in parts of this size, so that a large one need not be read as a whole.
pub const CHUNK: u64 = 256 << 10;

/// The first bytes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fixed {
    pub meta: usize,
    pub body: u64,
    pub body_file: u64,
    checksum: u64,
}

/// What a record says of a response, beside its body.
#[derive(Debug, Clone)]
pub(super) struct Meta {
    pub key: Key,
    pub stored: Stored,
    /// Of the body.
    pub length: u64,
    /// One for each [`CHUNK`] of the body.
    pub sums: Box<[u64]>,
}

/// The record without its body.
pub(super) fn begin(key: &Key, stored: &Stored, sums: &[u64], (body, body_file): (u64, u64)) -> Vec<u8> {
    let mut bytes = vec![0; FIXED];
    write_meta(key, stored, sums, &mut bytes);
    let meta = u32::try_from(bytes.len() - FIXED).unwrap_or(u32::MAX);
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&meta.to_le_bytes());
    bytes[16..24].copy_from_slice(&body.to_le_bytes());
    bytes[24..32].copy_from_slice(&body_file.to_le_bytes());
    let checksum = checksum(&bytes[..32], &bytes[FIXED..]);
    bytes[32..40].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// A whole record, for an entry whose body is in memory. None: it is not, or the entry is a part of something.
pub(super) fn whole(key: &Key, entry: &Entry) -> Option<Vec<u8>> {
    let pieces = entry.body.held().filter(|_| entry.part.is_none())?;
    let mut sums = Sums::default();
    pieces.iter().for_each(|piece| sums.update(piece));
    let mut bytes = begin(key, &entry.stored, &sums.finish(), (entry.body.len(), 0));
    pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
    Some(bytes)
}

/// Reads the first [`FIXED`] bytes.
pub(super) fn fixed(bytes: &[u8]) -> Option<Fixed> {
    let mut reader = Reader(bytes);
    let right = reader.take(8)? == MAGIC && reader.u32()? == VERSION;
    let fixed = Fixed {
        meta: reader.u32()? as usize,
        body: reader.u64()?,
        body_file: reader.u64()?,
        checksum: reader.u64()?,
    };
    (right && fixed.meta <= MAX_META).then_some(fixed)
}

/// Reads the meta data. `first` are the record's first [`FIXED`] bytes.
pub(super) fn meta(first: &[u8], bytes: &[u8]) -> Option<Meta> {
    let fixed = fixed(first)?;
    if bytes.len() != fixed.meta || checksum(first.get(..32)?, bytes) != fixed.checksum {
        return None;
    }
    let mut reader = Reader(bytes);
    let meta = read_meta(&mut reader, fixed.body)?;
    let right_count = meta.sums.len() as u64 == fixed.body.div_ceil(CHUNK);
    (reader.0.is_empty() && right_count).then_some(meta)
}

/// Whether a body is the one that these checksums were taken of.
pub(super) fn is_intact(body: &[u8], sums: &[u64]) -> bool {
    let chunks = body.chunks(CHUNK as usize);
    chunks.len() == sums.len() && chunks.zip(sums).all(|(chunk, sum)| xxh3_64(chunk) == *sum)
}

/// The checksums of a body that comes in pieces.
#[derive(Default)]
pub(super) struct Sums {
    done: Vec<u64>,
    hash: Box<Xxh3>,
    hashed: u64,
}

impl Sums {
    pub(super) fn update(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let room = usize::try_from(CHUNK - self.hashed).unwrap_or(usize::MAX);
            let (now, later) = piece.split_at(room.min(piece.len()));
            self.hash.update(now);
            self.hashed += now.len() as u64;
            if self.hashed == CHUNK {
                self.end_chunk();
            }
            piece = later;
        }
    }

    pub(super) fn finish(mut self) -> Box<[u64]> {
        if self.hashed > 0 {
            self.end_chunk();
        }
        self.done.into()
    }

    fn end_chunk(&mut self) {
        self.done.push(self.hash.digest());
        self.hash.reset();
        self.hashed = 0;
    }
}

/// A number that differs between the selections that Vary makes of one key.
pub(super) fn selection_hash(selection: &Selection) -> u64 {
    let mut bytes = Vec::new();
    write_selection(selection, &mut bytes);
    xxh3_64(&bytes)
}

fn checksum(first: &[u8], meta: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(first);
    hash.update(meta);
    hash.digest()
}

fn write_meta(key: &Key, stored: &Stored, sums: &[u64], out: &mut Vec<u8>) {
    let freshness = &stored.freshness;
    put(key.as_str().as_bytes(), out);
    out.extend_from_slice(&stored.head.status().to_le_bytes());
    put(stored.head.lines(), out);
    for number in [
        stored.date,
        freshness.received,
        freshness.initial_age,
        freshness.lifetime,
        freshness.while_revalidate,
        freshness.if_error,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for switch in
        [freshness.heuristic, freshness.always_validate, freshness.forbids_stale, freshness.immutable]
    {
        out.push(switch.into());
    }
    put_optional(stored.from.map(|from| from.to_string()).as_deref().map(str::as_bytes), out);
    put_optional(stored.validators.etag.as_deref(), out);
    put_optional(stored.validators.last_modified.as_deref(), out);
    put_optional(stored.trailers.as_deref(), out);
    write_selection(&stored.selection, out);
    out.extend_from_slice(&(sums.len() as u64).to_le_bytes());
    sums.iter().for_each(|sum| out.extend_from_slice(&sum.to_le_bytes()));
}

fn read_meta(reader: &mut Reader<'_>, length: u64) -> Option<Meta> {
    let key = Key::from_text(std::str::from_utf8(reader.bytes()?).ok()?);
    let status = u16::from_le_bytes(reader.take(2)?.try_into().ok()?);
    let head = StoredHead::from_lines(status, reader.bytes()?);
    // What is read once can be sent ever after.
    head.with(b"").filter(|parsed| parsed.status == status)?;
    let date = reader.u64()?;
    let freshness = Freshness {
        received: reader.u64()?,
        initial_age: reader.u64()?,
        lifetime: reader.u64()?,
        while_revalidate: reader.u64()?,
        if_error: reader.u64()?,
        heuristic: reader.switch()?,
        always_validate: reader.switch()?,
        forbids_stale: reader.switch()?,
        immutable: reader.switch()?,
    };
    let from = match reader.optional()? {
        Some(text) => Some(std::str::from_utf8(&text).ok()?.parse().ok()?),
        None => None,
    };
    let validators = Validators { etag: reader.optional()?, last_modified: reader.optional()? };
    let trailers = reader.optional()?.map(Arc::from);
    // As with the head.
    trailers.as_deref().is_none_or(|section| trailers::parse(section).is_ok()).then_some(())?;
    let selection = read_selection(reader)?;
    let count = usize::try_from(reader.u64()?).ok().filter(|count| *count <= reader.0.len() / 8)?;
    let sums = (0..count).map(|_| reader.u64()).collect::<Option<_>>()?;
    let stored = Stored { head, freshness, selection, validators, trailers, date, from };
    Some(Meta { key, stored, length, sums })
}

fn write_selection(selection: &Selection, out: &mut Vec<u8>) {
    out.extend_from_slice(&(selection.fields().count() as u64).to_le_bytes());
    for (name, value) in selection.fields() {
        put(name.as_bytes(), out);
        put_optional(value, out);
    }
}

fn read_selection(reader: &mut Reader<'_>) -> Option<Selection> {
    let count = reader.u64()?;
    let mut fields = Vec::new();
    for _ in 0..count {
        let name = std::str::from_utf8(reader.bytes()?).ok()?;
        fields.push((name.into(), reader.optional()?));
    }
    Some(Selection::from_fields(fields))
}

fn put(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_optional(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    out.push(bytes.is_some().into());
    if let Some(bytes) = bytes {
        put(bytes, out);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn switch(&mut self) -> Option<bool> {
        match self.take(1)? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u64()?).ok()?;
        self.take(length)
    }

    fn optional(&mut self) -> Option<Option<Box<[u8]>>> {
        Some(if self.switch()? { Some(self.bytes()?.into()) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::store::tests::entry;

    fn key() -> Key {
        Key::from_text("http://a.example:80/x?y")
    }

    /// What a store makes of a record.
    fn read(bytes: &[u8]) -> Option<(Meta, &[u8])> {
        let first = bytes.get(..FIXED)?;
        let fixed = fixed(first)?;
        let (meta, body) = bytes[FIXED..].split_at_checked(fixed.meta)?;
        let meta = super::meta(first, meta)?;
        (body.len() as u64 == fixed.body && is_intact(body, &meta.sums)).then_some((meta, body))
    }

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, CHUNK as usize - 1, CHUNK as usize, CHUNK as usize + 1, 700_000] {
            let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let mut entry = entry("some value", &body);
            if length % 2 == 0 {
                Arc::make_mut(&mut entry).stored.trailers = Some(b"X: 1\r\n\r\n".as_slice().into());
            }
            let bytes = whole(&key(), &entry).unwrap();
            let (meta, found) = read(&bytes).unwrap();
            assert_eq!((&meta.key, found), (&key(), &body[..]));
            let (a, b) = (&meta.stored, &entry.stored);
            assert_eq!((&a.head, &a.freshness, &a.selection), (&b.head, &b.freshness, &b.selection));
            assert_eq!((&a.validators, &a.trailers, a.date), (&b.validators, &b.trailers, b.date));
        }
    }

    #[test]
    fn whatever_is_cut_off_is_nothing() {
        let bytes = whole(&key(), &entry("x", &[7; 1000])).unwrap();
        assert!((0..bytes.len()).all(|length| read(&bytes[..length]).is_none()));
    }

    proptest! {
        #[test]
        fn whatever_is_changed_is_nothing(at: prop::sample::Index, bit in 0..8_u8) {
            let mut bytes = whole(&key(), &entry("x", &[7; 1000])).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(read(&bytes).is_none());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, meta: Vec<u8>) {
            let _ = read(&bytes);
            let _ = read_meta(&mut Reader(&meta), 0);
            let first = begin(&key(), &entry("x", b"").stored, &[], (0, 0));
            let _ = super::meta(&first[..FIXED], &meta);
        }
    }
}
