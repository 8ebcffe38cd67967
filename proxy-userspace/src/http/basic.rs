//! Basic credentials (RFC 7617).

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// What a client says of who it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Presented {
    Basic {
        name: Box<str>,
        password: Box<str>,
    },
    /// Something else, or nothing that can be read.
    Other,
}

impl Presented {
    /// Reads the value of Proxy-Authorization.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        Self::basic(value).unwrap_or(Self::Other)
    }

    fn basic(value: &[u8]) -> Option<Self> {
        let space = value.iter().position(|byte| *byte == b' ')?;
        let (scheme, token) = value.split_at(space);
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return None;
        }
        let decoded = String::from_utf8(BASE64_STANDARD.decode(token.trim_ascii()).ok()?).ok()?;
        let (name, password) = decoded.split_once(':')?;
        Some(Self::Basic { name: name.into(), password: password.into() })
    }
}

impl fmt::Debug for Presented {
    /// Never the password.
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(match self {
            Self::Basic { .. } => "Basic ***",
            Self::Other => "Other",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: Option<(&str, &str)>) {
        let expected = expected.map_or(Presented::Other, |(name, password)| Presented::Basic {
            name: name.into(),
            password: password.into(),
        });
        assert!(Presented::parse(value.as_bytes()) == expected, "{value}");
    }

    #[test]
    fn credentials() {
        check("Basic YTpi", Some(("a", "b")));
        check("bASIC  YTpi ", Some(("a", "b")));
        check("Basic YTpiOmM=", Some(("a", "b:c")));
        check("Basic Og==", Some(("", "")));
        check("Basic YQ==", None);
        check("Basic YTpi!", None);
        check("Basic /zpi", None);
        check("Basic", None);
        check("Bearer YTpi", None);
        check("", None);
    }

    #[test]
    fn a_password_is_never_shown() {
        assert!(!format!("{:?}", Presented::parse(b"Basic YTpzM2NyZXQ=")).contains("s3cret"));
    }
}
