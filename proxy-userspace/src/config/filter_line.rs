//! A line of a filter list: a name, a line of a hosts file, or the part of the Adblock syntax that a proxy can obey.
//!
//! What depends on the page that asks (`$script`, `$third-party`, `$domain=`), on the page's content (`##`), and regular
//! expressions is told apart and left out: a proxy can't know the one, and must not be slowed down by the other.

use std::net::IpAddr;

use super::dns::Domain;

/// What a line names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named<'a> {
    /// In lower case, without a dot at the end; or an address, as [`IpAddr`] shows it.
    Host { name: String, itself: bool, below: bool },
    /// URLs, by a pattern (see [`crate::policy::filtering`]).
    Urls(&'a str),
}

/// One thing that a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    pub named: Named<'a>,
    /// `@@`: what it names is excepted from the list.
    pub exception: bool,
    /// `$important`: exceptions that are not important themselves don't count.
    pub important: bool,
}

/// Why a line of a list is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum LeftOut {
    #[error("hides parts of pages, which a proxy does not see")]
    Cosmetic,
    #[error("has an option that depends on the page that asks")]
    Option,
    #[error("is a regular expression; what contains a path is written with a `*`, as in /ads/*")]
    Regex,
    #[error("would match nearly everything")]
    TooBroad,
    #[error("is neither a name, nor a line of a hosts file, nor a filter")]
    Malformed,
}

/// The least bytes in a row, between `*`, `^` and `|`, that a pattern needs: by so many it is found.
pub const MIN_LITERAL: usize = 4;

/// Names that hosts files have for this machine.
const OWN_NAMES: [&str; 12] = [
    "localhost",
    "localhost.localdomain",
    "local",
    "broadcasthost",
    "ip6-localhost",
    "ip6-loopback",
    "ip6-localnet",
    "ip6-mcastprefix",
    "ip6-allnodes",
    "ip6-allrouters",
    "ip6-allhosts",
    "0.0.0.0",
];

/// Reads a line; `take` gets what it says, which for comments is nothing.
///
/// # Errors
/// [`LeftOut`], if it says something that weir does not obey.
pub fn read<'a>(line: &'a str, mut take: impl FnMut(Entry<'a>)) -> Result<(), LeftOut> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['!', '[']) && !is_bracketed_address(line) {
        return Ok(());
    }
    if ["##", "#@#", "#?#", "#$#", "#%#"].iter().any(|mark| line.contains(mark)) {
        return Err(LeftOut::Cosmetic);
    }
    let line = without_comment(line);
    if line.is_empty() {
        return Ok(());
    }
    if let Some((first, names)) = line.split_once([' ', '\t']) {
        return hosts(first, names, take);
    }
    let (line, exception) = match line.strip_prefix("@@") {
        Some(rest) => (rest, true),
        None => (line, false),
    };
    let (pattern, important) = options(line)?;
    take(Entry { named: named(pattern)?, exception, important });
    Ok(())
}

/// Whether a line is of a hosts file or of an Adblock list, rather than a name of a plain one.
#[must_use]
pub fn is_of_list(line: &str) -> bool {
    let line = line.trim();
    let is_hosts = line.split_whitespace().next().is_some_and(|first| first.parse::<IpAddr>().is_ok());
    is_hosts || line.starts_with(['!', '[', '|', '@']) || line.contains(['#', '$', '^', '/'])
}

fn is_bracketed_address(line: &str) -> bool {
    address(line).is_some()
}

fn address(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    inner.parse().ok().map(|address: IpAddr| address.to_canonical())
}

/// A line without the comment that a `#` begins where a line or a blank is before it.
#[must_use]
pub fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == '#' && before.is_whitespace() {
            return line[..at].trim_end();
        }
        before = c;
    }
    line
}

/// `0.0.0.0 name [name ...]`
fn hosts<'a>(first: &str, names: &'a str, mut take: impl FnMut(Entry<'a>)) -> Result<(), LeftOut> {
    let address: IpAddr = first.parse().map_err(|_| LeftOut::Malformed)?;
    if !(address.is_loopback() || address.is_unspecified()) {
        // It says where a name is, not that it is nowhere.
        return Err(LeftOut::Malformed);
    }
    for name in names.split_whitespace().filter(|name| !OWN_NAMES.contains(name)) {
        let Ok(Domain { name, below: false }) = name.parse() else { return Err(LeftOut::Malformed) };
        let named = Named::Host { name, itself: true, below: false };
        take(Entry { named, exception: false, important: false });
    }
    Ok(())
}

/// The pattern before `$`, and whether the options behind it say that it is important.
fn options(line: &str) -> Result<(&str, bool), LeftOut> {
    let Some((pattern, options)) = line.rsplit_once('$') else { return Ok((line, false)) };
    let is_option = |text: &str| {
        let name = text.split('=').next().unwrap_or_default();
        let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || "~_".contains(c));
        let fits = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_~".contains(&byte));
        fits && begins || matches!(name, "1p" | "3p")
    };
    if !options.split(',').all(is_option) {
        return Ok((line, false));
    }
    let mut important = false;
    for option in options.split(',') {
        match option {
            "important" => important = true,
            // Documents are what a proxy's clients ask for as well.
            "all" | "document" | "doc" => {}
            _ => return Err(LeftOut::Option),
        }
    }
    Ok((pattern, important))
}

