//! `security.filtering` for captured programs: judged by SNI and Host, which must be more than claims where they let
//! something pass.

use std::io::{Read as _, Write as _};

use weir_tests::dns::{Asked, Reply, Server, address, answers};
use weir_tests::weir::Weir;
use weir_tests::{http, netns, scripts};

fn zone(asked: &Asked) -> Reply {
    match asked.name.as_str() {
        "www.example" => answers(&[address("www.example", 300, netns::V4)]),
        _ => Reply { rcode: 3, ..Reply::default() },
    }
}

/// Answers whatever comes with an HTTP response.
fn server(host: &str) -> http::Server {
    http::server(host, |mut stream| {
        let mut first = [0; 4096];
        if stream.read(&mut first).is_ok_and(|read| read > 0) {
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nreached");
        }
    })
}

/// What comes of each attempt, `KIND NAME ADDRESS PORT`: `reached`, a status, or an error. KIND is http, tls or opaque.
fn attempts(weir: &Weir, resolve: &str, attempts: &[String]) -> Vec<String> {
    let path = scripts::path("claims.py");
    let all = attempts.join("\n");
    let arguments = ["python3", path.as_str(), resolve, &all];
    scripts::stdout(&mut weir.exec(&arguments)).lines().map(str::to_owned).collect()
}

#[test]
fn what_is_blocked_is_blocked_by_host_and_server_name() {
    netns::enter();
    let (server, other) = (server(netns::V4), server(netns::V4_OTHER));
    let weir =
        Weir::capturing("security: {filtering: {domains: {blocked: ['||ads.example^', '198.18.0.2']}}}\n");
    let place = format!("{} {}", server.ip(), server.port());
    let asked: Vec<String> = [
        "http www.example",
        "http x.ADS.example.",
        "tls www.example",
        "tls ads.example",
        "tls X.Ads.Example",
        "tls -",
        "opaque -",
    ]
    .iter()
    .map(|attempt| format!("{attempt} {place}"))
    .chain([format!("tls www.example {} {}", other.ip(), other.port())])
    .collect();
    let answers = attempts(&weir, "", &asked);
    let expected =
        ["reached", "403", "reached", "ECONNRESET", "ECONNRESET", "reached", "reached", "ECONNRESET"];
    assert_eq!(answers, expected);
    let flows = weir.flows(8);
    let denied = flows.iter().filter(|flow| flow["end"] == "denied");
    let rules: Vec<&str> = denied.filter_map(|flow| flow["verdict_rule"].as_str()).collect();
    assert_eq!(rules.iter().filter(|rule| rule.starts_with("`||ads.example^` of ")).count(), 3, "{rules:?}");
    assert_eq!(rules.iter().filter(|rule| rule.starts_with("`198.18.0.2` of ")).count(), 1, "{rules:?}");
}

#[test]
fn a_claim_is_not_enough_to_be_allowed() {
    netns::enter();
    let _dns = Server::start(netns::V6_OTHER, zone);
    let (www, other) = (server(netns::V4), server(netns::V4_OTHER));
    let weir =
        Weir::capturing("security: {filtering: {mode: allowlist, domains: {allowed: ['||www.example^']}}}\n");
    let (www, other) = (format!("{} {}", www.ip(), www.port()), format!("{} {}", other.ip(), other.port()));
    let asked = [
        format!("http www.example {www}"),
        format!("tls WWW.example {www}"),
        // Its address is another one: the name is a claim.
        format!("http www.example {other}"),
        format!("tls www.example {other}"),
        format!("tls x.www.example {www}"),
        format!("http other.example {www}"),
        format!("tls - {www}"),
        format!("opaque - {www}"),
    ];
    let answers = attempts(&weir, "www.example", &asked);
    let reset = "ECONNRESET";
    assert_eq!(answers, ["reached", "reached", "403", reset, reset, "403", reset, reset]);
    let flows = weir.flows(8);
    let claims = flows.iter().filter(|flow| {
        flow["verdict"].as_str().is_some_and(|text| text.contains("is not known to lead to 198.18.0.2"))
    });
    assert_eq!(claims.count(), 2, "{flows:?}");
}

/// Rules on what is connected to hold for captured programs as well.
#[test]
fn rules_hold_for_captured_programs() {
    netns::enter();
    let (www, other) = (server(netns::V4), server(netns::V4_OTHER));
    let weir = Weir::capturing(
        "security: {acl: {rules: [{name: there, destinations: [198.18.0.2], action: deny}]}}\n",
    );
    let asked = [
        format!("http www.example {} {}", www.ip(), www.port()),
        format!("http www.example {} {}", other.ip(), other.port()),
        format!("tls www.example {} {}", other.ip(), other.port()),
    ];
    assert_eq!(attempts(&weir, "", &asked), ["reached", "403", "ECONNRESET"]);
}
