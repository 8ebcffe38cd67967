//! In the place of `compression` where that is not built in.

use super::Engine;
use super::request::Request;
use crate::http::coding::Coding;
use crate::http::framing::Framing;
use crate::http::head::ResponseHead;
use crate::relay::stage::Stages;

pub(super) fn compress(
    _: &Engine,
    _: &Request,
    _: &mut ResponseHead,
    framing: Framing,
    _: &mut Stages,
) -> Framing {
    framing
}

pub(super) fn compress_unless(
    _: &Engine,
    _: &Request,
    _: &mut ResponseHead,
    framing: Framing,
    _: &mut Stages,
    _: impl FnOnce(Coding) -> Option<u64>,
) -> Framing {
    framing
}

pub(super) fn note_choice(_: &Engine, _: &Request, _: &mut ResponseHead, _: u64) {}
