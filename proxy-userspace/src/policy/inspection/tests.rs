//! Bodies in every coding, and what is made of them.

use std::io::Write as _;

use super::*;
use crate::config::Direction;

/// The EICAR test file, put together here so that this file is not one.
pub(crate) fn eicar() -> Vec<u8> {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat().into_bytes()
}

fn coded(content: &[u8], coding: &str) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        "raw" => {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            encoder.write_all(content).unwrap();
            encoder.into_inner()
        }
        "zstd" => zstd::encode_all(content, 3).unwrap(),
        other => panic!("{other}"),
    }
}

fn judged(settings: &config::Inspection, content: &[u8], whole: bool, encodings: &[&str]) -> Verdict {
    let settings = config::Inspection { enabled: true, ..settings.clone() };
    let inspection = Inspection::load(&settings).unwrap().unwrap();
    let mut headers = Headers::default();
    encodings.iter().for_each(|value| headers.push(b"Content-Encoding", value.as_bytes()));
    let mut held = inspection.hold(None);
    inspection.take(&mut held, content);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(inspection.judge(held, whole, &headers)).0
}

#[track_caller]
fn check(content: &[u8], whole: bool, encodings: &[&str], expected: &str) {
    let verdict = judged(&config::Inspection::default(), content, whole, encodings);
    assert!(format!("{verdict:?}").contains(expected), "{encodings:?}: {verdict:?}, not {expected}");
}

#[test]
fn what_matches_is_found_in_every_coding() {
    let text = [b"PK and more ".as_slice(), &eicar(), b"\r\n--boundary--"].concat();
    check(&text, true, &[], "EICAR_test_file");
    check(b"nothing", true, &[], "Clean");
    check(b"", true, &["gzip"], "Clean");
    for coding in ["gzip", "deflate", "br", "zstd"] {
        check(&coded(&text, coding), true, &[coding], "EICAR_test_file");
        check(&coded(b"nothing", coding), true, &[coding], "Clean");
    }
    check(&coded(&text, "raw"), true, &["deflate"], "EICAR_test_file");
    check(&coded(&text, "gzip"), true, &["X-GZIP"], "EICAR_test_file");
    let twice = coded(&coded(&text, "zstd"), "gzip");
    check(&twice, true, &["zstd, gzip"], "EICAR_test_file");
    check(&twice, true, &["zstd", "identity", "gzip"], "EICAR_test_file");
    let members = [coded(b"first", "gzip"), coded(&text, "gzip")].concat();
    check(&members, true, &["gzip"], "EICAR_test_file");
}

#[test]
fn what_cannot_be_read_is_not_clean() {
    check(&coded(b"nothing", "gzip"), true, &["compress"], "Undecided");
    check(b"nothing", true, &["gzip"], "Undecided");
    check(&[0; 9], true, &["gzip, gzip, gzip, gzip, gzip"], "Undecided");
    for coding in ["gzip", "zstd", "br"] {
        let cut = coded(&vec![7; 9000], coding);
        check(&cut[..cut.len() - 2], true, &[coding], "Undecided");
        check(&cut[..cut.len() - 2], false, &[coding], "Clean");
    }
    // What it says may be untrue; whoever does not decode it gets it as it is.
    check(&eicar(), true, &["compress"], "EICAR_test_file");
    check(&eicar(), true, &["gzip"], "EICAR_test_file");
}

#[test]
fn bombs_end_at_their_caps() {
    let zeros = vec![0; 80 << 20];
    let with_ratio = |max_ratio| config::Inspection { max_ratio, ..config::Inspection::default() };
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let bomb = coded(&zeros, coding);
        for (ratio, expected) in [(20, "max_ratio"), (1_000_000, "max_decoded")] {
            let verdict = judged(&with_ratio(ratio), &bomb, true, &[coding]);
            assert!(format!("{verdict:?}").contains(expected), "{coding}: {verdict:?}");
        }
        let with_a_head = coded(&[eicar(), zeros.clone()].concat(), coding);
        check(&with_a_head, true, &[coding], "EICAR_test_file");
    }
}

