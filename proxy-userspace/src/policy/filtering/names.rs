//! Names, however many: what a list says of a name, by one look for the name and one for each domain above it.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Place;
use super::table::Table;

/// What is said of a name, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    start: u32,
    length: u8,
    pub(super) itself: bool,
    pub(super) below: bool,
    pub(super) important: bool,
    pub(super) place: Place,
}

/// A list of names.
#[derive(Debug, Default)]
pub(super) struct Names {
    text: Vec<u8>,
    entries: Vec<Entry>,
    table: Table,
    /// Differs from run to run: nobody can choose names that meet in the table.
    seed: u64,
}

impl Names {
    /// Names one more. [`Names::finish`] has to follow.
    pub(super) fn push(&mut self, name: &str, (itself, below): (bool, bool), important: bool, place: Place) {
        // The number of entries is bounded: 4 million names of 253 bytes are less than 2^32.
        let start = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        self.text.extend_from_slice(name.as_bytes());
        self.entries.push(Entry { start, length, itself, below, important, place });
    }

    /// Makes what was pushed findable. What is named more than once has all that is said of it, at its first place.
    pub(super) fn finish(&mut self, seed: u64) {
        self.seed = seed;
        self.table = Table::for_count(self.entries.len());
        let pushed = std::mem::take(&mut self.entries);
        for entry in pushed {
            let name = name_of(&self.text, &entry);
            let hash = xxh3_64_with_seed(name, seed);
            let same = self.table.find(hash, |at| name_of(&self.text, &self.entries[at as usize]) == name);
            match same.and_then(|at| self.entries.get_mut(at as usize)) {
                Some(same) => {
                    same.itself |= entry.itself;
                    same.below |= entry.below;
                    same.important |= entry.important;
                }
                None => {
                    self.table.insert(hash, u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
                    self.entries.push(entry);
                }
            }
        }
        self.entries.shrink_to_fit();
        self.text.shrink_to_fit();
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What the list says of a name: in lower case, without a dot at the end. Of several, what is important counts
    /// first, then what is nearest to the name.
    pub(super) fn find(&self, name: &str) -> Option<(&Entry, &str)> {
        if self.entries.is_empty() {
            return None;
        }
        let mut found = self.look(name).filter(|(entry, _)| entry.itself);
        let mut rest = name;
        while let Some((_, above)) = rest.split_once('.') {
            if found.is_some_and(|(entry, _)| entry.important) {
                break;
            }
            let next = self.look(above).filter(|(entry, _)| entry.below);
            match (&found, next) {
                (Some(_), Some((entry, _))) if !entry.important => {}
                (_, Some(next)) => found = Some(next),
                (_, None) => {}
            }
            rest = above;
        }
        found
    }

    fn look(&self, name: &str) -> Option<(&Entry, &str)> {
        let hash = xxh3_64_with_seed(name.as_bytes(), self.seed);
        let is = |at: u32| name_of(&self.text, &self.entries[at as usize]) == name.as_bytes();
        let at = self.table.find(hash, is)?;
        let entry = &self.entries[at as usize];
        // What was pushed was text.
        Some((entry, std::str::from_utf8(name_of(&self.text, entry)).unwrap_or_default()))
    }
}

fn name_of<'a>(text: &'a [u8], entry: &Entry) -> &'a [u8] {
    let start = entry.start as usize;
    &text[start..start + usize::from(entry.length)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(said: &[(&str, bool, bool, bool)]) -> Names {
        let mut names = Names::default();
        for (name, itself, below, important) in said {
            names.push(name, (*itself, *below), *important, Place::default());
        }
        names.finish(1);
        names
    }

    #[track_caller]
    fn check(names: &Names, name: &str, expected: Option<&str>) {
        assert_eq!(names.find(name).map(|(_, found)| found), expected, "{name}");
    }

    #[test]
    fn a_name_is_found_by_itself_and_by_what_is_above_it() {
        let names = names(&[
            ("a.example", true, false, false),
            ("b.example", false, true, false),
            ("c.example", true, true, false),
            ("192.0.2.7", true, false, false),
        ]);
        check(&names, "a.example", Some("a.example"));
        check(&names, "x.a.example", None);
        check(&names, "xa.example", None);
        check(&names, "b.example", None);
        check(&names, "y.x.b.example", Some("b.example"));
        check(&names, "c.example", Some("c.example"));
        check(&names, "x.c.example", Some("c.example"));
        check(&names, "example", None);
        check(&names, "192.0.2.7", Some("192.0.2.7"));
        check(&names, "", None);
    }

    #[test]
    fn what_is_said_twice_is_one_entry_and_what_is_important_counts_first() {
        let names = names(&[
            ("a.example", true, false, false),
            ("a.example", false, true, false),
            ("b.a.example", true, false, false),
            ("example", false, true, true),
        ]);
        assert_eq!(names.len(), 3);
        check(&names, "x.a.example", Some("example"));
        check(&names, "b.a.example", Some("example"));
    }
}
