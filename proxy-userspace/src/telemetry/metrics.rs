//! Counters of the data plane. Each worker thread counts for itself; a reader adds them up.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

pub use super::counter::Counter;
use super::histogram::{self, Requests};

/// One worker's counters. One line here and one in [`Worker::each`] make a metric.
#[derive(Debug, Default)]
#[repr(align(128))] // a cache line pair of its own: workers never write to each other's lines
pub struct Worker {
    pub explicit_connections: Counter,
    pub captured_connections: Counter,
    pub http2_connections: Counter,
    pub http2_floods: Counter,
    pub closed_connections: Counter,
    pub refused_connections: Counter,
    pub refused_client_connections: Counter,
    pub shed_connections: Counter,
    pub overload_answers: Counter,
    pub lost_destinations: Counter,
    pub requests: Counter,
    pub tunnels: Counter,
    pub denied: Counter,
    pub denied_by_rules: Counter,
    pub denied_by_lists: Counter,
    pub denied_by_inspection: Counter,
    pub inspected: Counter,
    pub body_replacements: Counter,
    pub body_rules_skipped: Counter,
    pub inspection_partial: Counter,
    pub inspection_undecided: Counter,
    pub denied_by_auth: Counter,
    pub denied_by_limits: Counter,
    pub upstream_connects: Counter,
    pub upstream_failures: Counter,
    pub upstream_reuses: Counter,
    pub upstream_moves: Counter,
    pub upstream_requests: Counter,
    pub upstream_retries: Counter,
    pub service_requests: Counter,
    pub service_failures: Counter,
    pub service_rewrites: Counter,
    pub queued_requests: Counter,
    pub queue_refusals: Counter,
    pub upstream_http2_connections: Counter,
    pub downstream_tls_sessions: Counter,
    pub downstream_tls_failures: Counter,
    pub intercepted: Counter,
    pub intercept_minted: Counter,
    pub intercept_minted_hits: Counter,
    pub intercept_distrusted: Counter,
    pub intercept_client_failures: Counter,
    pub intercept_server_failures: Counter,
    pub intercept_misdirected: Counter,
    pub intercept_passed: Counter,
    pub tls_refused: Counter,
    pub upstream_tls_sessions: Counter,
    pub upstream_tls_failures: Counter,
    pub sent_bytes: Counter,
    pub received_bytes: Counter,
    pub broken_tunnels: Counter,
    pub dropped_flows: Counter,
    pub cache_hits: Counter,
    pub cache_stale_hits: Counter,
    pub cache_revalidations: Counter,
    pub cache_collapsed: Counter,
    pub cache_misses: Counter,
    pub cache_stores: Counter,
    pub cache_bytes: Counter,
    pub compressed_responses: Counter,
    pub compression_input_bytes: Counter,
    pub compression_output_bytes: Counter,
    pub compression_skipped: Counter,
    pub dns_queries: Counter,
    pub dns_cache_hits: Counter,
    pub dns_failures: Counter,
    pub dns_dropped: Counter,
    pub dns_rebindings: Counter,
    pub finished: Requests,
}

