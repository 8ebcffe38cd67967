//! Cache-Control, of requests and responses (RFC 9111 §5.2), with the extensions of RFC 5861 and RFC 8246.
//!
//! Where a directive that limits reuse is malformed, its strictest reading counts (RFC 9111 §4.2.1).

use super::headers::list_of_directives;
use crate::http::headers::Headers;

/// The largest number of seconds that is told from infinity (RFC 9111 §1.2.2).
pub const MOST_SECONDS: u64 = 1 << 31;

/// What a response says of its storing and reuse.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    pub no_store: bool,
    pub no_cache: bool,
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub no_transform: bool,
    pub immutable: bool,
    pub max_age: Option<u64>,
    pub s_maxage: Option<u64>,
    pub stale_while_revalidate: Option<u64>,
    pub stale_if_error: Option<u64>,
    /// Fields named by `private="…"` and `no-cache="…"`, in lower case: they are not kept.
    pub fields_not_kept: Vec<String>,
}

impl ResponseDirectives {
    /// Those of the Cache-Control fields.
    #[must_use]
    pub fn of(headers: &Headers) -> Self {
        let mut directives = Self::default();
        list_of_directives(headers, "cache-control", |name, value| directives.take(name, value));
        directives
    }

    /// Notes one directive.
    pub fn take(&mut self, name: &[u8], value: Option<&[u8]>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("no-store") {
            self.no_store = true;
        } else if is("no-cache") {
            self.no_cache |= !self.takes_fields(value);
        } else if is("private") {
            self.private |= !self.takes_fields(value);
        } else if is("public") {
            self.public = true;
        } else if is("must-revalidate") {
            self.must_revalidate = true;
        } else if is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is("must-understand") {
            self.must_understand = true;
        } else if is("no-transform") {
            self.no_transform = true;
        } else if is("immutable") {
            self.immutable = true;
        } else if is("max-age") {
            self.max_age = least(self.max_age, seconds(value));
        } else if is("s-maxage") {
            self.s_maxage = least(self.s_maxage, seconds(value));
        } else if is("stale-while-revalidate") {
            self.stale_while_revalidate = least(self.stale_while_revalidate, seconds(value));
        } else if is("stale-if-error") {
            self.stale_if_error = least(self.stale_if_error, seconds(value));
        }
    }

    /// Whether a stale response may not be used without successful validation, whatever anybody else says
    /// (RFC 9111 §5.2.2.2, §5.2.2.8, §5.2.2.10: a shared cache treats s-maxage so, too).
    #[must_use]
    pub fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.s_maxage.is_some() || self.no_cache
    }

    /// The qualified form limits named fields only (RFC 9111 §5.2.2.4, §5.2.2.7).
    fn takes_fields(&mut self, value: Option<&[u8]>) -> bool {
        let Some(value) = value else { return false };
        let names = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty());
        let before = self.fields_not_kept.len();
        self.fields_not_kept.extend(names.map(|name| String::from_utf8_lossy(name).to_ascii_lowercase()));
        self.fields_not_kept.len() > before
    }
}

/// What a request says of the responses that it would take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    pub no_store: bool,
    pub no_cache: bool,
    pub only_if_cached: bool,
    pub max_age: Option<u64>,
    pub min_fresh: Option<u64>,
    /// Seconds past its freshness that a response may be; [`MOST_SECONDS`] where none are named.
    pub max_stale: Option<u64>,
    pub stale_if_error: Option<u64>,
}

impl RequestDirectives {
    /// Those of the Cache-Control fields, or of Pragma where there are none.
    #[must_use]
    pub fn of(headers: &Headers) -> Self {
        let mut directives = Self::default();
        let present =
            list_of_directives(headers, "cache-control", |name, value| directives.take(name, value));
        if !present {
            // RFC 9111 §5.4: what an HTTP/1.0 client says instead.
            list_of_directives(headers, "pragma", |name, _| {
                directives.no_cache |= name.eq_ignore_ascii_case(b"no-cache");
            });
        }
        directives
    }

