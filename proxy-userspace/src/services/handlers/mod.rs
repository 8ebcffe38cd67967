//! What apps of a framework need to work under a prefix: a file each, and its line in [`HANDLERS`].

mod dash;
mod fastapi;
mod flask;
mod generic;
mod gradio;
mod streamlit;

use std::borrow::Cow;
use std::fmt;

/// All there are. What an app answers is shown to each in turn; the last one is for what none of them knows.
const HANDLERS: &[&dyn Handler] = &[
    &streamlit::Streamlit,
    &gradio::Gradio,
    &dash::Dash,
    &fastapi::FastApi,
    &flask::Flask,
    &generic::Generic,
];

/// A framework, or what stands for apps of none. What one does not say is as `generic` has it.
pub trait Handler: Sync + fmt::Debug {
    /// As labels and the configuration call it.
    fn name(&self) -> &'static str;

    /// The port that its apps listen on if nobody says anything else.
    fn port(&self) -> Option<u16> {
        None
    }

    /// Whether an image of that name, in lower case and without registry and tag, is one of its apps'.
    fn is_image(&self, name: &str) -> bool {
        name.contains(self.name())
    }

    /// Whether that is what its apps answer to `GET /`.
    fn answers_so(&self, _answer: &Answer<'_>) -> bool {
        false
    }

    /// What its app is asked for where `rest` is asked of its prefix: path and query. WebSocket, too; its subprotocol is
    /// what client and app agree on.
    fn target<'a>(&self, _prefix: &str, rest: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(rest)
    }

    /// Fields that requests to it have beside X-Forwarded-Prefix, in place of any of the client's of that name.
    fn fields(&self, _asked: &Asked<'_>) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Whether a path without any prefix is one of its own, which no other app has: where a browser asks for such a thing
    /// without saying what page it is for, it is for this app.
    fn prefers(&self, _path: &str) -> bool {
        false
    }

    /// Whether answers to requests for that path are changed on their way, beside pages that a browser is going to show.
    fn rewrites(&self, _path: &str) -> bool {
        false
    }

    /// What stands in its pages, and what has to stand there under a prefix.
    fn replacements(&self, _asked: &Asked<'_>) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// As what an app is asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// `/proxy/{id}`
    pub prefix: &'a str,
    /// The gateway's authority, as the client has it: `localhost:22180`.
    pub host: &'a str,
}

/// What an app has answered to `GET /`.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Field `Server`, in lower case.
    pub server: &'a str,
    /// The beginning of the body.
    pub body: &'a str,
}

/// The handler of a framework.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Framework(usize);

/// A framework that nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("there is no framework `{0}`; known are {known}", known = names().join(", "))]
pub struct UnknownFramework(String);

impl Framework {
    /// All, the more particular ones first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..HANDLERS.len()).map(Self)
    }

    /// The handler of that name.
    ///
    /// # Errors
    /// [`UnknownFramework`]
    pub fn named(name: &str) -> Result<Self, UnknownFramework> {
        Self::all().find(|one| one.handler().name() == name).ok_or_else(|| UnknownFramework(name.to_owned()))
    }

    /// The one whose apps such an image is for, if its name says so.
    #[must_use]
    pub fn of_image(image: &str) -> Option<Self> {
        let image = image.split('@').next().unwrap_or_default();
        let name = image.rsplit('/').next().unwrap_or_default();
        let name = name.split(':').next().unwrap_or_default().to_ascii_lowercase();
        Self::all().find(|one| *one != Self::default() && one.handler().is_image(&name))
    }

    /// The one whose apps answer so.
    #[must_use]
    pub fn of_answer(answer: &Answer<'_>) -> Self {
        Self::all().find(|one| one.handler().answers_so(answer)).unwrap_or_default()
    }

    /// Its number, for [`Framework::numbered`].
    #[must_use]
    pub fn number(self) -> usize {
        self.0
    }

    #[must_use]
    pub fn numbered(number: usize) -> Option<Self> {
        (number < HANDLERS.len()).then_some(Self(number))
    }

    /// Its handler.
    #[must_use]
    pub fn handler(self) -> &'static dyn Handler {
        HANDLERS[self.0]
    }
}

fn names() -> Vec<&'static str> {
    HANDLERS.iter().map(|handler| handler.name()).collect()
}

impl Default for Framework {
    /// That of apps of which nothing is known.
    fn default() -> Self {
        Self(HANDLERS.len() - 1)
    }
}

impl fmt::Debug for Framework {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(self.handler().name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images() {
        for (image, expected) in [
            ("registry.test:5000/team/my-streamlit:1.2", Some("streamlit")),
            ("FastAPI@sha256:00", Some("fastapi")),
            ("dash/nginx", None),
            ("plotly-dash", Some("dash")),
            ("dashboard", None),
            ("nginx:1.27", None),
        ] {
            let found = Framework::of_image(image).map(|framework| framework.handler().name());
            assert_eq!(found, expected, "{image}");
        }
    }

    #[test]
    fn answers() {
        for (server, body, expected) in [
            ("tornadoserver/6.5", "<title>Streamlit</title>", "streamlit"),
            ("uvicorn", "<script>window.gradio_config = {}", "gradio"),
            ("gunicorn", "<script id=\"_dash-config\">", "dash"),
            ("uvicorn", "{\"detail\":\"Not Found\"}", "fastapi"),
            ("werkzeug/3 python/3.11", "hello", "flask"),
            ("gunicorn", "hello", "flask"),
            ("nginx", "hello", "generic"),
        ] {
            let found = Framework::of_answer(&Answer { server, body });
            assert_eq!(found.handler().name(), expected, "{server} {body}");
        }
    }

    #[test]
    fn every_one_is_found_by_its_name() {
        for framework in Framework::all() {
            assert_eq!(Framework::named(framework.handler().name()).unwrap(), framework);
        }
        assert!(Framework::named("x").unwrap_err().to_string().contains("streamlit, gradio"));
    }
}
