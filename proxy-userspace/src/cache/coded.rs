//! What compression has made of stored bodies, so that it is not made anew with each use. Bounded by weight; what is lost
//! is made again. Bodies are told apart by number: what takes the place of one has another.

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::http::coding::Coding;

/// Compressed forms of bodies.
#[derive(Debug)]
pub struct Coded(Cache<(u64, &'static str), Bytes, Weigh>);

/// A form is taken to weigh so much, for the size of the tables.
const TYPICAL_WEIGHT: u64 = 8 << 10;

/// What one takes beside its content.
const PER_FORM: u64 = 128;

#[derive(Debug, Clone)]
struct Weigh;

impl Weighter<(u64, &'static str), Bytes> for Weigh {
    fn weight(&self, _key: &(u64, &'static str), form: &Bytes) -> u64 {
        form.len() as u64 + PER_FORM
    }
}

impl Coded {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        let items = usize::try_from(capacity / TYPICAL_WEIGHT).unwrap_or(usize::MAX);
        Self(Cache::with_weighter(items.max(16), capacity, Weigh))
    }

    /// From now on there is room for so many bytes.
    pub fn set_capacity(&self, capacity: u64) {
        self.0.set_capacity(capacity);
    }

    /// The body with this number, in this coding.
    #[must_use]
    pub fn find(&self, body: u64, coding: Coding) -> Option<Bytes> {
        self.0.get(&(body, coding.name()))
    }

    pub fn keep(&self, body: u64, coding: Coding, form: Vec<u8>) {
        self.0.insert((body, coding.name()), form.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_apart_and_bounded() {
        let coded = Coded::new(1 << 20);
        coded.keep(1, Coding::Gzip, vec![1; 10]);
        coded.keep(1, Coding::Brotli, vec![2; 20]);
        assert_eq!(coded.find(1, Coding::Gzip).unwrap(), vec![1; 10]);
        assert_eq!(coded.find(1, Coding::Brotli).unwrap(), vec![2; 20]);
        assert!(coded.find(2, Coding::Gzip).is_none() && coded.find(1, Coding::Zstd).is_none());
        (0..1000).for_each(|body| coded.keep(body, Coding::Gzip, vec![0; 10_000]));
        let kept =
            (0..1000).filter_map(|body| coded.find(body, Coding::Gzip)).map(|form| form.len()).sum::<usize>();
        assert!(kept > 0 && kept <= 1 << 20, "{kept}");
    }
}