impl Worker {
    fn each(&self) -> [(&'static str, &'static str, &Counter); 68] {
        [
            (
                "explicit_connections_total",
                "Connections accepted by the explicit proxy.",
                &self.explicit_connections,
            ),
            (
                "captured_connections_total",
                "Connections redirected here by the kernel half.",
                &self.captured_connections,
            ),
            (
                "http2_connections_total",
                "Downstream connections that speak HTTP/2 to weir.",
                &self.http2_connections,
            ),
            (
                "http2_floods_total",
                "HTTP/2 connections ended because their client sent too much of what only costs.",
                &self.http2_floods,
            ),
            ("closed_connections_total", "Downstream connections that have ended.", &self.closed_connections),
            (
                "refused_connections_total",
                "Connections for which there was no place: server.limits.connections was reached.",
                &self.refused_connections,
            ),
            (
                "refused_client_connections_total",
                "Connections of clients that had server.limits.connections_per_client already.",
                &self.refused_client_connections,
            ),
            (
                "shed_connections_total",
                "Idle connections closed to make room for others.",
                &self.shed_connections,
            ),
            (
                "overload_answers_total",
                "Connections without a place answered with 503.",
                &self.overload_answers,
            ),
            (
                "lost_destinations_total",
                "Captured connections without an original destination; each was reset.",
                &self.lost_destinations,
            ),
            ("http_requests_total", "HTTP requests answered or forwarded.", &self.requests),
            ("tunnels_total", "Tunnels opened.", &self.tunnels),
            ("denied_total", "Requests and tunnels that policy refused.", &self.denied),
            ("denied_by_rules_total", "Those that security.acl.rules refused.", &self.denied_by_rules),
            ("denied_by_lists_total", "Those that security.filtering refused.", &self.denied_by_lists),
            (
                "denied_by_inspection_total",
                "Those that security.inspection refused.",
                &self.denied_by_inspection,
            ),
            (
                "body_replacements_total",
                "Places in bodies where security.body_rules has replaced text.",
                &self.body_replacements,
            ),
            ("body_rules_skipped_total", "Responses that these could not read.", &self.body_rules_skipped),
            ("inspected_total", "Bodies that security.inspection has looked at.", &self.inspected),
            (
                "inspection_partial_total",
                "Those of which only the beginning was judged.",
                &self.inspection_partial,
            ),
            ("inspection_undecided_total", "Those that could not be judged.", &self.inspection_undecided),
            (
                "denied_by_auth_total",
                "Those without credentials that are needed, or with wrong ones.",
                &self.denied_by_auth,
            ),
            ("denied_by_limits_total", "Those of clients that ask too often.", &self.denied_by_limits),
            ("upstream_connects_total", "Connections opened to upstreams.", &self.upstream_connects),
            (
                "upstream_failures_total",
                "Connections to upstreams that could not be opened.",
                &self.upstream_failures,
            ),
            (
                "upstream_reuses_total",
                "Requests sent over a kept upstream connection.",
                &self.upstream_reuses,
            ),
            (
                "upstream_moves_total",
                "Kept upstream connections that one worker has taken over from another.",
                &self.upstream_moves,
            ),
            ("upstream_requests_total", "Requests sent to upstreams.", &self.upstream_requests),
            ("upstream_retries_total", "Refused connections tried again.", &self.upstream_retries),
            ("service_requests_total", "Requests for apps below services.prefix.", &self.service_requests),
            (
                "service_failures_total",
                "Requests for apps that were reached by none of their ways.",
                &self.service_failures,
            ),
            (
                "service_rewrites_total",
                "Answers of apps that were changed on their way.",
                &self.service_rewrites,
            ),
            ("queued_requests_total", "Requests that waited for their origin.", &self.queued_requests),
            (
                "queue_refusals_total",
                "Requests refused because too many waited for their origin, or for too long.",
                &self.queue_refusals,
            ),
            ("downstream_tls_sessions_total", "TLS sessions with clients.", &self.downstream_tls_sessions),
            (
                "downstream_tls_failures_total",
                "TLS handshakes with clients that failed.",
                &self.downstream_tls_failures,
            ),
            (
                "intercepted_total",
                "TLS connections in which weir has taken the server's place.",
                &self.intercepted,
            ),
            ("intercept_minted_total", "Certificates made for that.", &self.intercept_minted),
            (
                "intercept_minted_hits_total",
                "Certificates for that which were there already.",
                &self.intercept_minted_hits,
            ),
            (
                "intercept_distrusted_total",
                "Clients that have refused weir's certificate.",
                &self.intercept_distrusted,
            ),
            (
                "intercept_client_failures_total",
                "Other failed handshakes with clients whose TLS was to be intercepted.",
                &self.intercept_client_failures,
            ),
            (
                "intercept_server_failures_total",
                "Failed handshakes with servers whose place was to be taken.",
                &self.intercept_server_failures,
            ),
            (
                "intercept_misdirected_total",
                "Clients that asked in TLS for another server than the one they had asked for.",
                &self.intercept_misdirected,
            ),
            (
                "intercept_passed_total",
                "Connections passed through because there was no session with the server.",
                &self.intercept_passed,
            ),
            ("tls_refused_total", "ClientHellos refused by tls.no_sni and tls.ech.", &self.tls_refused),
            ("upstream_tls_sessions_total", "TLS sessions with upstreams.", &self.upstream_tls_sessions),
            (
                "upstream_tls_failures_total",
                "TLS handshakes with upstreams that failed.",
                &self.upstream_tls_failures,
            ),
            (
                "upstream_http2_connections_total",
                "Connections to upstreams that speak HTTP/2.",
                &self.upstream_http2_connections,
            ),
            ("sent_bytes_total", "Bytes relayed from downstream to upstream.", &self.sent_bytes),
            ("received_bytes_total", "Bytes relayed from upstream to downstream.", &self.received_bytes),
            ("broken_tunnels_total", "Tunnels that ended by a reset or a time-out.", &self.broken_tunnels),
            (
                "dropped_flows_total",
                "Flow records lost because nobody took them fast enough.",
                &self.dropped_flows,
            ),
            ("cache_hits_total", "Requests answered from store with a fresh response.", &self.cache_hits),
            (
                "cache_stale_hits_total",
                "Requests answered from store with a stale response.",
                &self.cache_stale_hits,
            ),
            (
                "cache_revalidations_total",
                "Requests answered from store after their origin was asked.",
                &self.cache_revalidations,
            ),
            (
                "cache_collapsed_total",
                "Requests answered with the response to another one under way.",
                &self.cache_collapsed,
            ),
            (
                "cache_misses_total",
                "Requests that the cache had to send on, unsafe methods included.",
                &self.cache_misses,
            ),
            ("cache_stores_total", "Responses stored.", &self.cache_stores),
            ("cache_bytes_total", "Bytes of content delivered from store.", &self.cache_bytes),
            ("compressed_responses_total", "Responses that were compressed.", &self.compressed_responses),
            (
                "compression_input_bytes_total",
                "Bytes of content before compression.",
                &self.compression_input_bytes,
            ),
            (
                "compression_output_bytes_total",
                "Bytes of content after compression.",
                &self.compression_output_bytes,
            ),
            (
                "compression_skipped_total",
                "Responses not compressed because compression.max_streams were at work.",
                &self.compression_skipped,
            ),
            ("dns_queries_total", "Queries of captured processes over UDP.", &self.dns_queries),
            (
                "dns_cache_hits_total",
                "Queries of captured processes answered from store.",
                &self.dns_cache_hits,
            ),
            (
                "dns_failures_total",
                "Queries of captured processes that their server did not answer, or with nonsense.",
                &self.dns_failures,
            ),
            ("dns_dropped_total", "Queries dropped because too many were under way.", &self.dns_dropped),
            (
                "dns_rebindings_total",
                "Answers refused because a name had an address that capture.dns.rebinding denies.",
                &self.dns_rebindings,
            ),
        ]
    }
}

