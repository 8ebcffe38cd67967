//! What apps of a framework need to work under a prefix: a file each, and its line in [`HANDLERS`].

mod generic;

use std::borrow::Cow;
use std::fmt;

/// All there are. One of an app's answers is shown to each in turn, the last of all is for what none of them knows.
const HANDLERS: &[&dyn Handler] = &[&generic::Generic];

/// A framework, or what stands for apps of none.
pub trait Handler: Sync + fmt::Debug {
    /// As labels and the configuration call it.
    fn name(&self) -> &'static str;

    /// What its app is asked for where `rest` is asked of its prefix: path and query.
    fn target<'a>(&self, _prefix: &str, rest: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(rest)
    }

    /// Fields that requests to it have beside X-Forwarded-Prefix, in place of any of the client's of that name.
    fn fields(&self, _prefix: &str) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// The handler of a framework.
#[derive(Clone, Copy)]
pub struct Framework(usize);

/// A framework that nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("there is no framework `{0}`; known are {known}", known = Framework::names().join(", "))]
pub struct UnknownFramework(String);

impl Framework {
    /// The handler of that name.
    ///
    /// # Errors
    /// [`UnknownFramework`]
    pub fn named(name: &str) -> Result<Self, UnknownFramework> {
        let found = HANDLERS.iter().position(|handler| handler.name() == name);
        found.map(Self).ok_or_else(|| UnknownFramework(name.to_owned()))
    }

    /// Its handler.
    #[must_use]
    pub fn handler(self) -> &'static dyn Handler {
        HANDLERS[self.0]
    }

    fn names() -> Vec<&'static str> {
        HANDLERS.iter().map(|handler| handler.name()).collect()
    }
}

impl Default for Framework {
    /// That of apps of which nothing is known.
    fn default() -> Self {
        Self(HANDLERS.len() - 1)
    }
}

impl PartialEq for Framework {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Framework {}

impl fmt::Debug for Framework {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(self.handler().name())
    }
}
