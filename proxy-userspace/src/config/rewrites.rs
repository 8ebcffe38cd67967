//! `upstream.rewrites`: servers that are really elsewhere.

use std::ops::RangeInclusive;

use super::kinds::{Fault, port_range, quoted};
use super::patterns::{HostPattern, host_pattern};
use super::section::Section;
use crate::authority::{Authority, Host, Scheme};

/// One rule. The first that names a server decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Rewrite {
    pub hosts: Vec<HostPattern>,
    /// Default all.
    pub ports: Vec<RangeInclusive<u16>>,
    to: Template,
}

/// `http://` or `https://`, and a server, in which `{host}` and `{port}` stand for those that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Template {
    scheme: Scheme,
    authority: Box<str>,
}

impl Rewrite {
    /// Where this server is by this rule. None: that is no server's name.
    #[must_use]
    pub fn of(&self, asked: &Authority) -> Option<(Scheme, Authority)> {
        let host = match &asked.host {
            Host::Name(name) => name.strip_suffix('.').unwrap_or(name).to_owned(),
            Host::Address(address) => address.to_string(),
        };
        self.to.filled(&host, asked.port).map(|there| (self.to.scheme, there))
    }
}

impl Template {
    fn filled(&self, host: &str, port: u16) -> Option<Authority> {
        let text = self.authority.replace("{host}", host).replace("{port}", &port.to_string());
        Authority::parse(&text, Some(self.scheme.default_port())).ok()
    }
}

pub(super) fn read(s: &mut Section<'_, '_>) -> Vec<Rewrite> {
    s.sections("rewrites", |s| {
        let hosts = s.list("hosts", Vec::new(), host_pattern);
        if hosts.is_empty() {
            s.error("it names no `hosts`");
        }
        // What stands in is of no account: that it is missing has been reported.
        let nowhere = Template { scheme: Scheme::Http, authority: Box::default() };
        Rewrite {
            hosts,
            ports: s.list("ports", Vec::new(), port_range()),
            to: s.required("to", template).unwrap_or(nowhere),
        }
    })
}

fn template(text: &str) -> Result<Template, Fault> {
    let bad = || {
        let why = "is not http:// or https://, and a server such as {host}.example.com or 10.0.0.1:{port}";
        Fault::from(format!("{} {why}", quoted(text)))
    };
    let (scheme, rest) = match text.split_once("://") {
        Some(("http", rest)) => (Scheme::Http, rest),
        Some(("https", rest)) => (Scheme::Https, rest),
        _ => return Err(bad()),
    };
    let template = Template { scheme, authority: rest.strip_suffix('/').unwrap_or(rest).into() };
    template.filled("host.example", 65_535).map(|_| template).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::load_files;

    #[test]
    fn rules() {
        for (rule, expected) in [
            ("{to: 'http://a'}", "it names no `hosts`"),
            ("{hosts: [a]}", "no `to`, which it needs"),
            ("{hosts: [a], to: a.test}", "is not http:// or https://"),
            ("{hosts: [a], to: 'http://{name}'}", "is not http:// or https://"),
            ("{hosts: [a], to: 'http://a/b'}", "is not http:// or https://"),
        ] {
            let yaml = format!("upstream: {{rewrites: [{rule}]}}");
            let errors = load_files(&[yaml.as_bytes()], &[], &[]).unwrap_err();
            assert!(errors.contains(expected), "{rule}: {errors}");
        }
        let yaml = "upstream: {rewrites: [{hosts: ['*.old.test'], to: 'https://{host}.new.test:8443'}]}";
        let config = load_files(&[yaml.as_bytes()], &[], &[]).unwrap();
        let asked = Authority::parse("A.old.test.:80", None).unwrap();
        let (scheme, there) = config.upstream.rewrites[0].of(&asked).unwrap();
        assert_eq!((scheme, there.to_string().as_str()), (Scheme::Https, "a.old.test.new.test:8443"));
    }
}
