//! The harness is worth something only if it sees bugs: each of these is planted, and must break an invariant.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use raft_groups::testing::run_seeded;
use raft_lanes::Sabotage;
use std::panic::{AssertUnwindSafe, catch_unwind};
use triptych_sim::{
    plan::{Family, Run},
    world::play,
};

/// Seeds within which a bug must show.
const SEEDS: u64 = 40;
/// Within how many the one does that shows only when a crash falls between an fsync and the next, while a queue waits: one run
/// in some fifty, since a dead peer no longer keeps its node busy.
const SEEDS_OF_THE_RAREST: u64 = 600;
/// Faults of one run.
const FAULTS: usize = 6;

/// Each bug, and the family of faults that it hides from least.
const MUTANTS: [(Option<Sabotage>, Option<Family>); 13] = [
    (None, Some(Family::KillAll)), // every disk lies about its syncs
    (Some(Sabotage::AnswerBeforeFsync), Some(Family::KillAll)),
    (Some(Sabotage::FsyncErrorIgnored), Some(Family::SyncFails)),
    (Some(Sabotage::CallbacksOutOfOrder), Some(Family::Restart)),
    (Some(Sabotage::TruncateAtFirstBadBatch), Some(Family::Rot)),
    (Some(Sabotage::VoteWithoutBarrier), Some(Family::Restart)),
    (Some(Sabotage::ApplyBeforeDurable), Some(Family::Restart)),
    (Some(Sabotage::ReadIndexAtOnce), Some(Family::SlowDisk)),
    (Some(Sabotage::LeaderRestored), Some(Family::Restart)),
    (Some(Sabotage::VoterBeforeComplete), Some(Family::Lose)),
    (Some(Sabotage::VoterBeforeComplete), Some(Family::Guest)),
    (Some(Sabotage::WipedMemberGoesOn), Some(Family::Lose)),
    (Some(Sabotage::PurgeBeforeSettled), Some(Family::KillAll)),
];

fn broken(run: Run) -> Option<String> {
    let played = catch_unwind(AssertUnwindSafe(|| run_seeded(run.seed, play(run))));
    match played {
        Ok(Ok(_)) => None,
        Ok(Err(broken)) => Some(broken.lines().next().unwrap_or_default().to_owned()),
        Err(_) => Some("a node panicked".to_owned()),
    }
}

fn seeds_of(sabotage: Option<Sabotage>) -> u64 {
    if sabotage == Some(Sabotage::CallbacksOutOfOrder) { SEEDS_OF_THE_RAREST } else { SEEDS }
}

/// The first seed that shows the bug, and how. The same run without the bug must hold, or it shows something else.
fn catch(sabotage: Option<Sabotage>, favour: Option<Family>) -> Option<(u64, String)> {
    (0..seeds_of(sabotage)).find_map(|seed| {
        let sound = Run { favour, ..Run::new(seed, FAULTS) };
        let how = broken(Run { sabotage, disks_lie: sabotage.is_none(), ..sound })?;
        match broken(sound) {
            None => Some((seed, how)),
            Some(why) => panic!("seed {seed} is broken without any bug on purpose: {why}"),
        }
    })
}

#[test]
fn planted_bugs_are_caught() {
    let only = std::env::var("SIM_MUTANT").ok();
    let chosen = |sabotage: &Option<Sabotage>| only.as_ref().is_none_or(|only| format!("{sabotage:?}").contains(only));
    let caught: Vec<(String, Option<(u64, String)>)> = std::thread::scope(|scope| {
        let hunts: Vec<_> = MUTANTS
            .into_iter()
            .filter(|(sabotage, _)| chosen(sabotage))
            .map(|(sabotage, favour)| {
                let name = sabotage.map_or_else(|| "DisksLie".to_owned(), |sabotage| format!("{sabotage:?}"));
                (name, scope.spawn(move || catch(sabotage, favour)))
            })
            .collect();
        hunts.into_iter().map(|(name, hunt)| (name, hunt.join().expect("a hunt ends by itself"))).collect()
    });
    for (name, found) in &caught {
        match found {
            Some((seed, how)) => println!("caught {name} by seed {seed}: {how}"),
            None => println!("NOT caught {name}"),
        }
    }
    let count = caught.iter().filter(|(_, found)| found.is_some()).count();
    println!("caught {count} of {}", caught.len());
    assert_eq!(count, caught.len(), "a planted bug was not caught: the harness is too weak, or it is no bug");
}
