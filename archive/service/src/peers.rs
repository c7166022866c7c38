//! Who may call, who is called, and by which rules: the registry of application entities, the same on every node.
//!
//! ```text
//!   triptych peer set ─► Peers::set ─► Documents::put (compare and set, by a majority)
//!                                            │ every node
//!                                            ▼
//!                        follow ─► Known ─► caller · destination · other_content          (no waiting, no I/O)
//! ```
//!
//! Invariants
//! - PR-1 Before this node knows the registry, or when it cannot read it, nobody is admitted: an old rule, or none, could let
//!   in whom an operator has shut out. The refusal is for now, so that modalities try again.
//! - PR-2 Who is listed is never taken for anybody: a call from an address that is not his is refused.
//! - PR-3 An entry replaces what `--remote-ae` says of the same title: what is in the registry is on every node.
//! - PR-4 Who changes the registry has seen what he changes: of two changes at once one is made anew over the other.
//!
//! A title is no proof of who calls (PS3.8 has none): addresses narrow it down, and TLS is what proves it.

mod network;
mod registry;
mod rule;
#[cfg(test)]
mod tests;

pub use network::Network;
pub use registry::{ANYBODY, DICOMWEB, Hierarchy, Peer, Registry, Right, UnknownClasses};
pub use rule::{Action, Attribute, Rule, When};

use crate::{Protocol, RemoteAe, Source};
use archive_catalog::OtherContent;
use archive_model::{AeTitle, Uid};
use parking_lot::RwLock;
use raft_types::{Document, DocumentError, Documents};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

/// The key of the registry among the documents of the cluster.
const KEY: &str = "peers";
/// How often a change is made anew because another one came between.
const TRIES: usize = 8;
/// How long this node may take to hear of it.
const HEAR_WITHIN: Duration = Duration::from_secs(5);

/// What this node knows of the registry.
#[derive(Debug, Clone)]
enum Known {
    /// Nothing yet: the node has just started.
    NotYet,
    /// It is there, and cannot be read.
    Unreadable { version: u64, why: String },
    /// This.
    Registry(Arc<Registry>),
}

/// Why a caller is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// This node does not know the rules yet: for now.
    #[error("this node does not know yet who may call")]
    NotYet,
    /// It is not listed, or may do nothing.
    #[error("this application entity may not call")]
    Title,
    /// It calls from an address that is not its own.
    #[error("this application entity may not call from there")]
    Address,
}

/// An application that images may be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Title and address.
    pub remote: RemoteAe,
    /// Transfer syntaxes that it may be sent; empty: as stored, else uncompressed.
    pub transfer_syntaxes: Vec<Uid>,
    /// For how many days what a C-MOVE to it could not send is tried again, once that is answered; 0: it is not.
    pub retry_days: u32,
    /// What it is shown in place of what is stored.
    pub coerce: Vec<Rule>,
}

/// Why the registry was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeersError {
    /// What was asked for cannot be: the sentence says what would be right.
    #[error("{0}")]
    Bad(String),
    /// There is no such entry.
    #[error("there is no peer {0}: `triptych peer list` lists them")]
    Unknown(AeTitle),
    /// Somebody else was first.
    #[error("the peers were changed meanwhile, they are at version {0} now: look at them and try again")]
    Changed(u64),
    /// It would break a bound of the cluster.
    #[error("{0}")]
    Refused(String),
    /// No majority decided, or this node does not know the registry yet: try again.
    #[error("{0}")]
    Undecided(String),
}

/// The registry as this node knows it.
pub struct Peers {
    documents: Arc<dyn Documents>,
    remotes: BTreeMap<String, RemoteAe>,
    known: RwLock<Known>,
}

impl Peers {
    pub(crate) fn new(documents: Arc<dyn Documents>, remotes: BTreeMap<String, RemoteAe>) -> Self {
        Self { documents, remotes, known: RwLock::new(Known::NotYet) }
    }

    /// Learns of every change, for as long as it is let.
    pub async fn follow(&self) {
        let mut seen = None;
        loop {
            let document = self.documents.next(KEY, seen).await;
            seen = Some(document.version);
            self.learn(&document);
        }
    }

    /// Takes a document over, unless a newer one is known.
    pub(crate) fn learn(&self, document: &Document) {
        let mut known = self.known.write();
        let held = match &*known {
            Known::NotYet => None,
            Known::Unreadable { version, .. } => Some(*version),
            Known::Registry(registry) => Some(registry.version()),
        };
        if held >= Some(document.version) {
            return;
        }
        *known = match Registry::decode(document.version, &document.bytes) {
            Ok(registry) => {
                tracing::info!(version = document.version, peers = registry.peers().count(), "the peers are known");
                Known::Registry(Arc::new(registry))
            }
            Err(why) => {
                tracing::error!(version = document.version, why, "the peers cannot be read: nobody is admitted");
                Known::Unreadable { version: document.version, why }
            }
        };
    }

    /// The registry.
    ///
    /// # Errors
    /// `Undecided`, with a sentence, while it is not known.
    pub fn registry(&self) -> Result<Arc<Registry>, PeersError> {
        match &*self.known.read() {
            Known::NotYet => Err(PeersError::Undecided(
                "this node does not know the peers yet: it has not joined its cluster".into(),
            )),
            Known::Unreadable { why, .. } => Err(PeersError::Undecided(format!("the list of peers: {why}"))),
            Known::Registry(registry) => Ok(Arc::clone(registry)),
        }
    }

