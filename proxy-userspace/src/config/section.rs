//! Reads the keys of a section from the tree, and reports what is wrong with each.
//!
//! A key is known because it is asked for: what is left over at the end of a section is unknown.

use super::errors::{Origin, Report};
use super::kinds::optional;
use super::schema::Form;
use super::shape::Kind;
use super::tree::{Entry, Map, Node, Value, join};

/// The longest list that most keys take.
pub(super) const MAX_LIST: usize = 1024;

pub(super) struct Section<'t, 'r> {
    path: String,
    /// Where the section stands, or the section around it where it is absent.
    origin: &'t Origin,
    entries: Option<&'t Map>,
    asked: Vec<&'static str>,
    report: &'r mut Report,
}

impl<'t> Section<'t, '_> {
    /// Reads the whole tree.
    pub(super) fn root<T>(
        tree: &'t Node,
        report: &mut Report,
        read: impl FnOnce(&mut Section<'t, '_>) -> T,
    ) -> T {
        read_section(String::new(), &tree.origin, Some(tree), report, read)
    }

    /// Reads the section below `key`.
    pub(super) fn section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'t, '_>) -> T,
    ) -> T {
        let (path, entry) = self.ask(key, || Form::Section);
        let origin = entry.map_or(self.origin, |entry| &entry.origin);
        read_section(path, origin, entry.map(|entry| &entry.node), self.report, read)
    }

    /// The list of sections at `key`; none where it is absent.
    pub(super) fn sections<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&mut Section<'t, '_>) -> T,
    ) -> Vec<T> {
        self.sections_up_to(key, MAX_LIST, read)
    }

    /// The same for a list that may have another number of entries than most.
    pub(super) fn sections_up_to<T>(
        &mut self,
        key: &'static str,
        most: usize,
        read: impl Fn(&mut Section<'t, '_>) -> T,
    ) -> Vec<T> {
        let (path, entry) = self.ask(key, || Form::Sections(most));
        if self.report.describes() {
            let entry = read_section(path, self.origin, None, self.report, read);
            return vec![entry];
        }
        let Some(items) = entry.and_then(|entry| items(entry, &path, most, self.report)) else {
            return Vec::new();
        };
        let mut section =
            |item: &'t Node| read_section(path.clone(), &item.origin, Some(item), self.report, &read);
        items.iter().map(&mut section).collect()
    }

    /// The value of a key that has no default.
    pub(super) fn required<T>(&mut self, key: &'static str, kind: impl Kind<T>) -> Option<T> {
        if !self.has(key) {
            self.error(&format!("no `{key}`, which it needs"));
        }
        let value = self.read(key, None, optional(kind));
        self.report.require_last();
        value
    }

    /// Whether `key` is given.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.contains_key(key))
    }

    /// Reports what is wrong with the section as a whole.
    pub(super) fn error(&mut self, message: &str) {
        self.report.error(self.origin, &self.path, message);
    }

    /// The value of `key`, or its default where it is absent or wrong.
    #[expect(clippy::needless_pass_by_value, reason = "a kind is made for this one call")]
    pub(super) fn read<T>(&mut self, key: &'static str, default: T, kind: impl Kind<T>) -> T {
        let (path, entry) = self.ask(key, || Form::Value(kind.shape()));
        let Some(entry) = entry else { return default };
        if let Value::Empty = entry.node.value {
            self.report.error(&entry.origin, &path, "no value; leave the key out for its default");
            return default;
        }
        scalar(&entry.node, &path, self.report, &kind).unwrap_or(default)
    }

    /// The list at `key`, or its default where that is absent or wrong.
    #[expect(clippy::needless_pass_by_value, reason = "a kind is made for this one call")]
    pub(super) fn list<T>(&mut self, key: &'static str, default: Vec<T>, kind: impl Kind<T>) -> Vec<T> {
        let (path, entry) = self.ask(key, || Form::List(kind.shape()));
        let Some(entry) = entry else { return default };
        match items(entry, &path, MAX_LIST, self.report) {
            Some(items) => items.iter().filter_map(|item| scalar(item, &path, self.report, &kind)).collect(),
            None => default,
        }
    }

    fn ask(&mut self, key: &'static str, form: impl FnOnce() -> Form) -> (String, Option<&'t Entry>) {
        let path = join(&self.path, key);
        self.report.describe(&path, form);
        self.report.known(path.clone());
        self.asked.push(key);
        (path, self.entries.and_then(|entries| entries.get(key)))
    }
}

/// The items of a list. None: it is none, which was reported.
fn items<'t>(entry: &'t Entry, path: &str, most: usize, report: &mut Report) -> Option<&'t [Node]> {
    let (origin, message) = match &entry.node.value {
        Value::List(items) if items.len() <= most => return Some(items),
        Value::List(items) => {
            (&entry.node.origin, format!("{} entries are too many; at most {most} are taken", items.len()))
        }
        Value::Empty => (&entry.origin, "no value; write [] for an empty list".to_owned()),
        Value::Text(_) | Value::Map(_) => {
            (&entry.node.origin, "not a list; write [a, b] or a line `- a` for each entry".to_owned())
        }
    };
    report.error(origin, path, message);
    None
}

fn read_section<'t, T>(
    path: String,
    origin: &'t Origin,
    node: Option<&'t Node>,
    report: &mut Report,
    read: impl FnOnce(&mut Section<'t, '_>) -> T,
) -> T {
    let entries = match node.map(|node| (&node.origin, &node.value)) {
        Some((_, Value::Map(entries))) => Some(entries),
        None | Some((_, Value::Empty)) => None,
        Some((origin, Value::Text(_) | Value::List(_))) => {
            report.error(origin, &path, "not a section; write its keys below it, as `key: value`");
            None
        }
    };
    let mut section = Section { path, origin, entries, asked: Vec::new(), report };
    let value = read(&mut section);
    let Section { path, asked, report, .. } = section;
    for (key, entry) in entries.into_iter().flatten() {
        if !asked.contains(&key.as_str()) {
            report.unknown(&entry.origin, join(&path, key));
        }
    }
    value
}

fn scalar<T>(node: &Node, path: &str, report: &mut Report, kind: &impl Kind<T>) -> Option<T> {
    match &node.value {
        Value::Text(text) => match kind.parse(text) {
            Ok(value) => return Some(value),
            Err(fault) => report.add(&node.origin, path, fault.message, fault.nearest),
        },
        Value::Empty => report.error(&node.origin, path, "an entry without a value"),
        Value::List(_) => report.error(&node.origin, path, "a list where a single value belongs"),
        Value::Map(_) => report.error(&node.origin, path, "keys below it, where a single value belongs"),
    }
    None
}
