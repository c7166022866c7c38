//! Modality performed procedure steps (PS3.4 Annex F.7): what a modality says it has done.
//!
//! ```text
//!   N-CREATE (IN PROGRESS) ─► record mpps/«SOP Instance UID» ─► N-SET … ─► N-SET (COMPLETED or DISCONTINUED): final
//!        └───────────────────────── the worklist's step follows: STARTED, COMPLETED, DISCONTINUED ────────┘
//! ```
//!
//! Of two modalities that change one step, each sees the other's change: a set is made on what is there, by compare-and-set.

use crate::{
    Archive, Freshness, Records, Worklist,
    documents::{DocumentError, decode, update},
};
use archive_model::{DataSet, Tag, Uid, tags};

const KIND: &str = "mpps";
/// What a step is while it may be changed.
const IN_PROGRESS: &str = "IN PROGRESS";

/// Why a step was not created, changed or read.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// There is a step of this UID.
    #[error("a performed procedure step of this UID is there already")]
    Duplicate,
    /// There is none of this UID.
    #[error("there is no performed procedure step of this UID")]
    Unknown,
    /// It is COMPLETED or DISCONTINUED: nothing of it changes any more.
    #[error("the performed procedure step is final")]
    Final,
    /// An attribute that must be there is not.
    #[error("{0} is missing")]
    Missing(Tag),
    /// An attribute has a value that it may not have now.
    #[error("{tag} {why}")]
    Value {
        /// The attribute.
        tag: Tag,
        /// What would be right.
        why: &'static str,
    },
    /// It was not kept or read.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// The performed procedure steps.
#[derive(Clone)]
pub struct PerformedSteps {
    records: Records,
    worklist: Worklist,
}

impl Archive {
    /// The performed procedure steps.
    #[must_use]
    pub fn performed_steps(&self) -> PerformedSteps {
        PerformedSteps { records: self.records(KIND), worklist: self.worklist() }
    }
}

impl PerformedSteps {
    /// A UID for a step whose modality gave it none: `2.25` and a UUID as a number (PS3.5 B.2).
    #[must_use]
    pub fn new_uid() -> String {
        format!("2.25.{}", uuid::Uuid::new_v4().as_u128())
    }

    /// Creates a step (N-CREATE).
    ///
    /// # Errors
    /// See [`StepError`].
    pub async fn create(&self, uid: &Uid, set: DataSet) -> Result<(), StepError> {
        match status(&set) {
            None => return Err(StepError::Missing(tags::PERFORMED_PROCEDURE_STEP_STATUS)),
            Some(IN_PROGRESS) => {}
            Some(_) => {
                let why = "of a new step is IN PROGRESS";
                return Err(StepError::Value { tag: tags::PERFORMED_PROCEDURE_STEP_STATUS, why });
            }
        }
        for tag in [tags::PERFORMED_PROCEDURE_STEP_ID, tags::MODALITY, tags::PERFORMED_STATION_AE_TITLE] {
            if set.text(tag).unwrap_or_default().trim().is_empty() {
                return Err(StepError::Missing(tag));
            }
        }
        let made = update(&self.records, uid.as_str(), |found| match found {
            // A repeat of an N-CREATE whose answer was lost says the same: then it is there, as was asked.
            Some(found) if found == set => Ok(found),
            Some(_) => Err(StepError::Duplicate),
            None => Ok(set.clone()),
        });
        let made = made.await?;
        self.follow(&made).await;
        Ok(())
    }

    /// Changes the attributes that `changes` has, each as a whole (N-SET).
    ///
    /// # Errors
    /// See [`StepError`].
    pub async fn set(&self, uid: &Uid, changes: &DataSet) -> Result<(), StepError> {
        let made = update(&self.records, uid.as_str(), |found| {
            let mut step = found.ok_or(StepError::Unknown)?;
            if status(&step) != Some(IN_PROGRESS) {
                return Err(StepError::Final);
            }
            changes.iter().for_each(|element| step.put(element.clone()));
            match status(&step) {
                Some(IN_PROGRESS | "DISCONTINUED") => Ok(step),
                Some("COMPLETED") if step.items(tags::PERFORMED_SERIES_SEQUENCE).is_empty() => {
                    Err(StepError::Missing(tags::PERFORMED_SERIES_SEQUENCE))
                }
                Some("COMPLETED") => Ok(step),
                _ => {
                    let why = "is IN PROGRESS, COMPLETED or DISCONTINUED";
                    Err(StepError::Value { tag: tags::PERFORMED_PROCEDURE_STEP_STATUS, why })
                }
            }
        });
        let made = made.await?;
        self.follow(&made).await;
        Ok(())
    }

    /// One step (N-GET).
    ///
    /// # Errors
    /// When a fresh answer cannot be had.
    pub async fn get(&self, uid: &Uid) -> Result<Option<DataSet>, DocumentError> {
        self.records.get(uid.as_str(), Freshness::ReadIndex).await?.as_ref().map(decode).transpose()
    }

    /// Steps by UID, those behind `after`; at most `limit`.
    ///
    /// # Errors
    /// When a fresh answer cannot be had.
    pub async fn list(&self, after: &str, limit: u32) -> Result<Vec<(String, DataSet)>, DocumentError> {
        let page = self.records.list(after, limit, Freshness::ReadIndex).await?;
        page.iter().map(|record| Ok((record.name.key.clone(), decode(record)?))).collect()
    }

    /// The step itself stands: a worklist that does not know of it is no reason to refuse what was done.
    async fn follow(&self, step: &DataSet) {
        if let Err(error) = self.worklist.follow(step).await {
            tracing::warn!(%error, "the worklist does not say yet how far a step is");
        }
    }
}

fn status(set: &DataSet) -> Option<&str> {
    set.text(tags::PERFORMED_PROCEDURE_STEP_STATUS).map(str::trim).filter(|text| !text.is_empty())
}
