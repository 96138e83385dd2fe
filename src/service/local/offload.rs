//! Work that waits for the disk, kept away from the threads that serve others.

use crate::service::{Error, Result};

/// Does `work` on a thread where it may block; right here if there is no runtime.
pub(crate) async fn offload<T: Send + 'static>(
    endpoint: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return work();
    };
    match runtime.spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => Err(Error::unavailable(endpoint, cancelled)),
        },
    }
}