    /// What the command line of this node says.
    pub fn remotes(&self) -> impl Iterator<Item = &RemoteAe> {
        self.remotes.values()
    }

    /// The entry under which a caller is admitted: its own, or that of all who are not listed.
    ///
    /// # Errors
    /// Why it is not.
    pub fn caller(&self, calling: &str, from: IpAddr) -> Result<Arc<Peer>, NotAdmitted> {
        let registry = self.registry().map_err(|_| NotAdmitted::NotYet)?;
        let entry = registry.entry(calling.trim());
        if entry.rights.is_empty() {
            return Err(NotAdmitted::Title);
        }
        if !entry.may_come_from(from) {
            return Err(NotAdmitted::Address);
        }
        Ok(Arc::clone(entry))
    }

    /// The application that images may be sent to under the title `ae`: as listed, else as the command line says.
    #[must_use]
    pub fn destination(&self, ae: &str) -> Option<Destination> {
        let ae = ae.trim();
        let registry = self.registry().ok()?;
        // Of one that is not listed what holds for all of those (CO-2).
        let entry = registry.entry(ae);
        let coerce = entry.coerce.clone();
        if ![ANYBODY, DICOMWEB].contains(&ae) && registry.lists(ae) {
            let remote = RemoteAe { title: entry.ae.clone(), address: entry.address.clone()? };
            let (transfer_syntaxes, retry_days) = (entry.transfer_syntaxes.clone(), entry.retry_days);
            return Some(Destination { remote, transfer_syntaxes, coerce, retry_days });
        }
        let remote = self.remotes.get(ae)?.clone();
        Some(Destination { remote, transfer_syntaxes: Vec::new(), coerce, retry_days: 0 })
    }

    /// Whether anybody wants to be told what is available: asked at every store.
    #[must_use]
    pub fn anybody_wants_availability(&self) -> bool {
        self.registry().is_ok_and(|registry| registry.peers().any(|peer| peer.notify))
    }

    /// The titles of those who want to be told what is available.
    #[must_use]
    pub fn wanting_availability(&self) -> Vec<String> {
        let Ok(registry) = self.registry() else { return Vec::new() };
        registry.peers().filter(|peer| peer.notify).map(|peer| peer.ae.to_string()).collect()
    }

    /// What becomes of another content under a known UID that comes from there.
    #[must_use]
    pub fn other_content(&self, source: &Source) -> OtherContent {
        // Nothing is lost by keeping both.
        let Ok(registry) = self.registry() else { return OtherContent::Keep };
        match source.protocol {
            Protocol::Dimse => registry.entry(source.calling_ae.trim()).other_content,
            Protocol::Stow => registry.get(DICOMWEB).map_or(OtherContent::Keep, |web| web.other_content),
            Protocol::Import => OtherContent::Keep,
        }
    }

    /// Sets an entry; in force on this node when it returns, on the others within moments. Answers the version of the
    /// registry, and whether the entry is new. With `expected` only if the registry is at that version.
    ///
    /// # Errors
    /// See [`PeersError`].
    pub async fn set(&self, peer: Peer, expected: Option<u64>) -> Result<(u64, bool), PeersError> {
        peer.check().map_err(PeersError::Bad)?;
        let ae = peer.ae.clone();
        let mut is_new = false;
        let change = |registry: &Registry| {
            is_new = !registry.lists(ae.as_str());
            Ok(registry.with(&ae, Some(peer.clone())))
        };
        let version = self.change(expected, change).await?;
        tracing::info!(ae = %ae, version, "a peer is set");
        Ok((version, is_new))
    }

    /// Removes an entry: who calls under its title is one of those that are not listed. Answers the version of the registry.
    ///
    /// # Errors
    /// See [`PeersError`].
    pub async fn remove(&self, ae: &AeTitle, expected: Option<u64>) -> Result<u64, PeersError> {
        let change = |registry: &Registry| match registry.lists(ae.as_str()) {
            true => Ok(registry.with(ae, None)),
            false => Err(PeersError::Unknown(ae.clone())),
        };
        let version = self.change(expected, change).await?;
        tracing::info!(ae = %ae, version, "a peer is removed");
        Ok(version)
    }

    async fn change(
        &self,
        expected: Option<u64>,
        mut change: impl FnMut(&Registry) -> Result<bytes::Bytes, PeersError>,
    ) -> Result<u64, PeersError> {
        for _ in 0..TRIES {
            let registry = self.registry()?;
            let version = registry.version();
            if expected.is_some_and(|expected| expected != version) {
                return Err(PeersError::Changed(version));
            }
            let bytes = change(&registry)?;
            match self.documents.put(KEY, version, bytes.clone()).await {
                Ok(version) => {
                    self.learn(&Document { version, bytes });
                    return Ok(version);
                }
                Err(DocumentError::Changed { version: now }) => {
                    if expected.is_some() {
                        return Err(PeersError::Changed(now));
                    }
                    let newer = self.documents.next(KEY, Some(version));
                    let newer = tokio::time::timeout(HEAR_WITHIN, newer).await;
                    let newer = newer.map_err(|_| PeersError::Undecided("this node lags: try again".into()))?;
                    self.learn(&newer);
                }
                Err(DocumentError::Refused(why)) => return Err(PeersError::Refused(why)),
                Err(error @ DocumentError::Undecided(_)) => return Err(PeersError::Undecided(error.to_string())),
            }
        }
        Err(PeersError::Undecided("others change the peers all the time: try again".into()))
    }
}
