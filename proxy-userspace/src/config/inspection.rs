//! `security.inspection`: what is looked for in bodies.

use std::path::PathBuf;
use std::time::Duration;

use super::Access;
use super::keys::ms;
use super::kinds::{Fault, GIB, KIB, MIB, choice, duration, none_or, number, path, quoted, size, switch};
use super::patterns::{HostPattern, host_pattern};
use super::section::Section;

/// `security.inspection`.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Default false.
    pub enabled: bool,
    /// Bodies of requests. Default on.
    pub requests: bool,
    /// Bodies of responses. Default on.
    pub responses: bool,
    /// The rule of weir's own, for the EICAR test file. Default on.
    pub builtin: bool,
    /// Files of YARA rules. Default none.
    pub rules: Vec<PathBuf>,
    /// Servers whose bodies are not looked at. Default none.
    pub except: Vec<HostPattern>,
    /// So much of a body is held back and judged. Default 8MiB.
    pub max_size: u64,
    /// How long a body may take to arrive until it is judged. Default 10s.
    pub max_wait: Duration,
    /// What is held of all bodies together. Default 256MiB.
    pub memory: u64,
    /// What becomes of a body that goes on beyond one of these, once its beginning was judged. Default allow.
    pub partial: Access,
    /// What a body may decode to. Default 64MiB.
    pub max_decoded: u64,
    /// How many times as large as the body that may be. Default 250.
    pub max_ratio: u64,
    /// How long judging it may take. Default 10s.
    pub timeout: Duration,
    /// What becomes of a body that can't be judged within these, or read. Default deny.
    pub undecided: Access,
    /// Threads that judge. Default 2.
    pub threads: usize,
    pub clamd: Clamd,
}

/// `security.inspection.clamd`.
#[derive(Debug, Clone, PartialEq)]
pub struct Clamd {
    /// Default none.
    pub address: Option<ClamdAddress>,
    /// How long it may take for each step. Default 5s.
    pub timeout: Duration,
    /// What becomes of a body that it has no verdict on. Default deny.
    pub on_failure: Access,
}

/// Where a clamd listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClamdAddress {
    Socket(PathBuf),
    /// `host:port`
    Tcp(String),
}

impl Default for Inspection {
    fn default() -> Self {
        Self {
            enabled: false,
            requests: true,
            responses: true,
            builtin: true,
            rules: Vec::new(),
            except: Vec::new(),
            max_size: 8 * MIB,
            max_wait: ms(10_000),
            memory: 256 * MIB,
            partial: Access::Allow,
            max_decoded: 64 * MIB,
            max_ratio: 250,
            timeout: ms(10_000),
            undecided: Access::Deny,
            threads: 2,
            clamd: Clamd::default(),
        }
    }
}

impl Default for Clamd {
    fn default() -> Self {
        Self { address: None, timeout: ms(5_000), on_failure: Access::Deny }
    }
}

/// What becomes of a body.
const VERDICTS: &[(&str, Access)] = &[("allow", Access::Allow), ("block", Access::Deny)];

pub(super) fn read(s: &mut Section<'_, '_>) -> Inspection {
    let d = Inspection::default();
    Inspection {
        enabled: s.read("enabled", d.enabled, switch()),
        requests: s.read("requests", d.requests, switch()),
        responses: s.read("responses", d.responses, switch()),
        builtin: s.read("builtin", d.builtin, switch()),
        rules: s.list("rules", d.rules, path()),
        except: s.list("except", d.except, host_pattern),
        max_size: s.read("max_size", d.max_size, size(KIB..=GIB)),
        max_wait: s.read("max_wait", d.max_wait, duration(ms(10)..=ms(600_000))),
        memory: s.read("memory", d.memory, size(MIB..=1024 * GIB)),
        partial: s.read("partial", d.partial, choice(VERDICTS)),
        max_decoded: s.read("max_decoded", d.max_decoded, size(64 * KIB..=GIB)),
        max_ratio: s.read("max_ratio", d.max_ratio, number(1..=1_000_000)),
        timeout: s.read("timeout", d.timeout, duration(ms(10)..=ms(600_000))),
        undecided: s.read("undecided", d.undecided, choice(VERDICTS)),
        threads: s.read("threads", d.threads, number(1..=256)),
        clamd: s.section("clamd", clamd),
    }
}

fn clamd(s: &mut Section<'_, '_>) -> Clamd {
    let d = Clamd::default();
    Clamd {
        address: s.read("address", d.address, none_or(clamd_address)),
        timeout: s.read("timeout", d.timeout, duration(ms(10)..=ms(600_000))),
        on_failure: s.read("on_failure", d.on_failure, choice(VERDICTS)),
    }
}

fn clamd_address(text: &str) -> Result<ClamdAddress, Fault> {
    if text.starts_with('/') {
        return Ok(ClamdAddress::Socket(text.into()));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok(ClamdAddress::Tcp(text.to_owned()))
        }
        _ => Err(format!(
            "{} is neither the path of a socket, as /run/clamav/clamd.ctl, nor host:port, as 127.0.0.1:3310",
            quoted(text)
        )
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load_files;

    #[test]
    fn a_clamd_is_somewhere() {
        for (address, expected) in [
            ("/run/clamd.ctl", ""),
            ("127.0.0.1:3310", ""),
            ("'[::1]:3310'", ""),
            ("scanner", "is neither the path of a socket"),
            ("scanner:0", "is neither the path of a socket"),
        ] {
            let yaml = format!("security: {{inspection: {{clamd: {{address: {address}}}}}}}");
            let errors = load_files(&[yaml.as_bytes()], &[], &[]).err().unwrap_or_default();
            assert!(
                errors.contains(expected) && errors.is_empty() == expected.is_empty(),
                "{address}: {errors}"
            );
        }
    }
}
