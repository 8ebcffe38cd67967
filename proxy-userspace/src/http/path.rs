//! Paths as rules compare them: what servers take for the same is the same (RFC 3986 §6.2.2). Only for comparing: what
//! is forwarded is what the client sent.

use std::borrow::Cow;

/// A request's path without its query, with unreserved characters decoded and dot segments removed.
#[must_use]
pub fn plain(path: &str) -> Cow<'_, str> {
    let path = path.split('?').next().unwrap_or_default();
    if !path.contains('%') && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    Cow::Owned(without_dot_segments(&decoded(path)))
}

/// A request's path and query for patterns: as [`plain`], slashes in a row made one, and unreserved characters of the
/// query decoded. What some servers take for a slash (`%2F`, `%5C`, a backslash) is one: whoever blocks `/a/b` means that
/// as well.
#[must_use]
pub fn comparable(path: &str) -> String {
    let (before, query) = match path.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (path, None),
    };
    let mut slashed = Cow::Borrowed(before);
    for slash in ["%2f", "%2F", "%5c", "%5C", "\\"] {
        if slashed.contains(slash) {
            slashed = Cow::Owned(slashed.replace(slash, "/"));
        }
    }
    let mut out = String::with_capacity(path.len());
    for c in without_dot_segments(&decoded(&slashed)).chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    if let Some(query) = query {
        out.push('?');
        out.push_str(&decoded(query));
    }
    out
}

/// RFC 3986 §6.2.2.2: `%41` is `A`, but `%2F` is no slash.
fn decoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 3..];
            }
            _ => {
                out.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// RFC 3986 §5.2.4.
fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                // `/a/.` names what `/a/` does.
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    kept.iter().fold(String::with_capacity(path.len()), |out, segment| out + "/" + segment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_servers_take_for_the_same() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("/a?b=/../c", "/a"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/.a/..b/...", "/.a/..b/..."),
            ("/%7euser/%41%2f%zz%", "/~user/A%2f%zz%"),
            ("/a/%2e%2E/b", "/b"),
            ("//a//b/..", "//a//"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(plain(path), expected, "{path}");
        }
    }

    #[test]
    fn what_patterns_are_compared_with() {
        for (path, expected) in [
            ("/a//b/../c?x=%41%2f//", "/a/c?x=A%2f//"),
            ("//a", "/a"),
            ("/a/.//b", "/a/b"),
            ("/a%2fb%2F..%5cc\\d", "/a/c/d"),
            ("/a%2f%2e%2e/b", "/b"),
            ("*", ""),
        ] {
            assert_eq!(comparable(path), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path: String) {
            let _ = comparable(&path);
        }
    }
}
