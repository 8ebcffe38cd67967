//! Vary (RFC 9111 §4.1): which request a stored response answers, beside its key.
//!
//! Values are compared after normalisation that keeps their meaning: lines are joined, white space around commas goes;
//! for fields whose order and case mean nothing (RFC 9110 §12.5) also those.

use super::headers::values;
use crate::http::headers::{Headers, is_token, list_items};

/// The request fields that a response was selected by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// In lower case, sorted, and the value that the request had: None where it had none.
    fields: Box<[Selector]>,
}

/// The name of a request field, and its normalised value, if it had one.
pub type Selector = (Box<str>, Option<Box<[u8]>>);

/// More fields in a Vary than this are taken for `*`: the response is not worth storing.
const MAX_FIELDS: usize = 16;

impl Selection {
    /// What `response` says its selection depended on, with the values of `request`. None where nobody can know: `*`,
    /// and what is no list of field names.
    #[must_use]
    pub fn of(request: &Headers, response: &Headers) -> Option<Self> {
        let mut names: Vec<Box<str>> = Vec::new();
        for name in values(response, "vary").flat_map(list_items) {
            // `*` is the name of no field, though it could be that of one (RFC 9110 §12.5.5).
            if name == b"*" || !is_token(name) {
                return None;
            }
            names.push(String::from_utf8_lossy(name).to_ascii_lowercase().into());
        }
        names.sort_unstable();
        names.dedup();
        if names.len() > MAX_FIELDS {
            return None;
        }
        let fields = names.into_iter().map(|name| {
            let value = normalised(request, &name);
            (name, value)
        });
        Some(Self { fields: fields.collect() })
    }

    /// What a response that depends on these fields, in lower case and sorted, would have been selected by for this
    /// request.
    #[must_use]
    pub fn of_names<'a>(names: impl Iterator<Item = &'a str>, request: &Headers) -> Self {
        Self { fields: names.map(|name| (name.into(), normalised(request, name))).collect() }
    }

    /// Rebuilds what [`Selection::fields`] gave.
    #[must_use]
    pub fn from_fields(fields: Vec<Selector>) -> Self {
        Self { fields: fields.into() }
    }

    /// The names and normalised values.
    pub fn fields(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.fields.iter().map(|(name, value)| (&**name, value.as_deref()))
    }

    /// Whether a request would have been answered with the same response.
    #[must_use]
    pub fn matches(&self, request: &Headers) -> bool {
        self.fields.iter().all(|(name, value)| normalised(request, name) == *value)
    }

    /// Bytes of memory, roughly.
    #[must_use]
    pub fn weight(&self) -> usize {
        let of_field = |(name, value): &Selector| {
            size_of_val(&(name, value)) + name.len() + value.as_ref().map_or(0, |value| value.len()) + 32
        };
        self.fields.iter().map(of_field).sum()
    }
}

/// The value of a request field in the form in which it is compared.
fn normalised(request: &Headers, name: &str) -> Option<Box<[u8]>> {
    let mut lines = values(request, name).peekable();
    lines.peek()?;
    let mut items: Vec<Vec<u8>> = Vec::new();
    match name {
        // Lists without order, of case-insensitive items (RFC 9110 §12.5.2 to §12.5.4).
        "accept-language" | "accept-encoding" | "accept-charset" => {
            items.extend(
                lines.flat_map(list_items).map(without_white_space).map(|item| item.to_ascii_lowercase()),
            );
            items.sort_unstable();
            items.dedup();
        }
        // The same, but parameters of media types may have case (RFC 9110 §8.3.1).
        "accept" => {
            items.extend(lines.flat_map(list_items).map(without_white_space));
            items.sort_unstable();
        }
        // Nothing is known of others: a comma may stand in a quoted value, as in a date.
        _ => items.extend(lines.map(combined)),
    }
    Some(items.join(b",".as_slice()).into())
}

fn without_white_space(item: &[u8]) -> Vec<u8> {
    item.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect()
}

