//! Paths as rules compare them: what servers take for the same is the same (RFC 3986 §6.2.2). Only for comparing: what
//! is forwarded is what the client sent.

use std::borrow::Cow;

/// A request's path without its query, with unreserved characters decoded and dot segments removed.
pub(super) fn plain(path: &str) -> Cow<'_, str> {
    let path = path.split('?').next().unwrap_or_default();
    if !path.contains('%') && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    Cow::Owned(without_dot_segments(&decoded(path)))
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

    proptest! {
        #[test]
        fn no_path_panics(path: String) {
            let _ = plain(&path);
        }
    }
}
