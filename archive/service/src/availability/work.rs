//! The work on notifications: what is due in the groups that this node leads is told to whoever wants it.

use super::{KIND, Left, Notification, Notifier, State, data_set};
use crate::{Archive, Expect, Freshness, QueryError, RecordError, due};
use archive_catalog::Record;
use archive_model::Uid;
use std::sync::Arc;

/// Studies that this node tells of at the same time: one that does not answer holds up no more than its own.
const STUDIES_MAX: usize = 8;
/// First pause between two attempts; it doubles.
const PAUSE_MIN_MS: u64 = 5_000;
/// Last pause between two attempts.
const PAUSE_MAX_MS: u64 = 3600 * 1000;

/// Until this node drains.
pub(super) async fn work(archive: Archive, notifier: Arc<dyn Notifier>) {
    let bring_on = |study: String| {
        let (archive, notifier) = (archive.clone(), Arc::clone(&notifier));
        async move {
            if let Err(error) = one(&archive, &*notifier, &study).await {
                tracing::info!(study, %error, "the availability of a study is told later");
            }
        }
    };
    due::work(&archive, KIND, STUDIES_MAX, bring_on).await;
}

/// Brings one record as far as it comes now.
async fn one(archive: &Archive, notifier: &dyn Notifier, key: &str) -> Result<(), RecordError> {
    let records = archive.records(KIND);
    let Ok(study) = Uid::parse(key) else { return Ok(()) };
    while let Some(record) = records.get(key, Freshness::ReadIndex).await? {
        let now = archive.clock().unix_ms();
        if record.due_unix_ms.is_none_or(|due| due > now) {
            return Ok(());
        }
        let (state, due) = match State::decode(&record.body) {
            None => {
                tracing::warn!(study = key, "a notification of a newer release: upgrade this node");
                return Ok(());
            }
            Some(State::Waiting { at_once }) => match quiet_at(archive, &study, at_once).await? {
                later if later > now => (State::Waiting { at_once }, later),
                _ => {
                    let left = |ae_title| Left { ae_title, tries: 0, next_unix_ms: now };
                    let left: Vec<Left> = archive.peers().wanting_availability().into_iter().map(left).collect();
                    let instance = format!("2.25.{}", uuid::Uuid::new_v4().as_u128());
                    (State::Telling { instance, since_unix_ms: now, left, again: false }, now)
                }
            },
            Some(State::Telling { left, again, .. }) if left.is_empty() => {
                if !again {
                    match records.remove(key, record.version).await {
                        Ok(()) => return Ok(()),
                        // Something came meanwhile.
                        Err(RecordError::Conflict { .. }) => continue,
                        Err(error) => return Err(error),
                    }
                }
                (State::Waiting { at_once: false }, now)
            }
            Some(State::Telling { instance, left, since_unix_ms, .. }) => {
                let Some(next) = left.iter().find(|left| left.next_unix_ms <= now) else { return Ok(()) };
                let told = tell(archive, notifier, &study, &instance, &next.ae_title).await?;
                settle(archive, key, &instance, since_unix_ms, &next.ae_title, told).await?;
                continue;
            }
        };
        match records.put(key, Expect::Version(record.version), state.encode(), Some(due)).await {
            Ok(_) | Err(RecordError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// When a study has been quiet for long enough.
async fn quiet_at(archive: &Archive, study: &Uid, at_once: bool) -> Result<u64, QueryError> {
    if at_once {
        return Ok(0);
    }
    let group = archive.log().group_of(study.as_str().as_bytes()).ok_or(QueryError::Starting)?;
    archive.read_index(vec![group]).await?;
    let (catalog, study) = (Arc::clone(archive.catalog()), study.clone());
    let newest = archive.look_up(move || catalog.last_received_unix_ms(&study)).await?;
    let quiet_ms = u64::try_from(archive.settings().study_quiet.as_millis()).unwrap_or(u64::MAX);
    Ok(newest.map_or(0, |newest| newest.saturating_add(quiet_ms)))
}

/// Tells one application once.
async fn tell(
    archive: &Archive,
    notifier: &dyn Notifier,
    study: &Uid,
    instance: &str,
    ae_title: &str,
) -> Result<Result<(), String>, RecordError> {
    let Some(remote) = archive.remote(ae_title) else {
        return Ok(Err("its address is not known: give it by `triptych peer set`".into()));
    };
    let group = archive.log().group_of(study.as_str().as_bytes()).ok_or(QueryError::Starting)?;
    //
    archive.read_index(vec![group]).await?;
    let (catalog, own) = (Arc::clone(archive.catalog()), study.clone());
    let all = archive.look_up(move || catalog.availability(&own)).await?;
    let Some(data_set) = data_set(study, &all, archive.ae_title().as_str()) else { return Ok(Ok(())) };
    Ok(notifier.notify(&remote, &Notification { instance: instance.to_owned(), data_set }).await)
}

/// Writes down what became of an attempt.
async fn settle(
    archive: &Archive,
    key: &str,
    instance: &str,
    since_unix_ms: u64,
    ae_title: &str,
    told: Result<(), String>,
) -> Result<(), RecordError> {
    let records = archive.records(KIND);
    let now = archive.clock().unix_ms();
    let for_ms = u64::try_from(archive.settings().notify_for.as_millis()).unwrap_or(u64::MAX);
    let given_up = told.is_err() && now >= since_unix_ms.saturating_add(for_ms);
    let mut counted = false;
    loop {
        let Some(Record { version, body, .. }) = records.get(key, Freshness::ReadIndex).await? else { return Ok(()) };
        let Some(State::Telling { instance: current, since_unix_ms, mut left, again }) = State::decode(&body) else {
            return Ok(());
        };
        let Some(at) = left.iter().position(|left| left.ae_title == ae_title).filter(|_| current == instance) else {
            return Ok(()); // another node was faster
        };
        if !counted {
            counted = true;
            count(archive, key, ae_title, left[at].tries, &told, given_up);
        }
        if told.is_ok() || given_up {
            left.remove(at);
        } else {
            let pause_ms = PAUSE_MIN_MS.saturating_mul(1 << left[at].tries.min(20)).min(PAUSE_MAX_MS);
            left[at].tries = left[at].tries.saturating_add(1);
            left[at].next_unix_ms = now.saturating_add(pause_ms);
        }
        let state = State::Telling { instance: current, since_unix_ms, left, again };
        let due = state.next_unix_ms(now);
        match records.put(key, Expect::Version(version), state.encode(), Some(due)).await {
            Ok(_) => return Ok(()),
            Err(RecordError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

fn count(archive: &Archive, study: &str, ae_title: &str, tries: u32, told: &Result<(), String>, given_up: bool) {
    let result = match told {
        Ok(()) => {
            tracing::info!(study, called_ae = ae_title, "the availability of a study was told");
            "sent"
        }
        Err(why) if given_up => {
            tracing::warn!(study, called_ae = ae_title, why, "the notification of a study's availability is given up");
            "given_up"
        }
        Err(why) => {
            if tries == 0 {
                tracing::warn!(
                    study,
                    called_ae = ae_title,
                    why,
                    "the availability of a study was not told: it is tried again for days"
                );
            } else {
                tracing::debug!(study, called_ae = ae_title, why, "the availability of a study was not told");
            }
            "failed"
        }
    };
    archive.metrics().notifications.with_label_values(&[result]).inc();
}
