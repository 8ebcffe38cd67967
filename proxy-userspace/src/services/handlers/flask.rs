//! Flask, and whatever else is served by gunicorn or Werkzeug. Behind `ProxyFix(app, x_prefix=1)` it makes X-Forwarded-Prefix
//! its SCRIPT_NAME, and says everything right itself; without, what it says is mapped.

use super::{Answer, Handler};

#[derive(Debug)]
pub(super) struct Flask;

impl Handler for Flask {
    fn name(&self) -> &'static str {
        "flask"
    }

    fn port(&self) -> Option<u16> {
        Some(5000)
    }

    fn answers_so(&self, answer: &Answer<'_>) -> bool {
        ["werkzeug", "gunicorn", "waitress"].iter().any(|server| answer.server.starts_with(server))
    }
}
