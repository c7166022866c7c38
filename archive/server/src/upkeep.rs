//! `triptych scrub` and `triptych compact`: the care of one node's disk, ordered now.

use crate::{Failure, cluster};
use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use raft_types::UpkeepStatus;
use std::{process::ExitCode, time::Duration};

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Flags of `scrub` and `compact`.
#[derive(Debug, Clone, Args)]
pub(crate) struct UpkeepFlags {
    /// Wait until it has ended, with a progress bar. The exit code says whether anything is damaged then.
    #[arg(long)]
    wait: bool,
    /// Print JSON: stable names for scripts.
    #[arg(long)]
    json: bool,
    /// Address of the node.
    #[arg(long, env = "TRIPTYCH_URL", default_value = "http://127.0.0.1:8080")]
    http: String,
}

pub(crate) fn scrub(flags: UpkeepFlags) -> Result<ExitCode, Failure> {
    run(
        "scrub",
        flags,
        |status| status.scrub_orders_done,
        |before, after| {
            let found = after.damaged_found.saturating_sub(before.damaged_found);
            let mended = after.damaged_repaired.saturating_sub(before.damaged_repaired);
            match (found, after.damaged_left) {
                (0, 0) => "everything is as it was written".into(),
                (_, 0) => format!("{found} damaged places were found, and {mended} mended"),
                (_, left) => {
                    format!("{found} damaged places were found, {mended} mended; {left} can be had from nobody now")
                }
            }
        },
    )
}

pub(crate) fn compact(flags: UpkeepFlags) -> Result<ExitCode, Failure> {
    run(
        "compact",
        flags,
        |status| status.compact_orders_done,
        |before, after| {
            let bytes = after.reclaimed_bytes.saturating_sub(before.reclaimed_bytes);
            let segments = after.segments_rewritten.saturating_sub(before.segments_rewritten);
            format!("{} were given back by {segments} segments", HumanBytes(bytes))
        },
    )
}

fn run(
    what: &str,
    flags: UpkeepFlags,
    done: fn(&UpkeepStatus) -> u64,
    say: fn(&UpkeepStatus, &UpkeepStatus) -> String,
) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let before = cluster::fetch(&flags.http).await?.upkeep;
        let order = order(&flags.http, what).await?;
        if !flags.wait {
            match flags.json {
                true => println!("{}", serde_json::json!({ "order": order })),
                false => println!("{what} is ordered; `triptych cluster status` says how far it is"),
            }
            return Ok(ExitCode::SUCCESS);
        }
        let after = watch(what, &flags.http, order, done).await?;
        match flags.json {
            true => println!("{}", serde_json::to_string_pretty(&after)?),
            false => println!("{}", say(&before, &after)),
        }
        Ok(if after.damaged_left == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
    })
}

async fn order(http: &str, what: &str) -> Result<u64, Failure> {
    let url = format!("{}/api/{what}", http.trim_end_matches('/'));
    let client = reqwest::Client::builder().timeout(Duration::from_secs(15)).build()?;
    // JSON, so that no page of another site can make a browser send this.
    let answer = client.post(&url).json(&serde_json::json!({})).send().await.map_err(|error| {
        let error = error.without_url();
        format!("no node answers at {url} ({error}): name one that is up with --http URL")
    })?;
    let answer: serde_json::Value = answer.error_for_status()?.json().await?;
    answer["order"].as_u64().ok_or_else(|| format!("{url} gave no order: is the node of another release?").into())
}

/// Shows how far it is, until the order is done.
async fn watch(what: &str, http: &str, order: u64, done: fn(&UpkeepStatus) -> u64) -> Result<UpkeepStatus, Failure> {
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")?;
    bar.set_style(style.progress_chars("=> "));
    bar.set_message(what.to_owned());
    loop {
        let status = cluster::fetch(http).await?.upkeep;
        if done(&status) >= order {
            bar.finish_and_clear();
            return Ok(status);
        }
        bar.set_length(status.scrub_total_bytes);
        bar.set_position(status.scrub_done_bytes);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
