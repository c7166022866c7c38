//! Runs of the simulation: `make sim SEED=7` repeats one, step by step, `make sim SEEDS=0..500` plays many;
//! `SIM_LOG=raft_groups=debug` shows what the nodes say.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use raft_groups::testing::run_seeded;
use triptych_sim::{
    plan::{Family, Run},
    world::{Played, play},
};

/// Faults of one run.
const FAULTS: usize = 8;

fn simulate(run: Run) -> Result<Played, String> {
    run_seeded(run.seed, play(run))
}

fn seeds(from: u64, to: u64) -> usize {
    seeds_of(None, from, to)
}

fn seeds_of(favour: Option<Family>, from: u64, to: u64) -> usize {
    let (mut acknowledged, mut broken) = (0, Vec::new());
    for seed in from..to {
        match simulate(Run { favour, ..Run::new(seed, FAULTS) }) {
            Ok(played) => acknowledged += played.acknowledged(),
            Err(why) => {
                println!("seed {seed}: {why}");
                broken.push(seed);
            }
        }
    }
    assert!(broken.is_empty(), "of seeds {from}..{to}, these broke a promise: {broken:?}");
    println!("seeds {from}..{to}: {acknowledged} acknowledged writes, 0 lost, 0 phantom");
    assert!(acknowledged > (to - from) as usize * 20, "the workload hardly got through: {acknowledged}");
    acknowledged
}

/// Seeds of one test: few enough for several tests to share the processors.
const PORTION: u64 = 25;

/// One test for each portion, so that they run beside each other, and each in a process of its own.
macro_rules! portions {
    ($($name:ident: $portion:literal),+ $(,)?) => {
        mod nothing_acknowledged_is_lost {
            $(
                #[test]
                fn $name() {
                    super::seeds($portion * super::PORTION, ($portion + 1) * super::PORTION);
                }
            )+
        }
    };
}

portions! {
    in_seeds_0_to_24: 0,
    in_seeds_25_to_49: 1,
    in_seeds_50_to_74: 2,
    in_seeds_75_to_99: 3,
    in_seeds_100_to_124: 4,
    in_seeds_125_to_149: 5,
    in_seeds_150_to_174: 6,
    in_seeds_175_to_199: 7,
    in_seeds_200_to_224: 8,
    in_seeds_225_to_249: 9,
    in_seeds_250_to_274: 10,
    in_seeds_275_to_299: 11,
}

#[test]
fn nothing_acknowledged_is_lost_while_a_fourth_node_comes_and_goes() {
    seeds_of(Some(Family::Guest), 1_000, 1_010);
}

#[test]
fn a_seed_repeats_its_run() {
    for (seed, favour) in [(7, None), (8, Some(Family::Restart)), (9, Some(Family::Lose)), (10, Some(Family::Guest))] {
        let run = Run { favour, ..Run::new(seed, FAULTS) };
        let (once, again) = (simulate(run).unwrap(), simulate(run).unwrap());
        let differ = once.history.iter().zip(&again.history).position(|(one, other)| one != other);
        assert_eq!(differ.map(|at| (&once.history[at], &again.history[at])), None, "seed {seed}");
        assert_eq!((once.history.len(), once.drawn), (again.history.len(), again.drawn), "seed {seed}");
    }
}

#[test]
#[ignore = "seeds of choice: make sim SEED=… or make sim SEEDS=from..to"]
fn chosen_seeds() {
    if let Ok(filter) = std::env::var("SIM_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let chosen = std::env::var("SIM_SEEDS").unwrap_or_else(|_| "1".into());
    let number = |text: &str| text.parse::<u64>().expect("SEED is a number, SEEDS are two: from..to");
    // SIM_GUEST=1: the runs in which nodes come and go.
    let favour = std::env::var_os("SIM_GUEST").map(|_| Family::Guest);
    match chosen.split_once("..") {
        Some((from, to)) => seeds_of(favour, number(from), number(to)),
        None => seeds_of(favour, number(&chosen), number(&chosen) + 1),
    };
}
