//! Answers of weir's own.

use tokio::io::AsyncWriteExt;

use super::failure::Failure;
use super::recording::Recording;
use crate::http::status::write_answer;
use crate::net::stream::Downstream;
use crate::telemetry::metrics;

/// Notes a failure in the flow, and answers with it if anybody is there to listen. `bodiless` for HEAD.
/// Returns whether an answer went out.
pub(super) async fn failure(
    downstream: &mut Downstream,
    flow: &mut Recording,
    failure: &Failure,
    close: bool,
    bodiless: bool,
    patience: std::time::Duration,
) -> bool {
    note(flow, failure);
    let Some((status, error)) = failure.status() else { return false };
    flow.status = Some(status);
    let mut answer = Vec::new();
    write_answer(status, error, &failure.to_string(), close, bodiless, &mut answer);
    let written = downstream.deadline.limit(patience, downstream.stream.write_all(&answer)).await;
    matches!(written, Ok(Ok(())))
}

/// Notes a failure in the flow.
pub(super) fn note(flow: &mut Recording, failure: &Failure) {
    let text = failure.to_string();
    if failure.is_denial() {
        metrics::with(|metrics| metrics.denied.increment());
        flow.verdict = Some(text.into());
        flow.end = "denied".into();
    } else {
        flow.end = text.into();
    }
}
