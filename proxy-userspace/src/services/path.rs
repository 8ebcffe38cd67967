//! Which paths lead to services, and to which. What some server could read in another way leads nowhere: it is refused,
//! whatever is behind it.

use crate::http::path::comparable;

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim<'a> {
    /// Not to a service.
    Elsewhere,
    /// To the list of services.
    List,
    /// To an app without the slash behind its id; `query` with its `?`.
    Bare { key: &'a str, query: &'a str },
    /// Into an app: `rest` is path and query as the app is to get it, `prefix` what was before it.
    Into { key: &'a str, prefix: &'a str, rest: &'a str },
}

/// Why a path that seems to lead to services is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsafe {
    #[error("the path leads below {0} only if it is read in a way that not all servers read it")]
    Ambiguous(&'static str),
    #[error("a path of a service has no segment `.` or `..`, however it is written")]
    Dots,
    #[error("a path of a service has no encoded slash, and no backslash")]
    Slash,
    #[error("a path of a service has no control character")]
    Control,
    #[error("a path of a service has no character in more bytes than it needs")]
    Overlong,
    #[error("a `%` in a path of a service is followed by two hexadecimal digits")]
    Percent,
}

/// Finds out where a path leads; `prefix` is that of all services.
///
/// # Errors
/// [`Unsafe`]: nobody is to get it.
pub fn aim<'a>(path: &'a str, prefix: &str) -> Result<Aim<'a>, Unsafe> {
    let end = path.find('?').unwrap_or(path.len());
    let (before, query) = path.split_at(end);
    let Some(inside) = below(before, prefix) else {
        let looks_odd = before.contains(['%', '\\']) || before.contains("//") || before.contains("/.");
        if looks_odd && is_below(&comparable(before), prefix) {
            return Err(Unsafe::Ambiguous("the prefix of services"));
        }
        return Ok(Aim::Elsewhere);
    };
    check(before)?;
    let Some(inside) = inside.strip_prefix('/').filter(|inside| !inside.is_empty()) else {
        return Ok(Aim::List);
    };
    match inside.split_once('/') {
        None => Ok(Aim::Bare { key: inside, query }),
        Some((key, _)) => {
            let start = before.len() - inside.len() + key.len();
            Ok(Aim::Into { key, prefix: &path[..start], rest: &path[start..] })
        }
    }
}

/// What of a path is below `prefix`: nothing, or something that begins with a slash.
#[must_use]
pub fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_below(path: &str, prefix: &str) -> bool {
    below(path, prefix).is_some()
}

fn check(path: &str) -> Result<(), Unsafe> {
    path.split('/').try_for_each(|segment| {
        let bytes = decoded(segment)?;
        if bytes.iter().any(|byte| matches!(byte, b'/' | b'\\')) {
            return Err(Unsafe::Slash);
        }
        if bytes.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
            return Err(Unsafe::Control);
        }
        // Some servers take what follows a semicolon for parameters of the segment.
        let named = bytes.split(|byte| *byte == b';').next().unwrap_or_default();
        if matches!(named, b"." | b"..") {
            return Err(Unsafe::Dots);
        }
        if bytes.windows(2).any(|pair| is_overlong(pair[0], pair[1])) {
            return Err(Unsafe::Overlong);
        }
        Ok(())
    })
}

/// RFC 3629 §3: two, three and four bytes for what fits in fewer.
fn is_overlong(first: u8, second: u8) -> bool {
    let range = match first {
        0xc0 | 0xc1 => 0x80..=0xbf,
        0xe0 => 0x80..=0x9f,
        0xf0 => 0x80..=0x8f,
        0xf8 => 0x80..=0x87,
        0xfc => 0x80..=0x83,
        _ => return false,
    };
    range.contains(&second)
}

fn decoded(segment: &str) -> Result<Vec<u8>, Unsafe> {
    let mut bytes = segment.bytes();
    let mut out = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(Unsafe::Percent) };
        out.push(u8::try_from(high << 4 | low).unwrap_or_default());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(path: &str, expected: Result<Aim<'_>, Unsafe>) {
        assert_eq!(aim(path, "/proxy"), expected, "{path}");
    }

    #[test]
    fn where_paths_lead() {
        for path in ["/", "/proxy.pac", "/proxyx/a", "/a/proxy/b", "*", "/a?/proxy/b", "/Proxy/a", "/a/../b"]
        {
            check(path, Ok(Aim::Elsewhere));
        }
        check("/proxy", Ok(Aim::List));
        check("/proxy/?a", Ok(Aim::List));
        check("/proxy/a", Ok(Aim::Bare { key: "a", query: "" }));
        check("/proxy/a?b=/c", Ok(Aim::Bare { key: "a", query: "?b=/c" }));
        let into = |rest| Ok(Aim::Into { key: "a", prefix: "/proxy/a", rest });
        check("/proxy/a/", into("/"));
        check("/proxy/a//b/?c=../d", into("//b/?c=../d"));
        check("/proxy/a/%C3%A4%20%2b%ff;x=1/", into("/%C3%A4%20%2b%ff;x=1/"));
        check("/proxy/a/.hidden/..x/...", into("/.hidden/..x/..."));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (path, expected) in [
            ("/proxy/a/../b/", Unsafe::Dots),
            ("/proxy/../proxy/a/", Unsafe::Dots),
            ("/proxy/a/%2e%2E/b", Unsafe::Dots),
            ("/proxy/a/.%2e", Unsafe::Dots),
            ("/proxy/a/..;x/b", Unsafe::Dots),
            ("/proxy/./a/", Unsafe::Dots),
            ("/proxy/a%2fb/", Unsafe::Slash),
            ("/proxy/a/..%2f", Unsafe::Slash),
            ("/proxy/a/..%5cb", Unsafe::Slash),
            ("/proxy/a/..\\b", Unsafe::Slash),
            ("/proxy/a%00/", Unsafe::Control),
            ("/proxy/a/%0d%0a", Unsafe::Control),
            ("/proxy/a/%c0%ae%c0%ae/b", Unsafe::Overlong),
            ("/proxy/a/%c0%af", Unsafe::Overlong),
            ("/proxy/a/%e0%80%af", Unsafe::Overlong),
            ("/proxy/a/%f0%80%80%af", Unsafe::Overlong),
            ("/proxy/a/%zz", Unsafe::Percent),
            ("/proxy/a/%2", Unsafe::Percent),
        ] {
            check(path, Err(expected));
        }
        for path in ["//proxy/a/", "/x/../proxy/a/", "/%70roxy/a/", "/proxy%2fa/", "/.//proxy/a", "\\proxy/a"]
        {
            check(path, Err(Unsafe::Ambiguous("the prefix of services")));
        }
    }

    proptest! {
        #[test]
        fn nothing_leads_into_an_app_that_has_dots_or_slashes_in_disguise(path in "(/proxy)?[/a.%25efc0\\\\]{0,20}") {
            if let Ok(Aim::Into { key, prefix, rest }) = aim(&path, "/proxy") {
                prop_assert_eq!(format!("{prefix}{rest}"), path.clone());
                prop_assert!(!key.is_empty() && !key.contains('/'));
                let plain = comparable(rest);
                prop_assert_eq!(plain.matches('/').count(), {
                    let mut rest = rest.to_owned();
                    while rest.contains("//") { rest = rest.replace("//", "/"); }
                    rest.matches('/').count()
                });
            }
        }
    }
}
