//! Whether an object is safe now: every replica reads it from its own disk, past its memory, and compares its digest.
//!
//! ```text
//!   Propose::verify ─┬─ this node, if it votes: lane.body_on_disk, one body after the other ─► BLAKE3 = digest?
//!                    └─ each other voter: VERIFY_STREAM{bodies, digest} ─► Working… Sound | Damaged | Absent
//! ```
//!
//! - V-1 *Sound* is said by a replica that has just read every byte from its own disk and found the digest of the whole. It
//!   asks no peer, and nothing that it has in memory counts.
//! - V-2 The verdict is `Quorum` if a majority of every set of voters says so: whatever minority is lost then, one is left.
//! - V-3 A body that is found damaged is repaired from a peer, as any other. It counts as damaged all the same: what was
//!   true when it was asked for is what is said.
//! - V-4 Who does not answer, or lags, is silent, and neither for nor against.
//!
//! A node reads for two askers at the same time, a body of at most 1 MiB at a time for each, and says that it goes on; who
//! says nothing for a while is silent. So neither size nor load ends in a time-out.

use crate::{
    node::{Node, Role},
    rpc::{VerifyCall, VerifyPart, method},
    types::{decode, encode},
};
use futures::{StreamExt, stream::FuturesUnordered};
use raft_lanes::{LaneError, Sabotage};
use raft_types::{BlockAddress, Class, GroupId, Message, StoredObject, Stream, Verdict, Verified};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Objects that are read from this disk at the same time; more wait.
pub(crate) const AT_ONCE: usize = 2;
/// How often a replica says that it goes on.
const WORKING_EVERY: Duration = Duration::from_secs(5);
/// A replica that says nothing for so long is silent.
const SILENT_AFTER: Duration = Duration::from_secs(20);

impl Node {
    /// What the replicas of `object` find on their disks.
    pub(crate) async fn verify_everywhere(&self, object: StoredObject) -> Verified {
        let StoredObject { group, bodies, digest } = object;
        let nobody = Verified { verdict: Verdict::Unknown, sound: 0, damaged: 0, silent: 0 };
        let Some(role) = self.group(group).map(|group| group.role()) else { return nobody };
        let call = VerifyCall { bodies: bodies.iter().map(|body| (body.index, body.length_bytes)).collect(), digest };
        let own = self.raft_id().map(|id| id.0);
        let call = &call;
        let asked = role.voters.iter().map(|(id, name)| async move {
            let part = if own == Some(*id) {
                self.verify_in_turn(group, call).await
            } else {
                self.ask_to_verify(name, group, call).await
            };
            (*id, part)
        });
        let mut answers: FuturesUnordered<_> = asked.collect();
        let mut found = BTreeMap::new();
        while verdict(&role, &found) == Verdict::Unknown
            && let Some((id, part)) = answers.next().await
        {
            found.insert(id, part);
        }
        let count = |wanted| u32::try_from(found.values().filter(|part| **part == wanted).count()).unwrap_or(u32::MAX);
        let (sound, damaged) = (count(VerifyPart::Sound), count(VerifyPart::Damaged));
        let voters = u32::try_from(role.voters.len()).unwrap_or(u32::MAX);
        Verified { verdict: verdict(&role, &found), sound, damaged, silent: voters - sound - damaged }
    }

    async fn ask_to_verify(&self, peer: &str, group: GroupId, call: &VerifyCall) -> VerifyPart {
        let first = Message { method: method::VERIFY_STREAM, group, head: encode(call), bodies: Vec::new() };
        let opened = tokio::time::timeout(SILENT_AFTER, self.wire.open(peer, Class::Read, first)).await;
        let Ok(Ok(mut stream)) = opened else { return VerifyPart::Absent };
        loop {
            // A peer of an older release closes at once.
            let Ok(Ok(Some(message))) = tokio::time::timeout(SILENT_AFTER, stream.receive()).await else {
                return VerifyPart::Absent;
            };
            match decode::<VerifyPart>("verify", &message.head) {
                Ok(VerifyPart::Working) => {}
                Ok(part) => return part,
                Err(error) => {
                    tracing::warn!(peer, %error, "an answer was not understood");
                    return VerifyPart::Absent;
                }
            }
        }
    }

    /// Verifies here what a peer asks for.
    pub(crate) async fn serve_verify(&self, from: String, first: Message, mut stream: Box<dyn Stream>) {
        let group = first.group;
        let call = match decode::<VerifyCall>("verify", &first.head) {
            Ok(call) => call,
            Err(error) => return tracing::warn!(from, %error, "a request was not understood"),
        };
        let message = |part: VerifyPart| Message {
            method: method::VERIFY_STREAM,
            group,
            head: encode(&part),
            bodies: Vec::new(),
        };
        let mut work = std::pin::pin!(self.verify_in_turn(group, &call));
        loop {
            // It goes on while this is said.
            let part = tokio::select! {
                biased;
                part = &mut work => part,
                () = tokio::time::sleep(WORKING_EVERY) => VerifyPart::Working,
            };
            // Who asked may know enough by now.
            if stream.send(message(part)).await.is_err() || part != VerifyPart::Working {
                return;
            }
        }
    }

