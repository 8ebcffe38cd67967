//! POST /capture/reload: the configuration is read again, and its `capture.rules` put in force. SIGHUP does the same.
//! Other keys keep the values of the start.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::problem::Problem;
use crate::config::{self, ConfigErrors};
use crate::redirect::{RedirectError, Rules};
use crate::running::{Capture, Running};

pub(super) fn changes() -> Router<Arc<Running>> {
    Router::new().route("/capture/reload", post(answer))
}

/// Why the rules in force stayed.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error("the configuration is wrong, and the rules in force stay:\n{0}")]
    Config(#[from] ConfigErrors),
    #[error("{0}; the rules in force stay")]
    Rules(#[from] RedirectError),
    #[error("nothing is captured, so there are no rules to replace")]
    NotCapturing,
}

async fn answer(State(running): State<Arc<Running>>) -> Result<Json<Value>, Problem> {
    match reload(&running).await {
        Ok(Reloaded { rules, before }) => {
            let warning = (rules == 0 && before > 0).then(|| none_left(before));
            Ok(Json(json!({ "rules": rules, "before": before, "warning": warning })))
        }
        Err(error @ ReloadError::NotCapturing) => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
        }
        Err(error) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())),
    }
}

/// Numbers of rules in force.
#[derive(Debug, Clone, Copy)]
struct Reloaded {
    pub rules: usize,
    pub before: usize,
}

pub fn none_left(before: usize) -> String {
    format!("{before} rules were in force, and now there is none: nothing is denied any more")
}

/// Reads the configuration's rules again and puts them in force; gives their number.
///
/// # Errors
/// What is wrong with them. The rules in force stay.
async fn reload(running: &Arc<Running>) -> Result<Reloaded, ReloadError> {
    let one_at_a_time = running.reloading.lock().await;
    let reading = Arc::clone(running);
    // A million destinations take seconds to read: not on the thread that answers.
    let reloaded = tokio::task::spawn_blocking(move || {
        let running = reading;
        let new = config::load_again(&running.sources)?.capture;
        // What was decided at the start holds: the programs are attached there.
        let capture = config::Capture { rules: new.rules, ..running.config().capture.clone() };
        if !matches!(*running.capture(), Capture::On(_)) {
            return Err(ReloadError::NotCapturing);
        }
        let rules = Rules::new(&capture)?;
        let before = match &*running.capture() {
            Capture::On(redirect) => {
                let before = redirect.rules().len();
                redirect.install_rules(rules)?;
                before
            }
            _ => return Err(ReloadError::NotCapturing),
        };
        let rules = capture.rules.len();
        tracing::info!(rules, "the capture rules were read again");
        if rules == 0 && before > 0 {
            tracing::warn!("capture.rules: {}", none_left(before));
        }
        Ok(Reloaded { rules, before })
    });
    let reloaded = reloaded.await;
    drop(one_at_a_time);
    reloaded.unwrap_or(Err(ReloadError::NotCapturing))
}