/// Runs `record` on this thread's counters. Does nothing while the thread ends and they are gone.
pub fn with(record: impl FnOnce(&Worker)) {
    let _ = WORKER.try_with(|worker| record(worker));
}

/// The sum of one counter over all workers.
pub fn sum(counter: impl Fn(&Worker) -> &Counter) -> u64 {
    workers().iter().map(|worker| counter(worker).value()).sum()
}

/// All counters in the Prometheus text format (version 0.0.4).
#[must_use]
pub fn prometheus() -> String {
    let workers = workers();
    let names = Worker::default();
    let mut text = String::new();
    for (index, (name, help, _)) in names.each().iter().enumerate() {
        let total: u64 = workers.iter().map(|worker| worker.each()[index].2.value()).sum();
        write_metric(&mut text, name, help, "counter", total);
    }
    let finished: Vec<_> = workers.iter().map(|worker| &worker.finished).collect();
    histogram::write(&mut text, &finished);
    text
}

/// Appends one metric of weir's to `text`.
pub fn write_metric(text: &mut String, name: &str, help: &str, kind: &str, value: u64) {
    // Writing to a String does not fail.
    let _ = write!(text, "# HELP weir_{name} {help}\n# TYPE weir_{name} {kind}\nweir_{name} {value}\n");
}

static WORKERS: Mutex<Vec<Arc<Worker>>> = Mutex::new(Vec::new());

thread_local! {
    static WORKER: Arc<Worker> = {
        let worker = Arc::new(Worker::default());
        WORKERS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&worker));
        worker
    };
}

fn workers() -> Vec<Arc<Worker>> {
    WORKERS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_threads_are_added_up() {
        let before = sum(|worker| &worker.denied);
        let threads: Vec<_> =
            (0..4).map(|_| std::thread::spawn(|| with(|worker| worker.denied.add(5)))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(sum(|worker| &worker.denied) - before, 20);
        assert!(prometheus().contains("# TYPE weir_denied_total counter\nweir_denied_total "));
    }
}
