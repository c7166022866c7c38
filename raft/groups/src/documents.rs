//! Documents of the meta group, as every node knows them: read from memory, set through the meta leader, watched.
//!
//! A node that has just started has not applied the whole log of the meta group yet: what it would say of a document could be
//! of last year. It asks the meta leader once (read index) how far it has to be, and says nothing before it is there. Later
//! it says what it has applied, with or without a majority.

use crate::node::Node;
use bytes::Bytes;
use raft_placement::{MetaCommand, MetaOutcome, MetaState};
use raft_types::{BoxFuture, Command, Document, DocumentError, Documents, GroupId, KeptDocument, Propose, Versioned};
use std::{sync::atomic::Ordering, time::Duration};

/// How long the meta group may take to decide.
const DECIDE_WITHIN: Duration = Duration::from_secs(8);
/// How long this node may take to apply what was decided.
const APPLY_WITHIN: Duration = Duration::from_secs(5);
/// Before the meta leader is looked for again.
const PAUSE: Duration = Duration::from_millis(50);

impl Node {
    /// Returns once this node has applied everything that the meta group had committed at some moment since the start.
    async fn know_documents(&self) {
        while !self.knows_documents.load(Ordering::Acquire) {
            // Nobody is asked in vain: other readers would wait for that round of the read index, too.
            let led = self.group(GroupId::META).is_some_and(|meta| self.led_by_a_majority(&meta));
            if led && self.read_index_of(vec![GroupId::META]).await.is_ok() {
                self.knows_documents.store(true, Ordering::Release);
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn next_document(&self, key: &str, seen: Option<u64>) -> Document {
        self.know_documents().await;
        let mut meta = self.meta.watch();
        loop {
            let document = meta.borrow_and_update().document(key);
            if seen != Some(document.version) {
                return document;
            }
            if meta.changed().await.is_err() {
                return std::future::pending().await; // the node is going
            }
        }
    }

    async fn put_document(&self, key: &str, expected: u64, bytes: Bytes) -> Result<u64, DocumentError> {
        let command = MetaCommand::SetDocument { key: key.to_owned(), expect_version: expected, bytes };
        let command = Command { head: command.encode(), body: Bytes::new() };
        let undecided = |why: String| DocumentError::Undecided(why);
        let proposed = self.propose(GroupId::META, command, DECIDE_WITHIN).await;
        let outcome = proposed.map_err(|error| undecided(error.to_string()))?.outcome;
        match MetaOutcome::decode(&outcome).map_err(|error| undecided(error.to_string()))? {
            MetaOutcome::DocumentSet { version } => {
                let mut meta = self.meta.watch();
                let here = meta.wait_for(|state| state.document(key).version >= version);
                if !matches!(tokio::time::timeout(APPLY_WITHIN, here).await, Ok(Ok(_))) {
                    return Err(undecided("it is set, but this node has not heard of it yet".into()));
                }
                tracing::info!(key, version, "a document of the cluster is set");
                Ok(version)
            }
            MetaOutcome::DocumentChanged { version } => Err(DocumentError::Changed { version }),
            MetaOutcome::Refused { why } => Err(DocumentError::Refused(why)),
            other => Err(undecided(format!("it answered {other:?}"))),
        }
    }
}

impl Node {
    /// All documents, as a backup keeps them.
    #[must_use]
    pub fn kept_documents(&self) -> Vec<KeptDocument> {
        kept(&self.meta.state())
    }
}

/// The documents of a state, as backup and recovery keep them.
pub(crate) fn kept(state: &MetaState) -> Vec<KeptDocument> {
    let all = state.documents().map(|(key, document)| KeptDocument { key: key.to_owned(), bytes: document.bytes });
    all.collect()
}

impl Documents for Node {
    fn next<'a>(&'a self, key: &'a str, seen: Option<u64>) -> BoxFuture<'a, Document> {
        Box::pin(self.next_document(key, seen))
    }

    fn put<'a>(&'a self, key: &'a str, expected: u64, bytes: Bytes) -> BoxFuture<'a, Result<u64, DocumentError>> {
        Box::pin(self.put_document(key, expected, bytes))
    }
}
