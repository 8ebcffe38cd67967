//! What looks at a request before it goes out. A filter is one file here and one line in [`FILTERS`].

mod forwarding_loop;
mod strict;

use std::borrow::Cow;

use crate::http::forward::Pseudonym;
use crate::http::head::RequestHead;
use crate::target::{Rule, Target};

/// All filters, in the order in which they are asked. The first refusal counts.
static FILTERS: [&dyn Filter; 2] = [&forwarding_loop::ForwardingLoop, &strict::Strict];

/// Looks at a request.
pub trait Filter: Sync {
    /// The filter's verdict.
    fn request(&self, request: &Request<'_>) -> Verdict;
}

/// What a filter sees.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub head: &'a RequestHead,
    pub target: &'a Target,
    /// This instance's name in Via.
    pub via: &'a Pseudonym,
}

/// What a filter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Deny(Denial),
}

/// A refusal: the status to answer with, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    pub status: u16,
    pub reason: Cow<'static, str>,
}

/// Asks every filter.
///
/// # Errors
/// The first refusal.
pub fn check(request: Request<'_>) -> Result<(), Denial> {
    FILTERS.iter().try_for_each(|filter| match filter.request(&request) {
        Verdict::Allow => Ok(()),
        Verdict::Deny(denial) => Err(denial),
    })
}

/// Asks of a connection what the client calls its server; None: weir can't tell.
///
/// # Errors
/// The refusal, where its rule is strict and does not know that name.
pub fn check_name(rule: &dyn Rule, name: Option<&str>) -> Result<(), Denial> {
    match strict::check(rule, name) {
        Verdict::Allow => Ok(()),
        Verdict::Deny(denial) => Err(denial),
    }
}
