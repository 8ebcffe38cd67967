//! How long requests took, and how they were answered: counted by each worker for itself, told as one.

use std::fmt::Write as _;

use super::flow::{Flow, Protocol};
use super::metrics::Counter;

/// Upper bounds in microseconds, and as Prometheus writes them in seconds. From a store's answer to a slow server's.
const BOUNDS: [(u64, &str); 14] = [
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (5_000_000, "5"),
    (30_000_000, "30"),
];

/// The classes of status codes (RFC 9110 §15).
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Switching Protocols: what follows is no request any more, and lasts as long as it likes.
const SWITCHED: u16 = 101;

/// What one worker has counted.
#[derive(Debug, Default)]
pub struct Requests {
    /// Each counts what is above the bound before it; the last what is above all.
    took: [Counter; BOUNDS.len() + 1],
    microseconds: Counter,
    classes: [Counter; CLASSES.len()],
}

impl Requests {
    /// Takes note of a finished flow, if it was a request.
    pub fn note(&self, flow: &Flow) {
        if !matches!(flow.protocol, Protocol::Http1 | Protocol::Http2) || flow.status == Some(SWITCHED) {
            return;
        }
        let took = flow.timings.total_us;
        let bucket = BOUNDS.iter().position(|(bound, _)| took <= *bound).unwrap_or(BOUNDS.len());
        self.took[bucket].increment();
        self.microseconds.add(took);
        let class = flow.status.and_then(|status| usize::from(status / 100).checked_sub(1));
        if let Some(class) = class.and_then(|class| self.classes.get(class)) {
            class.increment();
        }
    }
}

/// Appends what all workers have counted.
pub(super) fn write(text: &mut String, workers: &[&Requests]) {
    let sum = |counter: &dyn Fn(&Requests) -> u64| workers.iter().map(|worker| counter(worker)).sum::<u64>();
    let name = "weir_http_request_duration_seconds";
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "# HELP {name} From a request's first byte to the end of its answer.\n# TYPE {name} histogram"
    );
    let mut count = 0;
    for (index, bound) in BOUNDS.iter().map(|(_, bound)| *bound).chain(["+Inf"]).enumerate() {
        count += sum(&|worker| worker.took[index].value());
        let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
    }
    let seconds = sum(&|worker| worker.microseconds.value()) as f64 / 1e6;
    let _ = writeln!(text, "{name}_sum {seconds}\n{name}_count {count}");
    let name = "weir_http_responses_total";
    let _ = writeln!(text, "# HELP {name} Answers to requests, by class of status.\n# TYPE {name} counter");
    for (index, class) in CLASSES.iter().enumerate() {
        let _ =
            writeln!(text, "{name}{{class=\"{class}\"}} {}", sum(&|worker| worker.classes[index].value()));
    }
}
