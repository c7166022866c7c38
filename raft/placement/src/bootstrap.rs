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
//!   blank                    all blank, own name sorts first, seen once       WaitFor (another look)
//!   blank                    the same blank disks at two looks in a row       Initialise
//! ```
//!
//! Invariant: with one list of expected names, two nodes never initialise, and a wiped node never does while one other
//! node still has its disk: it would have to see that node blank. Ask again for ever: every `WaitFor` is "not yet".
//!
//! Why two looks: the answers of one are given at different times, and disks that are lost and mirrored one after the
//! other could each be blank when asked, though one was whole at every moment. A disk that has become a member's is never
//! blank again, and a new one has another id; so disks that are blank at two looks, the second begun after the first had
//! ended, were all blank at once in between.
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
    /// It answers and is no member of any cluster either.
    Blank {
        /// The id that its data folder was made with: a lost disk's successor has another.
        node_uuid: [u8; 16],
    },
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
    /// What they said at the look before, which had ended when this one began; empty at the first.
    pub before: BTreeMap<String, Seen>,
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
    /// All are blank; the next look says whether they were so at one moment.
    AnotherLook,
    /// A single node was not allowed to found a cluster.
    SingleNotAllowed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(name) => write!(f, "{name} does not answer"),
            Self::Founder(name) => write!(f, "{name} has not formed the cluster yet"),
            Self::AnotherLook => f.write_str("all nodes are new, and are asked once more"),
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
            Seen::Silent | Seen::Blank { .. } => None,
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
        _ if blank_at_both_looks(situation) => Decision::Initialise,
        _ => Decision::WaitFor(vec![Reason::AnotherLook]),
    }
}

