//! Deletes what is too old, while readings keep coming.

use std::sync::Arc;
use std::time::Duration;

use fleet_store::Store;
use jiff::Timestamp;

/// Pause between two runs. Each run deletes an hour's worth, in slices of the store's own.
const EVERY: Duration = Duration::from_secs(3_600);

/// Runs for ever; with no age it only waits. Several processes may do it at once: a row is deleted
/// by whoever comes first.
pub(crate) async fn keep(store: &Arc<dyn Store>, age: Option<Duration>) {
    let Some(age) = age else {
        return std::future::pending().await;
    };
    loop {
        match Timestamp::now().checked_sub(age) {
            Ok(before) => match store.retain(before).await {
                Ok(report) => tracing::info!(%before, ?report, "old readings are deleted"),
                Err(error) => {
                    let chain = format!("{:#}", anyhow::Error::new(error));
                    tracing::warn!(error = %chain, %before, "old readings could not be deleted; tried again in an hour");
                }
            },
            Err(error) => tracing::warn!(%error, ?age, "nothing can be that old"),
        }
        tokio::time::sleep(EVERY).await;
    }
}
