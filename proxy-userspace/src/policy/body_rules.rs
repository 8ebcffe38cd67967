//! `security.body_rules`: which text is replaced in which responses, in the charset that they are in.

use crate::authority::Host;
use crate::config::{BodyRule, PathPattern};
use crate::http::headers::Headers;
use crate::http::path;
use crate::http::replace::Replacement;

/// All rules, ready for use.
#[derive(Debug)]
pub struct BodyRules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    rule: BodyRule,
    /// In UTF-8, ISO 8859-1, UTF-16LE and UTF-16BE; None: that has no such characters.
    texts: [Option<Replacement>; 4],
}

/// Charsets in which text is found.
#[derive(Debug, Clone, Copy)]
enum Charset {
    Utf8,
    Latin1,
    Utf16Le,
    Utf16Be,
}

impl BodyRules {
    #[must_use]
    pub fn new(rules: &[BodyRule]) -> Self {
        Self(rules.iter().map(|rule| Rule { rule: rule.clone(), texts: texts(rule) }).collect())
    }

    /// Whether a response to this may have to be changed: then it is asked for as a whole, and in no coding.
    #[must_use]
    pub fn concern(&self, host: Option<&Host>, path: &str) -> bool {
        self.0.iter().any(|rule| rule.fits(host, path))
    }

    /// What is replaced in a response with these fields.
    #[must_use]
    pub fn of(&self, host: Option<&Host>, path: &str, headers: &Headers) -> Vec<Replacement> {
        let mut rules = self.0.iter().filter(|rule| rule.fits(host, path)).peekable();
        if rules.peek().is_none() {
            return Vec::new();
        }
        let is_type = |name: &[u8]| name.eq_ignore_ascii_case(b"content-type");
        let mut types = headers.iter().filter(|field| is_type(field.name)).map(|field| field.value);
        let (Some(content_type), None) = (types.next(), types.next()) else { return Vec::new() };
        let Some(charset) = charset(content_type) else { return Vec::new() };
        rules
            .filter(|rule| rule.rule.types.iter().any(|pattern| pattern.matches(content_type)))
            .filter_map(|rule| rule.texts[charset as usize].clone())
            .collect()
    }
}

impl Rule {
    fn fits(&self, host: Option<&Host>, asked: &str) -> bool {
        let BodyRule { hosts, paths, .. } = &self.rule;
        let host_fits = || host.is_some_and(|host| hosts.iter().any(|pattern| pattern.matches(host)));
        let path_fits = || {
            let asked = path::plain(asked);
            paths.iter().any(|pattern| match pattern {
                PathPattern::Exact(exact) => **exact == *asked,
                PathPattern::Below(above) => {
                    asked.strip_prefix(&**above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                }
            })
        };
        (hosts.is_empty() || host_fits()) && (paths.is_empty() || path_fits())
    }
}

/// What a Content-Type says of its charset. None: one in which bytes may mean something else than they seem to.
fn charset(content_type: &[u8]) -> Option<Charset> {
    let parameters = content_type.split(|byte| *byte == b';').skip(1);
    let named = parameters.filter_map(|parameter| {
        let (name, value) = parameter.split_at(parameter.iter().position(|byte| *byte == b'=')?);
        let value = value[1..].trim_ascii();
        name.trim_ascii().eq_ignore_ascii_case(b"charset").then(|| value.trim_ascii_start())
    });
    let Some(named) = named.into_iter().next() else { return Some(Charset::Utf8) };
    let named = named.strip_prefix(b"\"").and_then(|named| named.strip_suffix(b"\"")).unwrap_or(named);
    Some(match named.to_ascii_lowercase().as_slice() {
        b"utf-8" | b"utf8" | b"us-ascii" | b"ascii" => Charset::Utf8,
        b"iso-8859-1" | b"latin1" | b"windows-1252" => Charset::Latin1,
        // RFC 2781 §4.3: big-endian, unless a mark says otherwise; who sends it means this one.
        b"utf-16le" | b"utf-16" => Charset::Utf16Le,
        b"utf-16be" => Charset::Utf16Be,
        _ => return None,
    })
}

fn texts(rule: &BodyRule) -> [Option<Replacement>; 4] {
    let in_charset = |encode: fn(&str) -> Option<Vec<u8>>| {
        let (find, with) = (encode(&rule.find)?, encode(&rule.with)?);
        Replacement::new(&find, &with)
    };
    [
        in_charset(|text| Some(text.as_bytes().to_vec())),
        // What windows-1252 has in the place of control characters is left out.
        in_charset(|text| {
            text.chars()
                .map(|character| u8::try_from(character).ok().filter(|byte| !(0x80..0xa0).contains(byte)))
                .collect()
        }),
        in_charset(|text| Some(text.encode_utf16().flat_map(u16::to_le_bytes).collect())),
        in_charset(|text| Some(text.encode_utf16().flat_map(u16::to_be_bytes).collect())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::load_files;
    use crate::http::replace::Replacer;

    fn replaced(rules: &BodyRules, path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
        let mut headers = Headers::default();
        headers.push(b"Content-Type", content_type.as_bytes());
        let host = Host::parse("a.test").ok();
        rules.of(host.as_ref(), path, &headers).into_iter().fold(body.to_vec(), |body, replacement| {
            let mut replacer = Replacer::new(replacement);
            let mut out = replacer.push(&body).to_vec();
            out.extend_from_slice(replacer.end());
            out
        })
    }

    #[test]
    fn text_is_found_in_the_charset_that_it_is_in() {
        let config = load_files(
            &["security: {body_rules: [{hosts: [a.test], paths: [/x/*], find: été, with: hiver}]}"
                .as_bytes()],
            &[],
            &[],
        )
        .unwrap();
        let rules = BodyRules::new(&config.security.body_rules);
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        for (content_type, body, expected) in [
            ("text/html", "un été".as_bytes().to_vec(), "un hiver".as_bytes().to_vec()),
            ("text/plain; charset=UTF-8", "été".as_bytes().to_vec(), b"hiver".to_vec()),
            ("text/plain; charset=\"iso-8859-1\"", b"\xe9t\xe9!".to_vec(), b"hiver!".to_vec()),
            ("text/plain;charset=utf-16le", utf16("un été"), utf16("un hiver")),
            ("text/plain; charset=shift_jis", "été".as_bytes().to_vec(), "été".as_bytes().to_vec()),
            ("image/png", "été".as_bytes().to_vec(), "été".as_bytes().to_vec()),
        ] {
            assert_eq!(replaced(&rules, "/x/y", content_type, &body), expected, "{content_type}");
            assert_eq!(replaced(&rules, "/y", content_type, &body), body, "{content_type}");
        }
    }
}
