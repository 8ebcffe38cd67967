//! FastAPI. Its documentation is a page that names `/openapi.json`, and that names no server: the paths in it are then
//! taken to be of the root. What says so is mapped; an app that takes its root from X-Forwarded-Prefix says it itself.

use super::{Answer, Asked, Handler};

#[derive(Debug)]
pub(super) struct FastApi;

impl Handler for FastApi {
    fn name(&self) -> &'static str {
        "fastapi"
    }

    fn port(&self) -> Option<u16> {
        Some(8000)
    }

    fn is_image(&self, name: &str) -> bool {
        name.contains("fastapi") || name.contains("uvicorn")
    }

    fn answers_so(&self, answer: &Answer<'_>) -> bool {
        answer.server.starts_with("uvicorn") || answer.server.starts_with("hypercorn")
    }

    fn prefers(&self, path: &str) -> bool {
        matches!(path, "/openapi.json" | "/docs/oauth2-redirect")
    }

    fn rewrites(&self, path: &str) -> bool {
        path.ends_with("/openapi.json")
    }

    fn replacements(&self, asked: &Asked<'_>) -> Vec<(String, String)> {
        let prefix = asked.prefix;
        [
            ("url: '/", format!("url: '{prefix}/")),
            ("window.location.origin + '/", format!("window.location.origin + '{prefix}/")),
            ("spec-url=\"/", format!("spec-url=\"{prefix}/")),
            // The first key of the description: one that has servers of its own has them behind it, and they count.
            ("{\"openapi\":", format!("{{\"servers\":[{{\"url\":\"{prefix}\"}}],\"openapi\":")),
        ]
        .map(|(there, here)| (there.to_owned(), here))
        .into()
    }
}
