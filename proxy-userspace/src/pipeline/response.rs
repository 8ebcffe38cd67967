//! The response on its way back.

use std::cell::Cell;
use std::io;

use super::Engine;
use super::compression::compress;
use super::failure::Failure;
use super::replacing::replace;
use super::request::Request;
use super::serving;
use super::side::{Answer, Manner, Reply};
use crate::config::Limits;
use crate::http::forward::Pseudonym;
use crate::http::framing::Framing;
use crate::http::head::ResponseHead;
use crate::relay::body::{Patience, Source, Terms, transfer};
use crate::relay::stage::{Staged, Stages};

/// Interim responses before the final one. There is rarely more than one.
const MAX_INTERIM: usize = 16;

/// The head of the final response; interim ones are passed on (RFC 9110 §15.2). `sending`: whether the request is still on
/// its way.
pub(super) async fn final_head(
    answer: &mut impl Answer,
    reply: &mut impl Reply,
    limits: &Limits,
    via: &Pseudonym,
    patience: Patience<'_>,
    sending: &Cell<bool>,
) -> Result<ResponseHead, Failure> {
    for passed_on in 0..=MAX_INTERIM {
        let head = head(answer, reply, limits, patience, sending).await?;
        if head.status == 101 || !(100..200).contains(&head.status) {
            return Ok(head);
        }
        if passed_on < MAX_INTERIM {
            within(patience, reply.interim(&head, via)).await?;
        }
    }
    Err(Failure::BadAnswer("its interim responses do not end".into()))
}

async fn head(
    answer: &mut impl Answer,
    reply: &mut impl Reply,
    limits: &Limits,
    patience: Patience<'_>,
    sending: &Cell<bool>,
) -> Result<ResponseHead, Failure> {
    for waits in 0_u64.. {
        if let Some(head) = answer.next_head(limits)? {
            return Ok(head);
        }
        // Once for it to begin, and once for the whole of it: a byte now and then does not keep it going.
        if waits < 2 {
            patience.deadline.arm(patience.read);
        }
        let more = patience.deadline.race(async {
            tokio::select! {
                biased;
                more = answer.more() => more,
                // A client that has reset its connection waits for nothing any more.
                () = reply.gone() => Err(Failure::ClientGone),
            }
        });
        match more.await {
            Ok(more) => more?,
            // The request has a pace of its own to keep; the time for the answer begins with its end.
            Err(_) if sending.get() => patience.deadline.arm(patience.read),
            Err(_) => return Err(Failure::AnswerTimedOut),
        }
    }
    Err(Failure::AnswerTimedOut)
}

/// Gives the client a head. Returns what the body behind it is to pass.
pub(super) fn give_head(
    engine: &Engine,
    request: &Request,
    (head, framing): (&mut ResponseHead, Framing),
    may_keep: bool,
    reply: &mut impl Reply,
) -> Stages {
    // Who inspects or changes the body adds a stage of his own here, and says so in the head before it goes out. What is
    // stored was taken from it before, as it came.
    let mut stages = Stages::new();
    let framing = serving::rewrite(request, head, framing, &mut stages);
    let framing = replace(engine, request, head, framing, &mut stages);
    let framing = compress(engine, request, head, framing, &mut stages);
    reply.head(head, Manner { framing, via: Some(&engine.via), may_keep });
    stages
}

/// Sends a body behind the head that `reply` was given, through `stages` if there are any.
pub(super) async fn deliver(
    body: impl Source,
    reply: &mut impl Reply,
    stages: &mut Stages,
    received: Option<&Cell<u64>>,
    patience: Patience<'_>,
) -> Result<(), Failure> {
    let terms = Terms { patience, limit: None, paces_streams: false, moved: received };
    let delivered = match stages.is_empty() {
        true => transfer(body, reply, terms).await,
        false => transfer(body, Staged::new(stages, reply), terms).await,
    };
    delivered.map_err(Failure::ResponseBody)
}

/// A write to the client, within the time that it has for it.
pub(super) async fn within(
    patience: Patience<'_>,
    write: impl Future<Output = io::Result<()>>,
) -> Result<(), Failure> {
    let written = patience.deadline.limit(patience.write, write).await;
    written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|_| Failure::ClientGone)
}