fn named(pattern: &str) -> Result<Named<'_>, LeftOut> {
    if pattern.len() > 1 && pattern.starts_with('/') && pattern.ends_with('/') {
        return Err(LeftOut::Regex);
    }
    if let Some(anchored) = pattern.strip_prefix("||") {
        let host = anchored.strip_suffix('|').unwrap_or(anchored);
        let host = host.strip_suffix(['^', '/']).unwrap_or(host);
        if let Some(host) = host_named(host, true) {
            return Ok(host);
        }
    } else if let Some(host) = host_named(pattern, false) {
        return Ok(host);
    }
    urls(pattern)
}

/// A name or address. `anchored`: what is below a name is named with it.
fn host_named(text: &str, anchored: bool) -> Option<Named<'static>> {
    if let Some(address) = address(text) {
        return Some(Named::Host { name: address.to_string(), itself: true, below: false });
    }
    let Domain { name, below } = text.parse().ok()?;
    // A word alone is a pattern's, but for this one.
    if !name.contains('.') && !anchored && !below && name != "localhost" {
        return None;
    }
    Some(Named::Host { name, itself: !below, below: below || anchored })
}

fn urls(pattern: &str) -> Result<Named<'_>, LeftOut> {
    if pattern.is_empty() || !pattern.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(LeftOut::Malformed);
    }
    // A word, or two, without anything of a URL: more likely a slip than a filter.
    if !pattern.contains(['/', '|', '*', '^', '=', '?', '&', '.', ':', '-', '_']) {
        return Err(LeftOut::Malformed);
    }
    let is_found = |literal: &str| literal.len() >= MIN_LITERAL && !matches!(literal, "http://" | "https://");
    if pattern.split(['*', '^', '|']).any(is_found) {
        Ok(Named::Urls(pattern))
    } else {
        Err(LeftOut::TooBroad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Result<&[&str], LeftOut>) {
        let mut said = Vec::new();
        let result = read(line, |entry| {
            let mark = if entry.exception { "@@" } else { "" };
            let important = if entry.important { "!" } else { "" };
            said.push(match entry.named {
                Named::Host { name, itself, below } => {
                    let which = match (itself, below) {
                        (true, true) => "||",
                        (true, false) => "",
                        (false, _) => "*.",
                    };
                    format!("{mark}{which}{name}{important}")
                }
                Named::Urls(pattern) => format!("{mark}url {pattern}{important}"),
            });
        });
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        assert_eq!(result.map(|()| said.as_slice()), expected, "{line}");
    }

    #[test]
    fn names() {
        check("Ads.Example.COM", Ok(&["ads.example.com"]));
        check("ads.example.com.", Ok(&["ads.example.com"]));
        check("*.ads.example.com", Ok(&["*.ads.example.com"]));
        check("  ads.example.com  # a comment", Ok(&["ads.example.com"]));
        check("localhost", Ok(&["localhost"]));
        check("192.0.2.7", Ok(&["192.0.2.7"]));
        check("[2001:DB8::1]", Ok(&["2001:db8::1"]));
        check("::ffff:192.0.2.7", Ok(&["192.0.2.7"]));
        check("xn--bcher-kva.example", Ok(&["xn--bcher-kva.example"]));
        check("bücher.example", Err(LeftOut::Malformed));
    }

    #[test]
    fn comments() {
        for line in ["", "# x", "! x", "[Adblock Plus 2.0]", "   ", "#"] {
            check(line, Ok(&[]));
        }
    }

    #[test]
    fn hosts_files() {
        check("0.0.0.0 a.example b.example # c", Ok(&["a.example", "b.example"]));
        check("127.0.0.1\ta.example", Ok(&["a.example"]));
        check(":: a.example", Ok(&["a.example"]));
        check("127.0.0.1 localhost localhost.localdomain", Ok(&[]));
        check("192.0.2.1 nas.example", Err(LeftOut::Malformed));
        check("a.example b.example", Err(LeftOut::Malformed));
    }

    #[test]
    fn adblock() {
        check("||ads.example^", Ok(&["||ads.example"]));
        check("||ads.example", Ok(&["||ads.example"]));
        check("||ads.example^|", Ok(&["||ads.example"]));
        check("||ads.example/", Ok(&["||ads.example"]));
        check("||*.ads.example^", Ok(&["*.ads.example"]));
        check("||com^", Ok(&["||com"]));
        check("@@||good.example^", Ok(&["@@||good.example"]));
        check("||ads.example^$important", Ok(&["||ads.example!"]));
        check("||ads.example^$all", Ok(&["||ads.example"]));
        check("||ads.example/banner*", Ok(&["url ||ads.example/banner*"]));
        check("/banner/ads_", Ok(&["url /banner/ads_"]));
        check("|http://ads.example/|", Ok(&["url |http://ads.example/|"]));
        check("-ad-server.", Ok(&["url -ad-server."]));
        check("/a$b/cost?x=$1", Ok(&["url /a$b/cost?x=$1"]));
    }

    #[test]
    fn what_is_left_out() {
        check("example.com##.ad", Err(LeftOut::Cosmetic));
        check("##.ad", Err(LeftOut::Cosmetic));
        check("||ads.example^$third-party", Err(LeftOut::Option));
        check("||ads.example^$script,domain=a.example|b.example", Err(LeftOut::Option));
        check("/ads[0-9]+/", Err(LeftOut::Regex));
        check("*", Err(LeftOut::TooBroad));
        check("|https://", Err(LeftOut::TooBroad));
        check("hello", Err(LeftOut::Malformed));
    }

    #[test]
    fn what_shows_a_list() {
        for (line, expected) in [
            ("||a.example^", true),
            ("0.0.0.0 a.example", true),
            ("a b", false),
            ("a.example", false),
            ("*.a.example", false),
        ] {
            assert_eq!(is_of_list(line), expected, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line: String) {
            let _ = read(&line, |_| {});
        }
    }
}
