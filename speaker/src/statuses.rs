//! `ServiceL2Status`: objects that say which node announces a Service (MetalLB 0.14.4 and later). Written beside the way
//! from news to answers, which never waits for them.
//!
//! ```text
//!  actor ── tell ──▶ latest word a Service ──▶ ┌──────┐
//!                                              │ Book │ ── plans, few at a time ──▶ delete, create, patch
//!  watch ServiceL2Status ── see, lose ───────▶ └──────┘ ◀── what they changed ─────────────┘
//! ```
//!
//! Where the objects are not known to the API server, or RBAC keeps them from us, nothing is written.

mod book;
mod writer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferrolb_config::ObjectName;
use tokio::sync::Notify;

pub use writer::{Identity, write};

/// The latest word on Services, until it is fetched. Clones share it. As large as there are Services at most, however
/// slowly it is fetched.
#[derive(Clone, Debug, Default)]
pub struct Statuses {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    news: Mutex<News>,
    told: Notify,
}

/// What was told since it was last fetched.
#[derive(Debug, Default)]
struct News {
    /// The interfaces (in order; empty for all) a Service is announced on, or that it is not announced.
    services: HashMap<ObjectName, Option<Vec<String>>>,
    /// Every announced Service has been told since the start.
    settled: bool,
}

impl Statuses {
    /// This node announces the Service on these interfaces, in order, or on all if there are none; or not at all.
    pub fn tell(&self, service: &ObjectName, interfaces: Option<Vec<String>>) {
        self.news().services.insert(service.clone(), interfaces);
        self.shared.told.notify_one();
    }

    /// Every Service this node announces has been told; statuses of others that name this node are left over.
    pub fn settle(&self) {
        let mut news = self.news();
        if !news.settled {
            news.settled = true;
            self.shared.told.notify_one();
        }
    }

    /// Waits until something was told. For one waiter; cancel-safe.
    async fn told(&self) {
        self.shared.told.notified().await;
    }

    /// What was told since the last call, and whether that was all.
    fn take(&self) -> (HashMap<ObjectName, Option<Vec<String>>>, bool) {
        let mut news = self.news();
        (std::mem::take(&mut news.services), news.settled)
    }

    fn news(&self) -> MutexGuard<'_, News> {
        // Inserting and taking leave no half-done state behind.
        self.shared
            .news
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The interfaces a Service is announced on, by what was last told and is not fetched yet.
    #[cfg(test)]
    pub fn last(&self, service: &ObjectName) -> Option<Vec<String>> {
        self.news().services.get(service).cloned().flatten()
    }
}
