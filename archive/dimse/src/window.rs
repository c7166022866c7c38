//! The asynchronous operations window (PS3.7 D.3.3.3): objects that have come whole and are being made durable while the
//! next one is received.
//!
//! ```text
//!   C-STORE 1 ═══▶ finishing ──────────▶ response 1
//!   C-STORE 2      ═══▶ finishing ──▶ response 2          responses go as they are ready, in any order (PS3.7 D.3.3.3.1)
//!   C-FIND 3            (waits) ──────────▶ answered when nothing finishes any more
//! ```
//!
//! Only the end of a C-STORE overlaps with what follows: there a sender waits for disks and peers. Whatever else is asked is
//! answered after the objects before it, so that a query or a storage commitment knows them. How many may be under way was
//! agreed on; a requestor that sends more is not read any further, which is all that it takes.
//!
//! Objects go on when the association is lost: they have come whole, and are stored as if their answer had got lost.

use crate::{
    association::{Association, Ended},
    command,
    metrics::Metrics,
    status::{self, Status},
};
use archive_model::DataSet;
use archive_service::Ingest;
use std::time::Instant;
use tokio::task::JoinSet;

/// A request that is answered later.
pub(crate) struct Request {
    /// Presentation context.
    pub(crate) context: u8,
    /// The command set that asked.
    pub(crate) set: DataSet,
    /// When it came.
    pub(crate) since: Instant,
}

/// The objects that finish.
pub(crate) struct Window {
    operations_max: usize,
    finishing: JoinSet<(Request, Status)>,
}

impl Window {
    /// For as many operations at a time as were agreed on.
    pub(crate) fn of(association: &Association) -> Self {
        Self { operations_max: usize::from(association.operations_max), finishing: JoinSet::new() }
    }

    /// Stores an object that has come whole, and says later how that ended; waits until one more may come.
    pub(crate) async fn finish(
        &mut self,
        metrics: &Metrics,
        association: &mut Association,
        request: Request,
        ingest: Ingest,
    ) -> Result<(), Ended> {
        if self.operations_max <= 1 {
            // Whoever waits for each answer anyway needs no task for it.
            let status = finish(ingest).await;
            return Self::answer(metrics, association, (request, status)).await;
        }
        self.finishing.spawn(async move { (request, finish(ingest).await) });
        while self.finishing.len() >= self.operations_max {
            self.answer_next(metrics, association).await?;
        }
        Ok(())
    }

    /// Whether every object was answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.finishing.is_empty()
    }

    /// The next object that is ready; never comes while there is none. Cancel safe.
    pub(crate) async fn ready(&mut self) -> Result<(Request, Status), Ended> {
        match self.finishing.join_next().await {
            Some(Ok(ready)) => Ok(ready),
            // Never an answer that nobody knows to be true (D-1).
            Some(Err(error)) => Err(Ended::Broken(format!("an object was not stored to its end: {error}"))),
            None => std::future::pending().await,
        }
    }

    /// Answers what [`Window::ready`] gave.
    pub(crate) async fn answer(
        metrics: &Metrics,
        association: &mut Association,
        (request, status): (Request, Status),
    ) -> Result<(), Ended> {
        let response = command::response(&request.set, &status, false);
        let started = Instant::now();
        association.send(request.context, &response, None).await?;
        metrics.answer_seconds.observe(started.elapsed().as_secs_f64());
        metrics.responses.with_label_values(&["store", &format!("{:04x}", status.code)]).inc();
        metrics.operation_seconds.with_label_values(&["store"]).observe(request.since.elapsed().as_secs_f64());
        Ok(())
    }

    async fn answer_next(&mut self, metrics: &Metrics, association: &mut Association) -> Result<(), Ended> {
        let ready = self.ready().await?;
        Self::answer(metrics, association, ready).await
    }

    /// Answers all that is under way.
    pub(crate) async fn answer_all(&mut self, metrics: &Metrics, association: &mut Association) -> Result<(), Ended> {
        while !self.is_empty() {
            self.answer_next(metrics, association).await?;
        }
        Ok(())
    }

    /// Lets all come to its end without an answer: nobody is there to take it.
    pub(crate) async fn settle(&mut self) {
        while self.finishing.join_next().await.is_some() {}
    }
}

/// Makes an object durable; success is the proof, and nothing else (D-1).
async fn finish(ingest: Ingest) -> Status {
    match ingest.finish().await {
        Ok(_stored) => Status::new(status::SUCCESS, ""),
        Err(error) => {
            tracing::info!(%error, "an object was refused");
            Status::from(&error)
        }
    }
}
