//! The option `leaseRenewal`: renews the leases of a store's claims in the background, until none is left. It runs on the runtime's own threads,
//! which a blocked event loop does not stop.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::backend::{Backend, BatchChange};
use crate::error::{Code, Error, Quoted};
use crate::held_claims::{Claims, Lease};
use crate::order::Gate;
use crate::panics::{self, caught};
use crate::settings::LeaseRenewal;
use crate::warnings::{Warning, WarningKind, Warnings};

/// Renews the leases of one store. It has direct access to the backend, because it is not a call, and the next round repeats what fails.
pub(super) struct LeaseRenewals {
    backend: Arc<dyn Backend>,
    claims: Arc<Claims>,
    gate: Gate,
    option: Option<LeaseRenewal>,
    connect_timeout: Duration,
    warnings: Warnings,
    /// Whether the rounds are running.
    running: AtomicBool,
}

/// The running renewals, at most one per lease. Dropping this aborts them.
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

/// The time limit of a renewal. It ends before the next round, which starts it again, unless a round is shorter than a new connection and a statement
/// may take: aborted earlier, renewals would never succeed and would only keep the server busy with connections.
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
        warnings: Warnings,
    ) -> Arc<Self> {
        Arc::new(Self {
            backend,
            claims,
            gate,
            option,
            connect_timeout,
            warnings,
            running: AtomicBool::new(false),
        })
    }

    /// How long after its claim a lease is renewed; `None` if leases are not renewed.
    pub(super) fn for_at_most(&self) -> Option<Duration> {
        self.option.map(|option| option.for_at_most)
    }

    /// Starts the renewal, if the options ask for it and it is not running.
    pub(super) fn start(self: &Arc<Self>) {
        let Some(LeaseRenewal { every, .. }) = self.option else { return };
        if !self.running.swap(true, Ordering::AcqRel) {
            tokio::spawn(rounds(Arc::downgrade(self), every));
        }
    }

    /// Begins one round of renewals. Returns whether another one is needed.
    fn begin_round(self: &Arc<Self>, every: Duration, under_way: &mut UnderWay) -> bool {
        let leases = self.claims.leases(Instant::now());
        if self.gate.is_closed() {
            return false;
        }
        panics::fail_point("renewal");
        if leases.is_empty() {
            self.running.store(false, Ordering::Release);
            // A claim may have been made between the check and the flag.
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

    /// Renews one lease in a task of its own, so that a row that another transaction has locked delays neither the round nor the other leases, as
    /// long as the pool has free connections. The task does not keep the store alive.
    fn renew(self: &Arc<Self>, lease: Lease, longest: Duration) -> impl Future<Output = ()> + Send + use<> {
        let (backend, renewals, warnings) = (self.backend.clone(), Arc::downgrade(self), self.warnings.clone());
        let watch = self.warnings.clone();
        let renewal = async move {
            panics::fail_point("lease");
            // A PAUSED batch is renewed too, so that it is not stale when it resumes.
            let renewed = backend.renew(&lease.key, &lease.worker_id, Some(lease.token), /* also_paused: */ true);
            match timeout(longest, renewed).await {
                Ok(Ok(change @ (BatchChange::LeaseLost | BatchChange::NotFound))) => {
                    let Some(renewals) = renewals.upgrade() else { return };
                    // A batch that is not found was finished or given back. A claim that ended meanwhile was not taken either.
                    if renewals.claims.ended(&lease.key, lease.token) && change == BatchChange::LeaseLost {
                        let error = Error::lease_lost(&lease.key, lease.token);
                        warnings.warn(lease.warning(WarningKind::ClaimTaken, error));
                    }
                }
                Ok(Ok(BatchChange::Done(_))) => {}
                // The next round retries. A lease that can't be renewed for long is lost, and the worker's next call reports that.
                Ok(Err(error)) => warnings.warn(lease.warning(WarningKind::RenewalFailed, error)),
                Err(_) => warnings.warn(lease.warning(WarningKind::RenewalFailed, took_too_long(longest))),
            }
        };
        async move {
            watch.watch("the renewal of a lease", renewal).await;
        }
    }
}

impl Lease {
    fn warning(&self, kind: WarningKind, error: Error) -> Warning {
        let message = match kind {
            WarningKind::RenewalFailed => format!(
                "the lease of batch {} of job {} could not be renewed: {}. The next round tries again",
                Quoted(&self.key.batch_id),
                Quoted(&self.key.job_id),
                error.message
            ),
            _ => error.message.clone(),
        };
        let worker = Some(&*self.worker_id.0);
        Warning::new(kind, message).batch(&self.key).worker(worker).error(error)
    }
}

fn took_too_long(longest: Duration) -> Error {
    Error::new(Code::Timeout, format!("it took longer than {} ms", longest.as_millis()))
}

/// Runs rounds as long as there is a lease to renew and the store is open.
async fn rounds(renewals: Weak<LeaseRenewals>, every: Duration) {
    let mut rounds = interval(every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds.tick().await;
    let mut under_way = UnderWay::default();
    loop {
        rounds.tick().await;
        let Some(renewals) = renewals.upgrade() else { return };
        // A panic costs one round.
        match caught(|| Ok::<_, Error>(renewals.begin_round(every, &mut under_way))) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => renewals.warnings.panicked("a round of renewals", error),
        }
    }
}
