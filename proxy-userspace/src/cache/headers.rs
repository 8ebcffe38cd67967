//! How the fields that a cache reads are taken apart. `http::headers` knows names that forwarding decides by; those
//! that only a cache cares for are looked up by name here.

use crate::http::headers::Headers;

/// The values of all fields of this name, in order. `name` is in lower case.
pub fn values<'a>(headers: &'a Headers, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes()))
        .map(|field| field.value)
}

/// The value of a field that may occur once only; None where it is absent or given more than once.
#[must_use]
pub fn single<'a>(headers: &'a Headers, name: &'a str) -> Option<&'a [u8]> {
    let mut values = values(headers, name);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Whether there is such a field.
#[must_use]
pub fn has(headers: &Headers, name: &str) -> bool {
    values(headers, name).next().is_some()
}

/// Passes each `token[=value]` of a field to `take` (RFC 9111 §5.2); the quotes of a quoted value are taken off.
/// A text that breaks off in the middle of a quoted value is not passed on. Returns whether there is such a field.
pub(super) fn list_of_directives(
    headers: &Headers,
    name: &str,
    mut take: impl FnMut(&[u8], Option<&[u8]>),
) -> bool {
    let mut present = false;
    for value in values(headers, name) {
        present = true;
        for item in quoted_list(value) {
            let Some(item) = item else { continue };
            let Some(equals) = item.iter().position(|byte| *byte == b'=') else {
                take(item, None);
                continue;
            };
            // White space around "=" is no part of the syntax: the name is recognised, the value is none.
            let (name, value) = (&item[..equals], &item[equals + 1..]);
            let bare = name.trim_ascii_end();
            match value {
                value if bare.len() < name.len() || value.trim_ascii_start().len() < value.len() => {
                    take(bare, Some(b"?"));
                }
                [b'"', inner @ .., b'"'] => take(bare, Some(&unescaped(inner))),
                value => take(bare, Some(value)),
            }
        }
    }
    present
}

/// The items of a comma-separated list in which commas may stand in quotes. None for an item that is cut off.
pub(super) fn quoted_list(value: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = value;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let (mut quoted, mut escaped, mut end) = (false, false, rest.len());
            for (index, byte) in rest.iter().enumerate() {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if quoted => escaped = true,
                    b'"' => quoted = !quoted,
                    b',' if !quoted => {
                        end = index;
                        break;
                    }
                    _ => {}
                }
            }
            let item = rest[..end].trim_ascii();
            rest = rest.get(end + 1..).unwrap_or_default();
            if quoted {
                return Some(None);
            }
            if !item.is_empty() {
                return Some(Some(item));
            }
        }
    })
}

fn unescaped(quoted: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    while let Some(byte) = bytes.next() {
        text.push(if *byte == b'\\' { *bytes.next().unwrap_or(byte) } else { *byte });
    }
    text
}
