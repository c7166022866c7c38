//! What a node does when it starts: a pure function of its own disk and of what the peers say.
//!
//! ```text
//!   own disk                 peers                                            decision
//!   member, removed          any                                              Refuse
//!   member of X              most expected nodes say another cluster          Refuse (foreign cluster)
//!   member of X              otherwise                                        Resume
//!   blank                    two different clusters                           Refuse
//!   blank                    one cluster Y                                    Join { Y }
//!   blank                    own name not among the expected                  Refuse
//!   blank, alone expected    -                                                Initialise if allowed, else WaitFor
//!   blank                    someone silent                                   WaitFor (who)
//!   blank                    all blank, another name sorts first              WaitFor (the first)
//!   blank                    all blank, own name sorts first                  Initialise
//! ```
//!
//! Invariant: with one list of expected names, two nodes never initialise, and a wiped node never does while one other
//! node still has its disk: it would have to see that node blank. Ask again for ever: every `WaitFor` is "not yet".
//!
//! A founder that loses its disk before any other node has joined founds again, and loses nothing: no write is
//! acknowledged before all expected nodes have joined once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// What the own data folder says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// No identity: a new disk, or a lost one.
    Blank,
    /// A member of this cluster.
    Member {
        /// From the identity file.
        cluster_id: [u8; 16],
        /// The meta group said that this node was replaced.
        removed: bool,
    },
}

/// What one peer says; asked again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// No answer yet, or none any more.
    Silent,
    /// It answers and has no identity either.
    Blank,
    /// It belongs to this cluster.
    Member {
        /// The cluster's id.
        cluster_id: [u8; 16],
    },
}

/// Everything the decision depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// The own name.
    pub name: String,
    /// What the own disk says.
    pub own: Own,
    /// All names of `--peers`, the own one included; empty for a single node.
    pub expected: BTreeSet<String>,
    /// What the others say, by name; whoever is absent is silent.
    pub peers: BTreeMap<String, Seen>,
    /// A single node may found a cluster: a lost disk would start an empty archive, so it is a setting.
    pub single_allowed: bool,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Not ready; say why every 30 s and ask again.
    WaitFor(Vec<Reason>),
    /// Found a new cluster.
    Initialise,
    /// Become a member of this cluster, with new raft ids.
    Join {
        /// The cluster's id.
        cluster_id: [u8; 16],
    },
    /// Go on as before.
    Resume,
    /// Live, serve nothing, and say why.
    Refuse(String),
}

/// Why a node waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// This peer does not answer.
    Silent(String),
    /// This peer will found the cluster, and has not yet.
    Founder(String),
    /// A single node was not allowed to found a cluster.
    SingleNotAllowed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(name) => write!(f, "{name} does not answer"),
            Self::Founder(name) => write!(f, "{name} has not formed the cluster yet"),
            Self::SingleNotAllowed => f.write_str(
                "this node is alone and has no data: name its peers, or allow a single node to start an empty archive",
            ),
        }
    }
}

/// The decision for this situation.
#[must_use]
pub fn decide(situation: &Situation) -> Decision {
    match situation.own {
        Own::Member { removed: true, .. } => Decision::Refuse(
            "this node was replaced: its data folder must be moved away before it may join again".into(),
        ),
        Own::Member { cluster_id, removed: false } => resume(situation, cluster_id),
        Own::Blank => start_blank(situation),
    }
}

fn resume(situation: &Situation, ours: [u8; 16]) -> Decision {
    let foreign = others(situation)
        .filter(|(_, seen)| matches!(seen, Seen::Member { cluster_id } if *cluster_id != ours))
        .count();
    // One strayed peer must not stop a healthy cluster; a majority elsewhere means that this disk is the stray.
    if foreign * 2 > situation.expected.len().max(1) {
        return Decision::Refuse("FOREIGN_CLUSTER: most peers belong to another cluster than this node's disk".into());
    }
    Decision::Resume
}

fn start_blank(situation: &Situation) -> Decision {
    let clusters: BTreeSet<[u8; 16]> = others(situation)
        .filter_map(|(_, seen)| match seen {
            Seen::Member { cluster_id } => Some(cluster_id),
            Seen::Silent | Seen::Blank => None,
        })
        .collect();
    let mut clusters = clusters.into_iter();
    match (clusters.next(), clusters.next()) {
        (Some(_), Some(_)) => {
            return Decision::Refuse("the peers belong to different clusters: check the peer list".into());
        }
        (Some(cluster_id), None) => return Decision::Join { cluster_id },
        (None, _) => {}
    }
    let alone = situation.expected.iter().all(|name| *name == situation.name);
    if alone && situation.single_allowed {
        return Decision::Initialise;
    }
    if alone {
        return Decision::WaitFor(vec![Reason::SingleNotAllowed]);
    }
    if !situation.expected.contains(&situation.name) {
        return Decision::Refuse(format!("the peer list does not name this node, {}", situation.name));
    }
    let silent: Vec<Reason> = others(situation)
        .filter(|(_, seen)| *seen == Seen::Silent)
        .map(|(name, _)| Reason::Silent(name.to_owned()))
        .collect();
    if !silent.is_empty() {
        return Decision::WaitFor(silent);
    }
    match situation.expected.first() {
        Some(first) if *first != situation.name => Decision::WaitFor(vec![Reason::Founder(first.clone())]),
        _ => Decision::Initialise,
    }
}

/// What every expected peer but this node says, and every other that was heard.
fn others(situation: &Situation) -> impl Iterator<Item = (&str, Seen)> {
    let names: BTreeSet<&str> = situation.expected.iter().chain(situation.peers.keys()).map(String::as_str).collect();
    names
        .into_iter()
        .filter(|name| *name != situation.name)
        .map(|name| (name, situation.peers.get(name).copied().unwrap_or(Seen::Silent)))
        // A stranger that is silent or blank keeps nobody waiting; a stranger that knows a cluster is believed.
        .filter(|(name, seen)| situation.expected.contains(*name) || matches!(seen, Seen::Member { .. }))
}
