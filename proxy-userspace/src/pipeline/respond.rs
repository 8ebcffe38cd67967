//! Answers of weir's own.

use std::cell::Cell;

use super::Engine;
use super::failure::Failure;
use super::recording::Recording;
use super::response::deliver;
use super::side::{Directions, DownstreamSide, Manner, Reply};
use crate::http::framing::Framing;
use crate::http::head::ResponseHead;
use crate::http::status::{self, Form};
use crate::policy::By;
use crate::policy::auth::Identity;
use crate::relay::Side;
use crate::relay::body::held::Held;
use crate::relay::body::{Patience, Source};
use crate::relay::stage::Stages;
use crate::target::Front;
use crate::telemetry::metrics;

/// What an answer is to, as far as that shapes it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask {
    /// A request; `sent` if it was read to its end.
    Whole { sent: bool, form: Form },
    /// The same, and it wants no body.
    Head { sent: bool },
    /// Something that never became a request: where the next one begins is not known.
    Unknown,
}

/// Notes a failure in the flow, and answers with it if anybody is there to listen. Returns whether an answer went out.
pub(super) async fn failure(
    engine: &Engine,
    downstream: &mut impl DownstreamSide,
    flow: &mut Recording,
    failure: &Failure,
    ask: Ask,
) -> bool {
    note(flow, failure);
    let Some((status, error)) = failure.status() else { return false };
    flow.status = Some(status);
    let form = if let Ask::Whole { form, .. } = ask { form } else { Form::Text };
    // Whoever reaches the gateway is not to learn what is behind it; the flow has the details.
    let explanation = match (flow.front, failure.is_behind_the_gateway()) {
        (Front::Gateway, true) => {
            "the server behind this gateway can't be reached, or did not answer properly".into()
        }
        _ => failure.to_string(),
    };
    let (mut head, explanation) = status::answer(status, error, &explanation, form);
    failure.fields().iter().for_each(|(name, value)| head.headers.push(name.as_bytes(), value.as_bytes()));
    let (may_keep, content) = match ask {
        Ask::Whole { sent, .. } => (sent, explanation.as_bytes()),
        Ask::Head { sent } => (sent, b"".as_slice()),
        Ask::Unknown => (false, explanation.as_bytes()),
    };
    let framing = if content.is_empty() { Framing::None } else { Framing::Length(content.len() as u64) };
    let body = Held::new(Side::Upstream, content);
    let manner = Manner { framing, via: None, may_keep };
    // What weir itself says is no content of the flow's.
    respond(engine, downstream, (&head, manner), body, &mut Stages::new(), (None, None)).await.is_ok()
}

/// Answers with a head and a body that come from no upstream: one of weir's own, or a stored one. `received`: where the
/// bytes of its body are counted.
pub(super) async fn respond(
    engine: &Engine,
    downstream: &mut impl DownstreamSide,
    (head, manner): (&ResponseHead, Manner<'_>),
    body: impl Source,
    stages: &mut Stages,
    (identity, received): (Option<&Identity>, Option<&Cell<u64>>),
) -> Result<(), Failure> {
    let timeouts = &engine.config.server.timeouts;
    // Captured programs have not asked for a proxy: they may read as slowly as they like.
    let is_captured = downstream.client().process.is_some();
    let least_rate = if is_captured { 0 } else { engine.config.server.limits.min_rate };
    let (_, download) = engine.paces(downstream.client(), identity);
    let Directions { mut reply, deadline, .. } = downstream.open(Framing::None);
    let pace = download.as_ref();
    let patience = Patience { deadline, read: timeouts.read, write: timeouts.write, least_rate, pace };
    reply.head(head, manner);
    deliver(body, &mut reply, stages, received, patience).await
}

/// Notes a failure in the flow.
pub(super) fn note(flow: &mut Recording, failure: &Failure) {
    let text = failure.to_string();
    if failure.is_denial() {
        metrics::with(|metrics| {
            metrics.denied.increment();
            if let Failure::Refused(refusal) = failure {
                match refusal.by {
                    By::Access => metrics.denied_by_rules.increment(),
                    By::Filtering => metrics.denied_by_lists.increment(),
                    By::Inspection => metrics.denied_by_inspection.increment(),
                    By::Authentication => metrics.denied_by_auth.increment(),
                    By::Limits => metrics.denied_by_limits.increment(),
                }
            }
        });
        flow.verdict = Some(text.into());
        flow.verdict_rule = failure.rule();
        flow.end = "denied".into();
    } else {
        flow.end = text.into();
    }
}
