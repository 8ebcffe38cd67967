use super::*;
use crate::config::{self, PathPattern};

fn table() -> Table {
    let rules = "[{match: {host: api.example, path: /v1/*}, forward: {target: 'http://v1:1'}},\
                  {match: {host: '*.example'}, forward: {target: 'http://sub:1'}},\
                  {match: {path: /exact}, forward: {target: 'http://exact:1'}},\
                  {match: {path: /app/*}, forward: {target: 'http://app:1'}},\
                  {match: {host: '[::1]'}, forward: {target: 'http://six:1'}}]";
    let overrides =
        vec!["routing.default_backend=http://default:1".to_owned(), format!("routing.rules={rules}")];
    let sources = config::Sources { overrides, ..config::Sources::default() };
    Table::new(&config::load(&sources).unwrap(), None)
}

#[track_caller]
fn check(host: &str, path: &str, expected: &str) {
    let host = (!host.is_empty()).then(|| Authority::parse(host, Some(80)).unwrap().host);
    let table = table();
    let headers = Headers::default();
    let row = table.gateway(host.as_ref(), Asked { method: "GET", path, headers: &headers }).unwrap();
    assert_eq!(row.forward().to_string(), format!("http://{expected}:1"), "{host:?} {path}");
}

#[test]
fn the_first_rule_that_matches_decides() {
    check("api.example", "/v1/x?y", "v1");
    check("API.example.:81", "/v1", "v1");
    check("api.example", "/v10", "sub");
    check("a.b.example", "/app/", "sub");
    check("example", "/", "default");
    check("notexample", "/", "default");
    check("other", "/exact", "exact");
    check("other", "/exact?q=/app/", "exact");
    check("other", "/exact/", "default");
    check("other", "/app", "app");
    check("other", "/app/x/y", "app");
    check("other", "/apple", "default");
    check("", "/app/x", "app");
    check("", "*", "default");
    check("[::1]:8080", "/", "six");
    check("127.0.0.1", "/", "default");
}

#[test]
fn a_path_is_matched_as_a_server_will_read_it() {
    check("other", "/x/../app/y", "app");
    check("other", "/%61pp/y", "app");
    check("other", "/app/../y", "default");
    check("other", "/app/%2e%2E/y", "default");
    check("other", "/./exact", "exact");
}

#[test]
fn without_rules_there_is_no_way() {
    let asked = Asked { method: "GET", path: "/", headers: &Headers::default() };
    assert_eq!(Table::new(&Config::default(), None).gateway(None, asked), None);
}

/// A group called shop.
pub(super) fn group(settings: &str) -> Arc<Group> {
    let overrides = vec![format!("routing.backends=[{{name: shop, {settings}}}]")];
    let sources = config::Sources { overrides, ..config::Sources::default() };
    let table = Table::new(&config::load(&sources).unwrap(), None);
    Arc::clone(table.group("shop").unwrap())
}

#[test]
fn methods_headers_and_expressions() {
    let rules = "[{match: {path_regex: '/v[0-9]+/.*', methods: [POST]}, forward: {target: 'http://posted'}},\
                  {match: {path: /v1/*, headers: ['X-Beta: yes']}, forward: {target: 'http://beta'}},\
                  {match: {host: '*.example', path_regex: '/v[0-9]+/x'}, forward: {target: 'http://x'}},\
                  {match: {headers: ['X-Any']}, forward: {target: 'http://any'}},\
                  {match: {path_regex: '/(v2|v3)/.*'}, forward: {target: 'http://late'}}]";
    let sources =
        config::Sources { overrides: vec![format!("routing.rules={rules}")], ..config::Sources::default() };
    let table = Table::new(&config::load(&sources).unwrap(), None);
    let check = |method: &str, url: &str, fields: &[(&str, &str)], expected: Option<&str>| {
        let (host, path) = url.split_at(url.find('/').unwrap());
        let host = Authority::parse(host, Some(80)).unwrap().host;
        let mut headers = Headers::default();
        fields.iter().for_each(|(name, value)| headers.push(name.as_bytes(), value.as_bytes()));
        let row = table.gateway(Some(&host), Asked { method, path, headers: &headers });
        let expected = expected.map(|name| format!("http://{name}"));
        assert_eq!(row.map(|row| row.forward().to_string()), expected, "{method} {url} {fields:?}");
    };
    check("POST", "a/v1/a", &[("x-beta", "yes")], Some("posted"));
    check("GET", "a/v1/a", &[("x-beta", "yes")], Some("beta"));
    check("GET", "a/v1/a", &[("X-Beta", "no")], None);
    check("GET", "a.example/v1/x", &[], Some("x"));
    check("GET", "a.example/v1/x/y", &[], None);
    check("GET", "a.example/v2/x", &[("x-any", "")], Some("x"));
    check("GET", "a.example/v2/y", &[("x-any", "")], Some("any"));
    check("GET", "b/v2/y?/v9/", &[], Some("late"));
    check("GET", "b/w/v2/y", &[], None);
}

/// The index finds what a look at each rule finds.
#[test]
fn the_index_finds_the_first_rule() {
    use std::fmt::Write as _;
    let hosts = ["", "a.example", "*.example", "*.b.example", "192.0.2.1"];
    let paths = ["", "/*", "/a/*", "/a/b/*", "/a/b", "/a", "/c*"];
    let mut rules = String::new();
    // Each pair, in an order that has nothing to do with how special they are.
    for number in 0..hosts.len() * paths.len() {
        let (host, path) = (hosts[number * 3 % hosts.len()], paths[number * 5 % paths.len()]);
        let path = path.strip_suffix("c*").map_or(path, |_| "/c");
        if host.is_empty() && path.is_empty() {
            continue;
        }
        let host = if host.is_empty() { String::new() } else { format!("host: '{host}', ") };
        let path = if path.is_empty() { String::new() } else { format!("path: '{path}'") };
        let _ = write!(rules, "{{match: {{{host}{path}}}, forward: {{target: 'http://t{number}'}}}},");
    }
    let overrides = vec![format!("routing.rules=[{rules}]")];
    let config = config::load(&config::Sources { overrides, ..config::Sources::default() }).unwrap();
    let (table, headers) = (Table::new(&config, None), Headers::default());
    for host in ["a.example", "x.b.example", "b.example", "example", "192.0.2.1", "other"] {
        for path in ["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/c", "*", "/a//b"] {
            let host = Authority::parse(host, Some(80)).unwrap().host;
            let slow = config.routing.rules.iter().position(|rule| {
                let matches = &rule.matches;
                matches.host.as_ref().is_none_or(|pattern| pattern.matches(&host))
                    && matches.path.as_ref().is_none_or(|pattern| match pattern {
                        PathPattern::Exact(exact) => **exact == *path,
                        PathPattern::Below(above) => path
                            .strip_prefix(&**above)
                            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
                    })
            });
            let found = match table.gateway(Some(&host), Asked { method: "GET", path, headers: &headers }) {
                Some(Row::Rule(number, _)) => Some(number - 1),
                _ => None,
            };
            assert_eq!(found, slow, "{host} {path}");
        }
    }
}
