//! Runs of the simulation: `make sim SEED=7` repeats one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use triptych_sim::world::{Run, play};

fn simulate(run: Run) -> Result<usize, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(play(run))
}

fn seeds(from: u64, to: u64) {
    let mut acknowledged = 0;
    for seed in from..to {
        match simulate(Run { seed, faults: 6, disks_lie: false }) {
            Ok(count) => acknowledged += count,
            Err(broken) => panic!("seed {seed}: {broken}"),
        }
    }
    println!("{} seeds, {acknowledged} acknowledged writes, 0 lost, 0 phantom", to - from);
    assert!(acknowledged > (to - from) as usize * 20, "the workload hardly got through: {acknowledged}");
}

#[test]
fn nothing_acknowledged_is_lost_in_the_first_half_of_the_seeds() {
    seeds(0, 20);
}

#[test]
fn nothing_acknowledged_is_lost_in_the_second_half_of_the_seeds() {
    seeds(20, 40);
}

#[test]
fn a_disk_that_lies_about_its_syncs_is_found_out() {
    // The sabotage: every node believes its disk. Some seed must show a broken promise, or a log that does not open.
    let caught = (0..20).find_map(|seed| simulate(Run { seed, faults: 6, disks_lie: true }).err());
    let caught = caught.expect("none of 20 seeds noticed that nothing was durable");
    println!("caught: {}", caught.lines().next().unwrap_or_default());
}

#[test]
#[ignore = "one seed of choice: make sim SEED=…"]
fn one_seed() {
    let seed = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    match simulate(Run { seed, faults: 12, disks_lie: false }) {
        Ok(count) => println!("seed {seed}: {count} acknowledged writes, all there"),
        Err(broken) => panic!("{broken}"),
    }
}
