//! The option `leaseRenewal`: the leases of a store's claims are renewed in the background, until none is left. This runs on the runtime's own threads,
//! which a blocked event loop does not stop.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::backend::{Backend, BatchChange};
use crate::error::Error;
use crate::held_claims::{Claims, Lease};
use crate::order::Gate;
use crate::panics::{self, caught};
use crate::settings::LeaseRenewal;

/// Renews the leases of one store. It has its own way to the backend: it is no call, and is repeated by the next round.
pub(super) struct LeaseRenewals {
    backend: Arc<dyn Backend>,
    claims: Arc<Claims>,
    gate: Gate,
    option: Option<LeaseRenewal>,
    connect_timeout: Duration,
    /// The rounds are going on.
    running: AtomicBool,
}

/// The renewals that are under way, of each lease one. They end when this is dropped.
#[derive(Default)]
struct UnderWay {
    tasks: JoinSet<()>,
    leases: HashMap<Lease, AbortHandle>,
}

impl UnderWay {
    fn begin(&mut self, lease: Lease, renewal: impl Future<Output = ()> + Send + 'static) {
        self.leases.insert(lease, self.tasks.spawn(renewal));
    }

    fn has(&self, lease: &Lease) -> bool {
        self.leases.contains_key(lease)
    }

    fn forget_ended(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.leases.retain(|_, task| !task.is_finished());
    }
}

/// How long a renewal may take: it ends before the next round, which starts it again, unless a round is shorter than a new connection and a statement may
/// take. Given up earlier, it would come to nothing again and again, and keep the server busy with connections.
fn longest_renewal(every: Duration, connect_timeout: Duration) -> Duration {
    (every - every / 10).max(connect_timeout + Duration::from_secs(1))
}

impl LeaseRenewals {
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        claims: Arc<Claims>,
        gate: Gate,
        option: Option<LeaseRenewal>,
        connect_timeout: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            backend,
            claims,
            gate,
            option,
            connect_timeout,
            running: AtomicBool::new(false),
        })
    }

    /// For how long after its claim a lease is renewed; `None` where leases are not.
    pub(super) fn for_at_most(&self) -> Option<Duration> {
        self.option.map(|option| option.for_at_most)
    }

    /// Has the leases renewed, where the options ask for it and that is not going on already.
    pub(super) fn start(self: &Arc<Self>) {
        let Some(LeaseRenewal { every, .. }) = self.option else { return };
        if !self.running.swap(true, Ordering::AcqRel) {
            tokio::spawn(rounds(Arc::downgrade(self), every));
        }
    }

    /// Begins one round of renewals. Whether there is to be another.
    fn begin_round(self: &Arc<Self>, every: Duration, under_way: &mut UnderWay) -> bool {
        let leases = self.claims.leases(Instant::now());
        if self.gate.is_closed() {
            return false;
        }
        panics::fail_point("renewal");
        if leases.is_empty() {
            self.running.store(false, Ordering::Release);
            // A claim may have been made between the look and the flag.
            if self.claims.leases(Instant::now()).is_empty() || self.running.swap(true, Ordering::AcqRel) {
                return false;
            }
        }
        under_way.forget_ended();
        let longest = longest_renewal(every, self.connect_timeout);
        for lease in leases {
            if !under_way.has(&lease) {
                under_way.begin(lease.clone(), self.renew(lease, longest));
            }
        }
        true
    }

    /// Renews one lease. Neither the round nor the other leases wait for it, in case another transaction has locked the row, as long as the pool has
    /// connections left. It does not hold the store, which may be dropped meanwhile.
    fn renew(self: &Arc<Self>, lease: Lease, longest: Duration) -> impl Future<Output = ()> + Send + use<> {
        let (backend, renewals) = (self.backend.clone(), Arc::downgrade(self));
        async move {
            // A batch that is PAUSED is renewed too, so that it is not stale by the time that it goes on.
            let renewed = backend.renew(&lease.key, &lease.worker_id, Some(lease.token), /* also_paused: */ true);
            match timeout(longest, renewed).await {
                Ok(Ok(BatchChange::LeaseLost | BatchChange::NotFound)) => {
                    if let Some(renewals) = renewals.upgrade() {
                        renewals.claims.ended(&lease.key, lease.token);
                    }
                }
                Ok(Ok(BatchChange::Done(_))) => {}
                // The next round tries again; a lease that can't be renewed for long is lost, which the worker's next call says.
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }
}

/// Round after round, as long as there is a lease to renew and the store is open.
async fn rounds(renewals: Weak<LeaseRenewals>, every: Duration) {
    let mut rounds = interval(every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds.tick().await;
    let mut under_way = UnderWay::default();
    loop {
        rounds.tick().await;
        let Some(renewals) = renewals.upgrade() else { return };
        // A panic costs one round.
        if !caught(|| Ok::<_, Error>(renewals.begin_round(every, &mut under_way))).unwrap_or(true) {
            return;
        }
    }
}
