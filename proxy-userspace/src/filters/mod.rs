//! What looks at a request before it goes out, or changes its head, or that of its response. A filter is one file here and one line in [`FILTERS`].

mod forwarding_loop;
mod headers;
mod strict;

use std::borrow::Cow;

use crate::config::HeaderRule;
use crate::http::forward::Pseudonym;
use crate::http::head::{RequestHead, ResponseHead};
use crate::target::{Rule, Target};

/// All filters, in the order in which they are asked. The first refusal counts.
static FILTERS: [&dyn Filter; 3] = [&forwarding_loop::ForwardingLoop, &strict::Strict, &headers::HeaderRules];

/// Looks at a request.
pub trait Filter: Sync {
    /// The filter's verdict.
    fn request(&self, request: &Request<'_>) -> Verdict;

    /// Changes the head of a response before it is stored or delivered.
    fn response(&self, _: &mut Response<'_>) {}
}

/// What a filter sees.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub head: &'a RequestHead,
    pub target: &'a Target,
    /// Path and query, or `*`.
    pub path: &'a str,
    pub rules: &'a [HeaderRule],
    /// This instance's name in Via.
    pub via: &'a Pseudonym,
}

/// What a filter may change.
#[derive(Debug)]
pub struct Response<'a> {
    pub head: &'a mut ResponseHead,
    pub target: &'a Target,
    pub path: &'a str,
    pub rules: &'a [HeaderRule],
}

/// What a filter says.
#[derive(Debug, Clone)]
pub enum Verdict {
    Allow,
    /// It goes on with this head.
    Modify(Box<RequestHead>),
    Deny(Denial),
}

/// A refusal: the status to answer with, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    pub status: u16,
    pub reason: Cow<'static, str>,
}

/// Asks every filter. The head that the request goes on with, if it is another.
///
/// # Errors
/// The first refusal.
pub fn check(request: Request<'_>) -> Result<Option<RequestHead>, Denial> {
    let mut modified: Option<Box<RequestHead>> = None;
    for filter in FILTERS {
        let head = modified.as_deref().unwrap_or(request.head);
        match filter.request(&Request { head, ..request }) {
            Verdict::Allow => {}
            Verdict::Modify(head) => modified = Some(head),
            Verdict::Deny(denial) => return Err(denial),
        }
    }
    Ok(modified.map(|head| *head))
}

/// Has every filter look at a response.
pub fn change(mut response: Response<'_>) {
    FILTERS.iter().for_each(|filter| filter.response(&mut response));
}

/// Asks of a connection what the client calls its server; None: weir can't tell.
///
/// # Errors
/// The refusal, where its rule is strict and does not know that name.
pub fn check_name(rule: &dyn Rule, name: Option<&str>) -> Result<(), Denial> {
    match strict::check(rule, name) {
        Verdict::Allow | Verdict::Modify(_) => Ok(()),
        Verdict::Deny(denial) => Err(denial),
    }
}
