//! Rules and routes that are read again when their files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fleet_shared::config::ConfigError;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::metrics::AlertingMetrics;
use crate::route::{DEFAULT_ROUTES, Routes};
use crate::rule::{DEFAULT_RULES, RuleError, RuleSet};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Reads the rules to begin with.
///
/// # Errors
/// The first thing that is wrong with them.
pub(crate) fn load(path: Option<&Path>) -> Result<RuleSet, ConfigError> {
    let Some(path) = path else {
        let shipped = RuleSet::parse(DEFAULT_RULES);
        return match shipped {
            Ok(rules) => Ok(rules.loaded_from("shipped", Timestamp::now())),
            Err(errors) => Err(refused("the shipped rules", &errors)),
        };
    };
    read(path).map_err(|errors| refused(&path.display().to_string(), &errors))
}

fn read(path: &Path) -> Result<RuleSet, Vec<RuleError>> {
    let source = path.display().to_string();
    Ok(RuleSet::load(path)?.loaded_from(source, Timestamp::now()))
}

fn refused(file: &str, errors: &[RuleError]) -> ConfigError {
    ConfigError::value("--rules (ALERTING_RULES)", file, all(errors))
}

fn all(errors: &[RuleError]) -> String {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    errors.join("; ")
}

/// Reads the routes to begin with, and says what nobody is named for.
///
/// # Errors
/// The first thing that is wrong with them.
pub(crate) fn load_routes(path: Option<&Path>) -> Result<Routes, ConfigError> {
    let loaded = match path {
        None => Routes::parse(DEFAULT_ROUTES),
        Some(path) => Routes::load(path),
    };
    let routes = loaded.map_err(|errors| {
        let file = path.map_or_else(
            || "the default".to_owned(),
            |path| path.display().to_string(),
        );
        ConfigError::value("--routes (ALERTING_ROUTES)", file, all(&errors))
    })?;
    if !routes.degraded.is_empty() {
        let severities = routes.degraded.join(" and ");
        tracing::info!(
            "nobody is named for alerts that are {severities}: they are told in this log only; name \
             receivers in a file and give it with --routes"
        );
    }
    Ok(routes)
}

/// Reads the file again when it has changed or SIGHUP comes, for ever. A bad file is refused, and
/// what is in force stays.
pub(crate) async fn keep<T: Send + Sync + 'static>(
    what: &'static str,
    path: Option<PathBuf>,
    read: fn(&Path) -> Result<T, Vec<RuleError>>,
    current: &watch::Sender<Arc<T>>,
    metrics: &AlertingMetrics,
) {
    let Some(path) = path else {
        return std::future::pending().await;
    };
    let mut hangup = signal(SignalKind::hangup()).ok();
    let mut known = fingerprint(&path);
    loop {
        let asked = match &mut hangup {
            Some(hangup) => {
                tokio::select! {
                    _ = hangup.recv() => true,
                    () = tokio::time::sleep(LOOK_EVERY) => false,
                }
            }
            None => {
                tokio::time::sleep(LOOK_EVERY).await;
                false
            }
        };
        let seen = fingerprint(&path);
        if seen == known && !asked {
            continue;
        }
        known = seen;
        // A large file takes seconds, and the event loop has alerts to see to.
        let file = path.clone();
        let Ok(outcome) = tokio::task::spawn_blocking(move || read(&file)).await else {
            // Nothing is cancelled but with the process, and what panics has said so.
            continue;
        };
        match outcome {
            Ok(loaded) => {
                tracing::info!(file = %path.display(), "new {what} are in force");
                metrics.reloaded(true);
                current.send_replace(Arc::new(loaded));
            }
            Err(errors) => {
                tracing::error!(file = %path.display(), error = all(&errors), "the changed {what} are refused, the old ones stay");
                metrics.reloaded(false);
            }
        }
    }
}

/// What tells one content of a file from another without reading it.
fn fingerprint(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
