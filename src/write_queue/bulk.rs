//! The order of a bulk save among its job's other saves. It runs beside the writer, but saves of the same record keep their order in both ways of
//! saving: a bulk save waits for the earlier single saves, and single saves of records in its range wait for it.

use std::ops::RangeInclusive;
use std::sync::Arc;

use tokio::sync::watch;

use super::done::Done;
use super::queue::BulkTicket;
use super::writer::Writer;

/// Dropping this ends the bulk save.
pub struct BulkPlace {
    writer: Arc<Writer>,
    job_id: String,
    number: u64,
    before: Vec<watch::Receiver<()>>,
    singles: Option<Done>,
    /// Dropped with the place; later saves wait for that.
    _done: watch::Sender<()>,
}

impl BulkPlace {
    pub(super) fn take(writer: Arc<Writer>, job_id: &str, range: RangeInclusive<i32>) -> Self {
        let BulkTicket {
            number,
            before,
            singles,
            done,
        } = writer.queues.enter(job_id, |queue| queue.enter_bulk(range));
        Self {
            writer,
            job_id: job_id.to_owned(),
            number,
            before,
            singles,
            _done: done,
        }
    }

    /// Waits until every earlier save of these records is done.
    pub async fn wait(&mut self) {
        self.writer.start(&self.job_id);
        if let Some(singles) = self.singles.take() {
            singles.wait().await;
        }
        for mut bulk in self.before.drain(..) {
            // Nothing is ever sent: the channel closes when the bulk save ends.
            let _ = bulk.changed().await;
        }
    }
}

impl Drop for BulkPlace {
    fn drop(&mut self) {
        self.writer.queues.change(&self.job_id, |queue| queue.leave_bulk(self.number));
    }
}
