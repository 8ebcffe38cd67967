//! What stands in Redis. Each key of the cache is a hash, which is removed as a whole:
//!
//! ```text
//! PREFIX KEY                 the hash; it expires when the last that was stored can't be used any more
//!   vNAMES\nSELECTION        a record, for the request fields of these names; `\0` before it, or `\x01` if it is compressed
//!   tTAG                     nothing: one of what is stored has this tag
//! ```

use std::collections::BTreeSet;
use std::io::Read;

use bytes::Bytes;

use crate::cache::body::Body;
use crate::cache::entry::{Entry, Stored};
use crate::cache::key::Key;
use crate::cache::purge;
use crate::cache::store::record::{self, FIXED, MAX_META};
use crate::cache::vary::Selection;
use crate::config::ValueCoding;
use crate::http::headers::Headers;

/// How hard is tried to make a value small: the fastest that is worth it.
const LEVEL: i32 = 1;

/// Tags of one response that are kept. What has more is removed by fewer.
const MAX_TAGS: usize = 64;

/// A value. None: the entry is no whole response in memory.
pub(super) fn encode(key: &Key, entry: &Entry, compression: ValueCoding) -> Option<Vec<u8>> {
    let record = record::whole(key, entry)?;
    let (kind, content) = match compression {
        ValueCoding::None => (0, record),
        // It can't fail but for want of memory.
        ValueCoding::Zstd => (1, zstd::bulk::compress(&record, LEVEL).ok()?),
    };
    Some([&[kind], &content[..]].concat())
}

/// What a value says, if it is one, and for this key. Its body has no more than `most` bytes.
pub(super) fn decode(value: &[u8], key: &Key, most: u64) -> Option<Entry> {
    let (kind, content) = value.split_first()?;
    let record = match kind {
        0 => Bytes::copy_from_slice(content),
        1 => {
            let limit = MAX_META as u64 + FIXED as u64 + most;
            let mut record = Vec::new();
            // A small value may claim to be a large one.
            zstd::Decoder::new(content).ok()?.take(limit).read_to_end(&mut record).ok()?;
            record.into()
        }
        _ => return None,
    };
    let first = record.get(..FIXED)?;
    let fixed = record::fixed(first)?;
    let meta = record::meta(first, record.get(FIXED..FIXED + fixed.meta)?)?;
    let body = record.slice(FIXED + fixed.meta..);
    let is_whole = fixed.body_file == 0 && fixed.body == body.len() as u64 && fixed.body <= most;
    if !is_whole || meta.key != *key || !record::is_intact(&body, &meta.sums) {
        return None;
    }
    Some(Entry { stored: meta.stored, body: Body::whole(&body), part: None })
}

/// The field for what was selected so.
pub(super) fn field(selection: &Selection) -> Vec<u8> {
    let names: Vec<_> = selection.fields().map(|(name, _)| name).collect();
    format!("v{}\n{:016x}", names.join(","), record::selection_hash(selection)).into_bytes()
}

/// Those fields, of all that there are, which may answer this request.
pub(super) fn wanted(fields: &[Vec<u8>], request: &Headers) -> Vec<Vec<u8>> {
    let names: BTreeSet<&str> = fields.iter().filter_map(|field| names(field)).collect();
    let selections = names.into_iter().map(|names| {
        let names = names.split(',').filter(|name| !name.is_empty());
        field(&Selection::of_names(names, request))
    });
    selections.filter(|field| fields.contains(field)).take(super::MAX_VARIANTS).collect()
}

fn names(field: &[u8]) -> Option<&str> {
    let (names, _) = std::str::from_utf8(field).ok()?.strip_prefix('v')?.split_once('\n')?;
    Some(names)
}

/// The fields for the tags of a response.
pub(super) fn tags(stored: &Stored) -> Vec<Vec<u8>> {
    let Some(head) = stored.head.with(b"") else { return Vec::new() };
    let all: BTreeSet<Vec<u8>> = purge::tags(&head.headers).map(tag).collect();
    all.into_iter().take(MAX_TAGS).collect()
}

/// The field for a tag.
pub(super) fn tag(tag: &[u8]) -> Vec<u8> {
    [b"t", tag].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::store::tests::{entry, key, wants};

    #[test]
    fn what_is_written_is_read() {
        for compression in [ValueCoding::None, ValueCoding::Zstd] {
            for length in [0, 10, 70_000, 300_000] {
                let entry = entry("x", &vec![7; length]);
                let value = encode(&key("/"), &entry, compression).unwrap();
                let found = decode(&value, &key("/"), 300_000).unwrap();
                assert_eq!(found.body.held().unwrap().concat(), vec![7; length]);
                assert_eq!(found.stored.head, entry.stored.head);
                assert!(decode(&value, &key("/other"), 300_000).is_none());
                assert!(length == 0 || decode(&value, &key("/"), length as u64 - 1).is_none());
                assert!(
                    (0..value.len().min(500)).all(|cut| decode(&value[..cut], &key("/"), 1 << 20).is_none())
                );
            }
        }
    }

    /// A value of a few hundred bytes that claims to be gigabytes takes no more than a record may.
    #[test]
    fn bombs_are_nothing() {
        let zeros = zstd::bulk::compress(&vec![0; 64 << 20], LEVEL).unwrap();
        assert!(zeros.len() < 10_000);
        assert!(decode(&[&[1], &zeros[..]].concat(), &key("/"), 1 << 20).is_none());
    }

    #[test]
    fn variants_are_told_apart() {
        let (a, b) = (entry("a", b""), entry("b", b""));
        let plain = field(&Selection::default());
        let fields =
            [field(&a.stored.selection), field(&b.stored.selection), plain.clone(), tag(b"t"), b"?".to_vec()];
        assert_eq!(wanted(&fields, &wants("a")), [plain.clone(), fields[0].clone()]);
        assert_eq!(wanted(&fields, &wants("c")), [plain]);
    }

    proptest! {
        #[test]
        fn whatever_is_changed_is_nothing(at: prop::sample::Index, bit in 0..8_u8, compress: bool) {
            let compression = if compress { ValueCoding::Zstd } else { ValueCoding::None };
            let whole = entry("x", &[7; 1000]);
            let mut value = encode(&key("/"), &whole, compression).unwrap();
            let at = at.index(value.len());
            value[at] ^= 1_u8 << bit;
            // What is compressed may survive in parts that mean nothing; then it is what it was.
            let same = decode(&value, &key("/"), 1 << 20)
                .is_none_or(|found| compress && found.body.held().unwrap().concat() == [7; 1000]);
            prop_assert!(same);
        }

        #[test]
        fn no_bytes_panic(mut value: Vec<u8>, fields: Vec<Vec<u8>>) {
            let _ = wanted(&fields, &wants("a"));
            for kind in 0..3 {
                value.insert(0, kind);
                let _ = decode(&value, &key("/"), 1000);
            }
        }
    }
}
