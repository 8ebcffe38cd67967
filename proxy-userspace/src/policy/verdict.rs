//! What inspection says of a body.

use std::borrow::Cow;

/// What was found out about a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Clean,
    Match(String),
    Undecided(Cow<'static, str>),
    /// clamd has no verdict.
    ClamdFailed(Cow<'static, str>),
}