fn blank_at_both_looks(situation: &Situation) -> bool {
    others(situation).all(|(name, seen)| situation.before.get(name) == Some(&seen))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const X: [u8; 16] = [1; 16];
    const Y: [u8; 16] = [2; 16];
    const IN_X: Seen = Seen::Member { cluster_id: X };
    const IN_Y: Seen = Seen::Member { cluster_id: Y };
    const MEMBER: Own = Own::Member { cluster_id: X, removed: false };

    fn situation(name: &str, own: Own, expected: &[&str], peers: &[(&str, Seen)]) -> Situation {
        Situation {
            name: name.into(),
            own,
            expected: expected.iter().map(|name| (*name).to_owned()).collect(),
            peers: heard(peers),
            before: heard(peers),
            single_allowed: false,
        }
    }

    fn heard(peers: &[(&str, Seen)]) -> BTreeMap<String, Seen> {
        peers.iter().map(|(name, seen)| ((*name).to_owned(), *seen)).collect()
    }

    fn blank(disk: u8) -> Seen {
        Seen::Blank { node_uuid: [disk; 16] }
    }

    fn silent(names: &[&str]) -> Decision {
        Decision::WaitFor(names.iter().map(|name| Reason::Silent((*name).to_owned())).collect())
    }

    #[test]
    fn every_row_of_the_table() {
        const ABC: &[&str] = &["a", "b", "c"];
        let blank = blank(1);
        let founder = |name: &str| Decision::WaitFor(vec![Reason::Founder(name.into())]);
        let join = Decision::Join { cluster_id: X };
        let rows = [
            ("a", MEMBER, ABC, vec![], Decision::Resume),
            ("a", MEMBER, ABC, vec![("b", blank), ("c", blank)], Decision::Resume),
            ("a", MEMBER, ABC, vec![("b", IN_X), ("c", IN_Y)], Decision::Resume),
            ("a", MEMBER, ABC, vec![("c", IN_Y)], Decision::Resume),
            ("a", MEMBER, &[], vec![], Decision::Resume),
            ("a", Own::Blank, ABC, vec![("b", IN_X)], join.clone()),
            ("b", Own::Blank, ABC, vec![("a", blank), ("c", IN_X)], join.clone()),
            ("a", Own::Blank, ABC, vec![("z", IN_X)], join),
            ("a", Own::Blank, ABC, vec![("b", blank), ("c", blank)], Decision::Initialise),
            ("a", Own::Blank, ABC, vec![("b", blank), ("c", blank), ("z", blank)], Decision::Initialise),
            ("b", Own::Blank, ABC, vec![("a", blank), ("c", blank)], founder("a")),
            ("c", Own::Blank, ABC, vec![("a", blank), ("b", blank)], founder("a")),
            ("a", Own::Blank, ABC, vec![("b", blank)], silent(&["c"])),
            ("a", Own::Blank, ABC, vec![("b", Seen::Silent), ("c", blank)], silent(&["b"])),
            ("b", Own::Blank, ABC, vec![], silent(&["a", "c"])),
            ("a", Own::Blank, &["a"], vec![], Decision::WaitFor(vec![Reason::SingleNotAllowed])),
            ("a", Own::Blank, &[], vec![], Decision::WaitFor(vec![Reason::SingleNotAllowed])),
        ];
        for (name, own, expected, peers, decision) in rows {
            assert_eq!(
                decide(&situation(name, own, expected, &peers)),
                decision,
                "{name} {own:?} {expected:?} {peers:?}"
            );
        }
        let removed = Own::Member { cluster_id: X, removed: true };
        let refusals = [
            situation("a", removed, ABC, &[("b", IN_X)]),
            situation("a", MEMBER, ABC, &[("b", IN_Y), ("c", IN_Y)]),
            situation("a", Own::Blank, ABC, &[("b", IN_X), ("c", IN_Y)]),
            situation("d", Own::Blank, ABC, &[("a", blank), ("b", blank), ("c", blank)]),
        ];
        for refusal in refusals {
            assert!(matches!(decide(&refusal), Decision::Refuse(_)), "{refusal:?}");
        }
        for expected in [&[][..], &["a"][..]] {
            let single = Situation { single_allowed: true, ..situation("a", Own::Blank, expected, &[]) };
            assert_eq!(decide(&single), Decision::Initialise);
        }
    }

    #[test]
    fn a_cluster_is_founded_by_two_looks_at_the_same_blank_disks() {
        let once = |before: &[(&str, Seen)]| {
            let now = [("b", blank(2)), ("c", blank(3))];
            decide(&Situation { before: heard(before), ..situation("a", Own::Blank, &["a", "b", "c"], &now) })
        };
        let again = Decision::WaitFor(vec![Reason::AnotherLook]);
        assert_eq!(once(&[]), again);
        assert_eq!(once(&[("b", blank(2)), ("c", Seen::Silent)]), again);
        assert_eq!(once(&[("b", blank(2)), ("c", IN_X)]), again);
        assert_eq!(once(&[("b", blank(2)), ("c", blank(4))]), again, "another disk");
        assert_eq!(once(&[("b", blank(2)), ("c", blank(3))]), Decision::Initialise);
    }

    /// A cluster as the search sees it: disks, and what each node heard of the others in its last two looks (perhaps long
    /// ago, and each peer at another time).
    struct World {
        names: Vec<String>,
        /// Which disk it is, and the cluster that it belongs to.
        disks: Vec<(u8, Option<u8>)>,
        looks: Vec<Looks>,
        founded: u8,
        made_disks: u8,
        /// Clusters that all expected nodes have joined: only they may acknowledge a write.
        complete: BTreeSet<u8>,
    }

    #[derive(Default)]
    struct Looks {
        now: BTreeMap<String, Seen>,
        before: BTreeMap<String, Seen>,
    }

    impl World {
        fn new(nodes: usize, cluster: Option<u8>) -> Self {
            Self {
                names: (0..nodes).map(|node| format!("n{node}")).collect(),
                disks: (0_u8..).map(|disk| (disk, cluster)).take(nodes).collect(),
                looks: (0..nodes).map(|_| Looks::default()).collect(),
                founded: u8::from(cluster.is_some()),
                made_disks: nodes as u8,
                complete: BTreeSet::new(),
            }
        }

        fn hear(&mut self, node: usize, from: usize, answers: bool) {
            let seen = match self.disks[from] {
                _ if !answers => Seen::Silent,
                (disk, None) => blank(disk),
                (_, Some(cluster)) => Seen::Member { cluster_id: [cluster; 16] },
            };
            self.looks[node].now.insert(self.names[from].clone(), seen);
        }

        /// The look is over; what is heard from now on belongs to the next.
        fn look_again(&mut self, node: usize) {
            let looks = &mut self.looks[node];
            looks.before = std::mem::take(&mut looks.now);
        }

        /// Loses a disk, but never the last one of a cluster that may have acknowledged something.
        fn wipe(&mut self, node: usize) {
            let others = self.disks.iter().enumerate().any(|(other, (_, cluster))| other != node && cluster.is_some());
            if self.complete.is_empty() || others {
                self.disks[node] = (self.made_disks, None);
                self.made_disks = self.made_disks.checked_add(1).expect("fewer disks than steps");
                self.looks[node] = Looks::default(); // the process starts again
            }
        }

        fn decide(&mut self, node: usize) -> Decision {
            let own = self.disks[node]
                .1
                .map_or(Own::Blank, |cluster| Own::Member { cluster_id: [cluster; 16], removed: false });
            let decision = decide(&Situation {
                name: self.names[node].clone(),
                own,
                expected: self.names.iter().cloned().collect(),
                peers: self.looks[node].now.clone(),
                before: self.looks[node].before.clone(),
                single_allowed: false,
            });
            match &decision {
                Decision::Initialise => {
                    self.founded += 1;
                    self.disks[node].1 = Some(self.founded);
                }
                Decision::Join { cluster_id } => self.disks[node].1 = Some(cluster_id[0]),
                Decision::WaitFor(_) | Decision::Resume | Decision::Refuse(_) => {}
            }
            if let Some(first) = self.disks[0].1
                && self.disks.iter().all(|(_, cluster)| *cluster == Some(first))
            {
                self.complete.insert(first);
            }
            decision
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Hear { node: usize, from: usize, answers: bool },
        Decide(usize),
        LookAgain(usize),
        Wipe(usize),
    }

    impl World {
        fn step(&mut self, step: &Step) -> Option<Decision> {
            match *step {
                Step::Hear { node, from, answers } => self.hear(node, from, answers),
                Step::LookAgain(node) => self.look_again(node),
                Step::Wipe(node) => self.wipe(node),
                Step::Decide(node) => return Some(self.decide(node)),
            }
            None
        }
    }

    fn steps(nodes: usize, wipes: bool) -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0..nodes, 0..nodes, proptest::bool::weighted(0.8))
                .prop_map(|(node, from, answers)| Step::Hear { node, from, answers }),
            4 => (0..nodes).prop_map(Step::Decide),
            1 => (0..nodes).prop_map(Step::LookAgain),
            1 => (0..nodes).prop_map(move |node| if wipes { Step::Wipe(node) } else { Step::Decide(node) }),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn blank_disks_never_found_two_clusters((nodes, steps) in (2..6_usize).prop_flat_map(|n| (Just(n), steps(n, false)))) {
            let mut world = World::new(nodes, None);
            for step in steps {
                let decision = world.step(&step);
                prop_assert!(
                    decision != Some(Decision::Initialise) || matches!(step, Step::Decide(0)),
                    "only the first name founds"
                );
                prop_assert!(world.founded <= 1);
            }
        }

        #[test]
        fn lost_disks_short_of_all_never_make_a_second_cluster_complete(
            (nodes, steps) in (2..6_usize).prop_flat_map(|n| (Just(n), steps(n, true)))
        ) {
            let mut world = World::new(nodes, None);
            for step in steps {
                world.step(&step);
                prop_assert!(world.complete.len() <= 1, "two clusters: {:?}", world.complete);
            }
        }

        /// Any disk may be lost, one after the other, while at every moment one node has its own.
        #[test]
        fn while_one_node_has_its_disk_a_wiped_node_never_founds(
            (nodes, steps) in (2..6_usize).prop_flat_map(|n| (Just(n), steps(n, true)))
        ) {
            let mut world = World::new(nodes, Some(1));
            world.complete.insert(1);
            for step in steps {
                prop_assert!(world.step(&step) != Some(Decision::Initialise));
            }
        }
    }

    #[test]
    fn nodes_that_all_hear_each_other_form_one_cluster() {
        for nodes in 2..7 {
            let mut world = World::new(nodes, None);
            for _ in 0..4 {
                for node in 0..nodes {
                    for from in (0..nodes).filter(|from| *from != node) {
                        world.hear(node, from, true);
                    }
                    world.decide(node);
                    world.look_again(node);
                }
            }
            assert_eq!(world.complete.len(), 1, "{nodes} nodes");
        }
    }
}