    async fn verify_in_turn(&self, group: GroupId, call: &VerifyCall) -> VerifyPart {
        let Ok(_turn) = self.verifying.acquire().await else { return VerifyPart::Absent };
        let part = self.verify_here(group, call).await;
        let result = match part {
            VerifyPart::Sound => "sound",
            VerifyPart::Damaged => "damaged",
            VerifyPart::Absent | VerifyPart::Working => "absent",
        };
        self.metrics.verified.with_label_values(&[result]).inc();
        part
    }

    /// Reads the bodies from this disk (V-1).
    async fn verify_here(&self, group: GroupId, call: &VerifyCall) -> VerifyPart {
        if self.options.has(Sabotage::VerifiedUnread) {
            return VerifyPart::Sound;
        }
        let mut hasher = blake3::Hasher::new();
        // All of them: one that is damaged is repaired, and so is the next.
        let mut worst = VerifyPart::Sound;
        for (index, length_bytes) in call.bodies.iter().copied().filter(|(_, length_bytes)| *length_bytes > 0) {
            let lane = self.lane.clone();
            let read = move || {
                let read = lane.body_on_disk(group, index);
                if let Ok(body) = &read {
                    hasher.update(body);
                }
                (hasher, read.map(|body| body.len()))
            };
            let Ok((after, read)) = self.options.blocking().run(read).await else { return VerifyPart::Absent };
            hasher = after;
            match read {
                Ok(bytes) if bytes == length_bytes as usize => {}
                // An entry of another term, which is not committed: the right one comes.
                Ok(_)
                | Err(
                    LaneError::Absent { .. }
                    | LaneError::Elided { .. }
                    | LaneError::OtherTerm { .. }
                    | LaneError::Gap { .. }
                    | LaneError::OutOfRange { .. }
                    | LaneError::Stopped,
                ) => {
                    if worst == VerifyPart::Sound {
                        worst = VerifyPart::Absent;
                    }
                }
                Err(LaneError::Damaged(why) | LaneError::Io(why) | LaneError::Failed(why)) => {
                    let address = BlockAddress { group, index };
                    tracing::error!(block = %address, why, "a body here is damaged");
                    self.note_damaged(address);
                    worst = VerifyPart::Damaged;
                }
            }
        }
        if worst == VerifyPart::Sound && *hasher.finalize().as_bytes() != call.digest {
            // Every checksum holds, and the whole is not what was stored: no peer's copy would be better.
            tracing::error!(%group, first = ?call.bodies.first(), "an object here has another digest than its row says");
            return VerifyPart::Damaged;
        }
        worst
    }
}

/// What follows from the answers so far (V-2).
fn verdict(role: &Role, found: &BTreeMap<u64, VerifyPart>) -> Verdict {
    let said = |wanted: VerifyPart| -> BTreeSet<u64> {
        found.iter().filter(|(_, part)| **part == wanted).map(|(id, _)| *id).collect()
    };
    let (sound, damaged) = (said(VerifyPart::Sound), said(VerifyPart::Damaged));
    let majority = |config: &BTreeSet<u64>| config.intersection(&sound).count() > config.len() / 2;
    // So many are damaged that the rest is no majority.
    let hopeless = |config: &BTreeSet<u64>| config.len() - config.intersection(&damaged).count() <= config.len() / 2;
    if role.configs.is_empty() {
        Verdict::Unknown
    } else if role.configs.iter().all(majority) {
        Verdict::Quorum
    } else if role.configs.iter().any(hopeless) {
        Verdict::Damaged
    } else {
        Verdict::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_a_majority_of_every_set_of_voters() {
        use VerifyPart::{Absent, Damaged, Sound};
        let of = |configs: &[&[u64]], found: &[(u64, VerifyPart)]| {
            let configs = configs.iter().map(|ids| ids.iter().copied().collect()).collect();
            let (voters, learners) = (BTreeMap::new(), Vec::new());
            let role = Role { term: 1, leads: false, leader: None, voters, learners, configs, quorum_age: None };
            verdict(&role, &found.iter().copied().collect())
        };
        assert_eq!(of(&[&[1]], &[(1, Sound)]), Verdict::Quorum);
        assert_eq!(of(&[&[1]], &[(1, Damaged)]), Verdict::Damaged);
        let three: &[&[u64]] = &[&[1, 2, 3]];
        assert_eq!(of(three, &[(1, Sound)]), Verdict::Unknown);
        assert_eq!(of(three, &[(1, Sound), (2, Damaged), (3, Absent)]), Verdict::Unknown);
        assert_eq!(of(three, &[(1, Sound), (2, Damaged), (3, Sound)]), Verdict::Quorum);
        assert_eq!(of(three, &[(1, Sound), (2, Damaged), (3, Damaged)]), Verdict::Damaged);
        assert_eq!(of(&[&[1, 2]], &[(1, Sound), (2, Damaged)]), Verdict::Damaged);
        // While the membership changes.
        let both: &[&[u64]] = &[&[1, 2, 3], &[3, 4, 5]];
        assert_eq!(of(both, &[(1, Sound), (2, Sound), (3, Sound)]), Verdict::Unknown);
        assert_eq!(of(both, &[(1, Sound), (3, Sound), (4, Sound)]), Verdict::Quorum);
        assert_eq!(of(&[], &[(1, Sound)]), Verdict::Unknown);
    }
}
