//! Streamlit. Its page finds the rest of itself relative to its own URL, and so needs no telling: health and the
//! WebSocket are `_stcore/health` and `_stcore/stream` below it. The token against forged uploads is a cookie of the
//! page's path, and Origin is compared with Host, which is what the client sent.

use super::{Answer, Handler};

#[derive(Debug)]
pub(super) struct Streamlit;

impl Handler for Streamlit {
    fn name(&self) -> &'static str {
        "streamlit"
    }

    fn port(&self) -> Option<u16> {
        Some(8501)
    }

    fn answers_so(&self, answer: &Answer<'_>) -> bool {
        answer.body.contains("<title>Streamlit</title>")
    }

    fn prefers(&self, path: &str) -> bool {
        ["/_stcore/", "/static/", "/media/", "/component/", "/vendor/"]
            .iter()
            .any(|own| path.starts_with(own))
    }
}
