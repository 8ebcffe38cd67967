//! Dash. Its page holds a configuration in which it looks up below which path it asks for the rest of itself: for its
//! components' scripts (`_dash-component-suites`), its layout, and what callbacks return (`_dash-update-component`).

use super::{Answer, Asked, Handler};

#[derive(Debug)]
pub(super) struct Dash;

impl Handler for Dash {
    fn name(&self) -> &'static str {
        "dash"
    }

    fn port(&self) -> Option<u16> {
        Some(8050)
    }

    /// Dashboards of another kind are many.
    fn is_image(&self, name: &str) -> bool {
        name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "dash")
    }

    fn answers_so(&self, answer: &Answer<'_>) -> bool {
        answer.body.contains("_dash-config") || answer.body.contains("_dash-renderer")
    }

    fn prefers(&self, path: &str) -> bool {
        path.starts_with("/_dash-") || path == "/_reload-hash" || path == "/_favicon.ico"
    }

    fn replacements(&self, asked: &Asked<'_>) -> Vec<(String, String)> {
        let there = "\"requests_pathname_prefix\":\"/\"";
        vec![(there.to_owned(), format!("\"requests_pathname_prefix\":\"{}/\"", asked.prefix))]
    }
}
