//! The life cycle of a store: creating it, `initialize()`, and `close()`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::call::{Access, Answer, Call, Entered, Operations, Storage};
use super::job_state::JobCopies;
use super::lease_renewal::LeaseRenewals;
use super::queued_calls::DistributedJobs;
use crate::backend::{self, Backend};
use crate::error::{Error, Result};
use crate::held_claims::Claims;
use crate::order::{Gate, Initialization, Turns};
use crate::panics;
use crate::retry::{Repeat, Retry};
use crate::settings::Settings;
use crate::write_queue::WriteQueue;

/// How long `initialize` may continue after the store is closed. Creating the tables takes less, unless another process has locked them.
const INITIALIZE_GRACE: Duration = Duration::from_secs(2);

impl Operations {
    /// Does not connect; the first call does.
    pub fn new(settings: Settings) -> Arc<Self> {
        Self::over(Arc::from(backend::open(settings.clone())), &settings)
    }

    /// A store over this database.
    pub fn over(backend: Arc<dyn Backend>, settings: &Settings) -> Arc<Self> {
        let retry = Retry {
            patience: settings.statement_timeout,
        };
        let claims = Arc::<Claims>::default();
        let gate = Gate::default();
        let initialization = Initialization::default();
        Arc::new(Self {
            queue: WriteQueue::new(
                backend.clone(),
                retry,
                settings.durability,
                initialization.clone(),
                settings.warnings.clone(),
            ),
            leases: LeaseRenewals::new(
                backend.clone(),
                claims.clone(),
                gate.clone(),
                settings.lease_renewal,
                settings.connect_timeout,
                settings.warnings.clone(),
            ),
            copies: JobCopies::default(),
            storage: Storage::new(backend, retry),
            claims,
            max_claims: settings.max_claims,
            turns: Turns::default(),
            distributed_jobs: DistributedJobs::default(),
            gate,
            initialization,
            warnings: settings.warnings.clone(),
            closing: OnceCell::new(),
        })
    }

    /// Waits for the running calls, writes what is queued, and then closes the connections. Rejects if something that was queued could not be stored.
    /// No call begins after this, whenever its promise is awaited.
    pub fn close(self: &Arc<Self>) -> impl Answer<()> + use<> {
        self.gate.close();
        let store = self.clone();
        async move {
            store
                .closing
                .get_or_init(|| async {
                    store.gate.wait_until_empty().await;
                    panics::fail_point("close");
                    store.queue.flush_all().await;
                    store.storage.close().await;
                    store.copies.forget_all();
                })
                .await;
            store.queue.check_all()
        }
    }
}

impl Entered {
    /// Creates missing tables and indexes.
    pub fn initialize(self) -> impl Answer<()> {
        self.accessing(Access::Tables).run(|call| async move { call.initialize().await })
    }
}

impl Call {
    /// If the store is closed while this waits for another process, it ends with `CLOSED`, because `close` must not wait for that.
    async fn initialize(&self) -> Result<()> {
        let gate = &self.store.gate;
        // Idempotent: it creates what is missing, and checks again first.
        let initialized = self.write(Repeat::Idempotent, |backend| backend.initialize(gate));
        let closed = async {
            gate.wait_until_closed().await;
            tokio::time::sleep(INITIALIZE_GRACE).await;
        };
        tokio::select! {
            initialized = initialized => initialized,
            () = closed => Err(Error::closed()),
        }
    }
}
