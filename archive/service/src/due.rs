//! The loop that every kind of work in the log has: what is due in the groups that this node leads is brought on, some of it at
//! the same time, until the node drains.
//!
//! Who leads a record's group works on it; nothing of that is kept. When the leader dies, the next one finds the same records
//! due. Two leaders may overlap for a moment: what they do may be repeated, and what it comes to is put by compare-and-set.

use crate::Archive;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::{task::JoinSet, time::Instant};

/// Between two looks for what is due.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Before a record that was worked on is looked at again, if it is still due: what could not be written, above all.
const REST: Duration = Duration::from_secs(1);
/// Records that one look answers, at most.
pub(crate) const DUE_MAX: u32 = 1000;

/// Until this node drains: `one` for each key of `kind` that is due, at most `at_once_max` at the same time, never two of one
/// key. What it has not ended then is dropped: half done, it is done by the next leader.
pub(crate) async fn work<F, W>(archive: &Archive, kind: &'static str, at_once_max: usize, one: F)
where
    F: Fn(String) -> W,
    W: Future<Output = ()> + Send + 'static,
{
    let stop = archive.draining().clone();
    let mut running = JoinSet::new();
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = look(archive, kind, at_once_max, one, &mut running) => {}
    }
    running.shutdown().await;
}

async fn look<F, W>(archive: &Archive, kind: &'static str, at_once_max: usize, one: F, running: &mut JoinSet<String>)
where
    F: Fn(String) -> W,
    W: Future<Output = ()> + Send + 'static,
{
    let records = archive.records(kind);
    let (mut busy, mut resting) = (BTreeSet::new(), BTreeMap::<String, Instant>::new());
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            Some(done) = running.join_next(), if !running.is_empty() => {
                match done {
                    Ok(key) => {
                        busy.remove(&key);
                        resting.insert(key, Instant::now() + REST);
                    }
                    // A panic was printed; its record rests until this node is started again or another leads.
                    Err(error) => tracing::error!(kind, %error, "the work on a record ended badly"),
                }
                continue;
            }
        }
        let now = Instant::now();
        resting.retain(|_, until| *until > now);
        if busy.len() >= at_once_max {
            continue;
        }
        let due = match records.due(archive.clock().unix_ms(), DUE_MAX).await {
            Ok(due) => due,
            Err(error) => {
                tracing::debug!(kind, %error, "what is due is not known");
                continue;
            }
        };
        for key in due {
            if busy.len() < at_once_max && !resting.contains_key(&key) && busy.insert(key.clone()) {
                let work = one(key.clone());
                running.spawn(async move {
                    work.await;
                    key
                });
            }
        }
    }
}
