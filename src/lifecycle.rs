//! Waiting and stopping.

use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What a worker waits on: a wake-up, the next turn, or the end. A wake-up that comes while the
/// worker works is not lost.
#[derive(Debug, Default)]
pub struct Wake(Notify);

impl Wake {
    /// Wakes the worker now, or at its next wait.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Waits for a wake-up, at most `longest`; whether it came.
    #[expect(clippy::disallowed_methods, reason = "the one place where workers wait")]
    pub async fn wait(&self, longest: Duration, shutdown: &CancellationToken) -> bool {
        tokio::select! {
            () = shutdown.cancelled() => false,
            () = self.0.notified() => true,
            () = tokio::time::sleep(longest) => false,
        }
    }
}

/// Resolves on SIGINT or SIGTERM.
pub async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::error!("signals cannot be received; stop the process by force");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
