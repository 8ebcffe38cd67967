//! `compression`: which responses are compressed on their way to the client, and how.

use super::kinds::{Fault, GIB, choice, number, quoted, size, switch};
use super::section::Section;

/// `compression`.
#[derive(Debug, Clone, PartialEq)]
pub struct Compression {
    /// Default false.
    pub enabled: bool,
    /// Responses of the gateway. Default on.
    pub gateway: bool,
    /// Those of the explicit proxy. Default on.
    pub explicit: bool,
    /// The best first, where a client likes several as much. Default zstd, br, gzip.
    pub codings: Vec<Coding>,
    /// Default balanced.
    pub effort: Effort,
    /// Content whose length is known to be less stays as it is. Default 1KiB.
    pub min_size: u64,
    /// What is worth it. Default: text in all its forms.
    pub types: Vec<MediaPattern>,
    /// Responses that are compressed at one time, on each worker. Default 128.
    pub max_streams: usize,
}

/// A content coding that weir can apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// Its name in Content-Encoding.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// How much time is spent for how few bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    Fast,
    Balanced,
    Best,
}

/// `text/*`, `application/json`, or `application/*+json`; in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaPattern {
    kind: Box<str>,
    /// None is any.
    subtype: Option<Box<str>>,
    /// What any subtype must end with, `+` included.
    suffix: Box<str>,
}

impl MediaPattern {
    /// Whether a Content-Type, with its parameters, is one of these.
    #[must_use]
    pub fn matches(&self, content_type: &[u8]) -> bool {
        let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let Some(slash) = media_type.iter().position(|byte| *byte == b'/') else { return false };
        let (kind, subtype) = (&media_type[..slash], &media_type[slash + 1..]);
        let fits = match &self.subtype {
            Some(expected) => subtype.eq_ignore_ascii_case(expected.as_bytes()),
            None => subtype
                .len()
                .checked_sub(self.suffix.len())
                .is_some_and(|start| subtype[start..].eq_ignore_ascii_case(self.suffix.as_bytes())),
        };
        fits && kind.eq_ignore_ascii_case(self.kind.as_bytes())
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            enabled: false,
            gateway: true,
            explicit: true,
            codings: vec![Coding::Zstd, Coding::Brotli, Coding::Gzip],
            effort: Effort::Balanced,
            min_size: 1 << 10,
            types: TYPES.iter().filter_map(|text| parsed(text)).collect(),
            max_streams: 128,
        }
    }
}

/// What there is to be gained from; images, sound and archives are compressed already.
const TYPES: &[&str] = &[
    "text/*",
    "application/json",
    "application/*+json",
    "application/javascript",
    "application/xml",
    "application/*+xml",
    "application/wasm",
    "image/svg+xml",
];

/// Those that are text.
pub(super) fn text_types() -> Vec<MediaPattern> {
    TYPES.iter().filter(|text| **text != "application/wasm").filter_map(|text| parsed(text)).collect()
}

pub(super) fn compression(s: &mut Section<'_, '_>) -> Compression {
    const CODINGS: &[(&str, Coding)] =
        &[("zstd", Coding::Zstd), ("br", Coding::Brotli), ("gzip", Coding::Gzip)];
    const EFFORTS: &[(&str, Effort)] =
        &[("fast", Effort::Fast), ("balanced", Effort::Balanced), ("best", Effort::Best)];

    let d = Compression::default();
    let mut codings = s.list("codings", d.codings, choice(CODINGS));
    let mut seen = Vec::new();
    codings.retain(|coding| {
        let new = !seen.contains(coding);
        seen.push(*coding);
        new
    });
    Compression {
        enabled: s.read("enabled", d.enabled, switch()),
        gateway: s.read("gateway", d.gateway, switch()),
        explicit: s.read("explicit", d.explicit, switch()),
        codings,
        effort: s.read("effort", d.effort, choice(EFFORTS)),
        min_size: s.read("min_size", d.min_size, size(0..=GIB)),
        types: s.list("types", d.types, media_pattern),
        max_streams: s.read("max_streams", d.max_streams, number(1..=65_536)),
    }
}

pub(super) fn media_pattern(text: &str) -> Result<MediaPattern, Fault> {
    let bad = || {
        format!("{} is no media type such as text/*, application/json or application/*+json", quoted(text))
    };
    parsed(text).ok_or_else(|| bad().into())
}

fn parsed(text: &str) -> Option<MediaPattern> {
    // RFC 9110 §5.6.2.
    let is_token = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte))
    };
    let text = text.to_ascii_lowercase();
    let (kind, subtype) = text.split_once('/')?;
    if kind.is_empty() || subtype.is_empty() || !is_token(kind) {
        return None;
    }
    let (subtype, suffix) = match subtype.strip_prefix('*') {
        None => (Some(subtype), ""),
        Some("") => (None, ""),
        Some(suffix) if suffix.len() > 1 && suffix.starts_with('+') => (None, suffix),
        Some(_) => return None,
    };
    if !is_token(subtype.unwrap_or(suffix)) {
        return None;
    }
    Some(MediaPattern { kind: kind.into(), subtype: subtype.map(Into::into), suffix: suffix.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, content_type: &str, expected: bool) {
        let found = parsed(pattern).unwrap().matches(content_type.as_bytes());
        assert_eq!(found, expected, "{pattern} {content_type}");
    }

    #[test]
    fn patterns() {
        check("text/*", "Text/HTML; charset=utf-8", true);
        check("text/*", "application/json", false);
        check("text/*", "text", false);
        check("application/json", "application/json ;x=y", true);
        check("application/json", "application/json5", false);
        check("application/*+json", "application/problem+JSON", true);
        check("application/*+json", "application/json", false);
        check("application/*+json", "application/x", false);
    }

    #[test]
    fn what_is_none() {
        for text in ["", "text", "*/*", "text/", "/html", "text/*json", "text/*+", "te xt/html", "text/h*"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn all_defaults_are_patterns() {
        assert_eq!(Compression::default().types.len(), TYPES.len());
    }
}