#[test]
fn time_is_a_cap() {
    let hasty = config::Inspection { timeout: Duration::ZERO, ..config::Inspection::default() };
    let verdict = judged(&hasty, b"content", true, &[]);
    assert_eq!(verdict, Verdict::Undecided(TOO_LONG.into()));
}

#[test]
fn rules_come_from_files_and_what_they_include() {
    let folder = tempfile::tempdir().unwrap();
    let rule = |name: &str, text: &str| format!("rule {name} {{ strings: $a = \"{text}\" condition: $a }}\n");
    std::fs::create_dir(folder.path().join("more")).unwrap();
    std::fs::write(folder.path().join("more/inner.yar"), rule("inner", "in the inner file")).unwrap();
    let outer = format!("include \"more/inner.yar\"\n{}", rule("outer", "in the outer file"));
    std::fs::write(folder.path().join("outer.yar"), outer).unwrap();
    let settings = config::Inspection {
        enabled: true,
        rules: vec![folder.path().join("outer.yar")],
        ..config::Inspection::default()
    };
    for (text, expected) in [("in the inner file", "inner"), ("in the outer file", "outer")] {
        assert_eq!(judged(&settings, text.as_bytes(), true, &[]), Verdict::Match(expected.into()));
    }
    let one = Inspection::load(&settings).unwrap().unwrap();
    let same = Inspection::load(&settings).unwrap().unwrap();
    assert_eq!((one.rules(), one.fingerprint()), (3, same.fingerprint()));
    std::fs::write(folder.path().join("more/inner.yar"), rule("inner", "something else")).unwrap();
    let other = Inspection::load(&settings).unwrap().unwrap();
    assert_ne!(one.fingerprint(), other.fingerprint());
    std::fs::write(folder.path().join("outer.yar"), "rule broken {").unwrap();
    let error = Inspection::load(&settings).unwrap_err().to_string();
    assert!(error.contains("outer.yar"), "{error}");
}

#[test]
fn what_is_held_is_bounded_and_given_back() {
    let settings =
        config::Inspection { max_size: 10, memory: 15, enabled: true, ..config::Inspection::default() };
    let inspection = Inspection::load(&settings).unwrap().unwrap();
    let mut first = inspection.hold(Some(u64::MAX));
    assert!(inspection.take(&mut first, b"12345"));
    assert!(!inspection.take(&mut first, b"67890"));
    let mut second = inspection.hold(None);
    assert!(!inspection.take(&mut second, b"12345"), "there is no more memory");
    drop(first);
    let mut third = inspection.hold(None);
    assert!(inspection.take(&mut third, b"12345"));
}

#[test]
fn what_becomes_of_it_is_a_rule() {
    use Access::{Allow, Deny};
    let undecided = || Verdict::Undecided("why".into());
    let failed = || Verdict::ClamdFailed("why".into());
    for (verdict, whole, rules, expected) in [
        (Verdict::Clean, true, (Deny, Deny, Deny), ""),
        (Verdict::Clean, false, (Allow, Deny, Deny), ""),
        (Verdict::Clean, false, (Deny, Allow, Allow), "partial"),
        (Verdict::Match("x".into()), true, (Allow, Allow, Allow), "x"),
        (undecided(), true, (Allow, Deny, Allow), "undecided"),
        (undecided(), true, (Deny, Allow, Deny), ""),
        (undecided(), false, (Deny, Allow, Deny), "partial"),
        (failed(), true, (Allow, Allow, Deny), "clamd.on_failure"),
        (failed(), true, (Deny, Deny, Allow), ""),
    ] {
        let (partial, undecided, on_failure) = rules;
        let clamd = config::Clamd { on_failure, ..config::Clamd::default() };
        let settings =
            config::Inspection { enabled: true, partial, undecided, clamd, ..config::Inspection::default() };
        let inspection = Inspection::load(&settings).unwrap().unwrap();
        let acted = inspection.act(verdict.clone(), whole, Direction::Response);
        let rule = acted.err().map(|refusal| refusal.rule.into_owned()).unwrap_or_default();
        assert_eq!(
            rule.trim_start_matches("security.inspection."),
            expected,
            "{verdict:?} {whole} {rules:?}"
        );
    }
}
