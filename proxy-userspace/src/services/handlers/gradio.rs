//! Gradio. Its page holds a configuration with the URL that it is reached by, `root`, made of Host and the scheme of the
//! request: what is asked for later begins there.

use super::{Answer, Asked, Handler};

#[derive(Debug)]
pub(super) struct Gradio;

impl Handler for Gradio {
    fn name(&self) -> &'static str {
        "gradio"
    }

    fn port(&self) -> Option<u16> {
        Some(7860)
    }

    fn answers_so(&self, answer: &Answer<'_>) -> bool {
        answer.body.contains("gradio_config") || answer.body.contains("gradio-app")
    }

    fn prefers(&self, path: &str) -> bool {
        path.starts_with("/gradio_api/")
    }

    fn rewrites(&self, path: &str) -> bool {
        path.ends_with("/config")
    }

    fn replacements(&self, asked: &Asked<'_>) -> Vec<(String, String)> {
        let Asked { prefix, host } = asked;
        let root = |scheme: &str| {
            let there = format!("\"root\":\"{scheme}://{host}\"");
            (there, format!("\"root\":\"{scheme}://{host}{prefix}\""))
        };
        ["http", "https"].map(root).into()
    }
}