/// A line with the white space around its commas taken away, unless one of its values is quoted.
fn combined(line: &[u8]) -> Vec<u8> {
    if line.contains(&b'"') {
        return line.trim_ascii().to_vec();
    }
    line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect::<Vec<_>>().join(b",".as_slice())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{request, response};
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(vary: &str, stored: &str, asked: &str, expected: Option<bool>) {
        let response = response(200, vary);
        let selection = Selection::of(&request("/", stored).headers, &response.headers);
        let matches = selection.map(|selection| selection.matches(&request("/", asked).headers));
        assert_eq!(matches, expected, "{vary} {stored} {asked}");
    }

    #[test]
    fn what_matches() {
        check("", "Foo: 1\r\n", "Foo: 2\r\n", Some(true));
        check("Vary: Foo\r\n", "Foo: 1\r\n", "fOO: 1\r\n", Some(true));
        check("Vary: Foo\r\n", "Foo: 1\r\n", "Foo: 2\r\n", Some(false));
        check("Vary: Foo\r\n", "Foo: 1\r\n", "", Some(false));
        check("Vary: Foo\r\n", "", "Foo: \r\n", Some(false));
        check("Vary: Foo, Bar\r\n", "Foo: 1\r\n", "Foo: 1\r\n", Some(true));
        check("Vary: Foo\r\nVary: Bar\r\n", "Foo: 1\r\n", "Foo: 1\r\nBar: 1\r\n", Some(false));
    }

    #[test]
    fn a_star_never_matches() {
        for vary in ["*", "*, *", ", *", "*, Foo", "Foo, *", "\r\nVary: *"] {
            check(&format!("Vary: {vary}\r\n"), "", "", None);
        }
    }

    #[test]
    fn what_is_no_list_of_names_never_matches() {
        for vary in ["Accept Foo", "Foo; Bar", "\"Foo\"", "Foo, B@r", "Foo=1", "(Foo)", "Foo, \u{e9}"] {
            check(&format!("Vary: {vary}\r\n"), "", "", None);
        }
        // Empty items are none (RFC 9110 §5.6.1).
        check("Vary: ,, Foo ,\r\n", "Foo: 1\r\n", "Foo: 1\r\n", Some(true));
        check("Vary: \r\n", "", "", Some(true));
    }

    #[test]
    fn normalisation_keeps_the_meaning() {
        let same = |name: &str, stored: &str, asked: &str, expected| {
            check(&format!("Vary: {name}\r\n"), stored, asked, Some(expected));
        };
        same("Foo", "Foo: 1, 2\r\n", "Foo: 1\r\nFoo: 2\r\n", true);
        same("Foo", "Foo: 1,2\r\n", "Foo:  1 ,  2 \r\n", true);
        same("Foo", "Foo: 1,2\r\n", "Foo: 2,1\r\n", false);
        same("Foo", "Foo: \"1, 2\"\r\n", "Foo: \"1,2\"\r\n", false);
        same("Foo", "Foo: a\r\n", "Foo: A\r\n", false);
        same("Accept-Language", "Accept-Language: en, de\r\n", "Accept-Language: De , eN\r\n", true);
        same(
            "Accept-Language",
            "Accept-Language: en;q=0.5, de\r\n",
            "Accept-Language: de, en; q=0.5\r\n",
            true,
        );
        same("Accept-Language", "Accept-Language: en;q=0.5\r\n", "Accept-Language: en\r\n", false);
        same("Accept-Encoding", "Accept-Encoding: gzip, br\r\n", "Accept-Encoding: br,GZIP\r\n", true);
        same("Accept", "Accept: a/b;c=D\r\n", "Accept: a/b;c=d\r\n", false);
    }

    proptest! {
        /// A request always matches what was selected for it, and never what was selected for another value.
        #[test]
        fn only_its_own(a in "[a-z,\" ]{0,8}", b in "[a-z,\" ]{0,8}") {
            let response = response(200, "Vary: X\r\n");
            let of = |value: &str| request("/", &format!("X: {value}\r\n"));
            let selection = Selection::of(&of(&a).headers, &response.headers).unwrap();
            prop_assert!(selection.matches(&of(&a).headers));
            if selection.matches(&of(&b).headers) {
                let squeeze = |text: &str| text.replace(' ', "");
                prop_assert_eq!(squeeze(&a), squeeze(&b));
            }
        }
    }
}