    fn take(&mut self, name: &[u8], value: Option<&[u8]>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("no-store") {
            self.no_store = true;
        } else if is("no-cache") {
            self.no_cache = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("max-age") {
            self.max_age = least(self.max_age, seconds(value));
        } else if is("min-fresh") {
            // What can't be read asks for the freshest.
            let seconds = value.map_or(Some(MOST_SECONDS), number).unwrap_or(MOST_SECONDS);
            self.min_fresh = Some(self.min_fresh.unwrap_or(0).max(seconds));
        } else if is("max-stale") {
            self.max_stale =
                least(self.max_stale, value.map_or(MOST_SECONDS, |value| number(value).unwrap_or(0)));
        } else if is("stale-if-error") {
            self.stale_if_error = least(self.stale_if_error, seconds(value));
        }
    }
}

/// A directive that is given twice means its smaller value: RFC 9111 §4.2.1 has the choice between the first and
/// "stale".
fn least(known: Option<u64>, seconds: u64) -> Option<u64> {
    Some(known.map_or(seconds, |known| known.min(seconds)))
}

/// delta-seconds; 0 where it is none, so that what is malformed is stale.
fn seconds(value: Option<&[u8]>) -> u64 {
    value.and_then(number).unwrap_or(0)
}

/// delta-seconds (RFC 9111 §1.2.2): digits and nothing else; too many of them mean the largest number.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |number: u64, digit: &u8| (number * 10 + u64::from(digit - b'0')).min(MOST_SECONDS);
    Some(value.iter().fold(0, add))
}

#[cfg(test)]
mod tests {
    use super::super::tests::response;
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: &ResponseDirectives) {
        let fields = value.split('|').map(|line| format!("Cache-Control: {line}\r\n")).collect::<String>();
        assert_eq!(ResponseDirectives::of(&response(200, &fields).headers), *expected, "{value}");
    }

    fn max_age(seconds: u64) -> ResponseDirectives {
        ResponseDirectives { max_age: Some(seconds), ..ResponseDirectives::default() }
    }

    #[test]
    fn max_age_in_all_spellings() {
        check("max-age=3600", &max_age(3600));
        check("MaX-aGe=003600", &max_age(3600));
        check("max-age=\"3600\"", &max_age(3600));
        check("max-age='3600'", &max_age(0));
        check("max-age=3600.0", &max_age(0));
        check("max-age=-1", &max_age(0));
        check("max-age", &max_age(0));
        check("max-age =100", &max_age(0));
        check("max-age= 100", &max_age(0));
        check("max-age=100a", &max_age(0));
        check("max-age=99999999999999999999999", &max_age(MOST_SECONDS));
        check("max-age=60, max-age=1", &max_age(1));
        check("max-age=1|max-age=60", &max_age(1));
        check("extension=\"max-age=100, \\\"\", max-age=1", &max_age(1));
        check("extension=\"max-age=100", &ResponseDirectives::default());
        check(",, max-age=5 ,", &max_age(5));
    }

    #[test]
    fn flags() {
        let none = ResponseDirectives::default;
        check("nO-StOrE", &ResponseDirectives { no_store: true, ..none() });
        check("private", &ResponseDirectives { private: true, ..none() });
        check("private=\"\"", &ResponseDirectives { private: true, ..none() });
        check(
            "private=\"A, b\", no-cache=c",
            &ResponseDirectives { fields_not_kept: vec!["a".into(), "b".into(), "c".into()], ..none() },
        );
        check(
            "stale-while-revalidate=5, stale-if-error=7, immutable",
            &ResponseDirectives {
                stale_while_revalidate: Some(5),
                stale_if_error: Some(7),
                immutable: true,
                ..none()
            },
        );
        check("no-store-not, xprivate", &none());
    }

    #[track_caller]
    fn check_request(fields: &str, expected: RequestDirectives) {
        assert_eq!(RequestDirectives::of(&response(200, fields).headers), expected, "{fields}");
    }

    #[test]
    fn requests() {
        let none = RequestDirectives::default();
        check_request("Pragma: no-cache\r\n", RequestDirectives { no_cache: true, ..none });
        check_request(
            "Pragma: no-cache\r\nCache-Control: max-age=1\r\n",
            RequestDirectives { max_age: Some(1), ..none },
        );
        check_request(
            "Cache-Control: max-stale\r\n",
            RequestDirectives { max_stale: Some(MOST_SECONDS), ..none },
        );
        check_request("Cache-Control: max-stale=x\r\n", RequestDirectives { max_stale: Some(0), ..none });
        check_request(
            "Cache-Control: min-fresh=x\r\n",
            RequestDirectives { min_fresh: Some(MOST_SECONDS), ..none },
        );
        check_request(
            "Cache-Control: only-if-cached, no-store\r\n",
            RequestDirectives { only_if_cached: true, no_store: true, ..none },
        );
    }
}
