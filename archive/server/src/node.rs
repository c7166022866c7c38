//! `triptych node …`: what an operator orders for a node.

use crate::{Failure, cluster};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use raft_types::ClusterStatus;
use std::{process::ExitCode, time::Duration};

#[derive(Subcommand)]
pub(crate) enum NodeVerb {
    /// Give a lost node up. The next start under its name with an empty data folder takes its place, and is mirrored from
    /// the others. If its own disk comes back first, nothing has happened.
    Replace {
        /// Name of the lost node, as in `--peers`.
        name: String,
        /// Wait, with a progress bar, until the new disk holds everything.
        #[arg(long)]
        wait: bool,
        /// Address of any node that is up.
        #[arg(long, env = "TRIPTYCH_URL", default_value = "http://127.0.0.1:8080")]
        http: String,
    },
}

pub(crate) fn run(verb: NodeVerb) -> Result<ExitCode, Failure> {
    let NodeVerb::Replace { name, wait, http } = verb;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let before = cluster::fetch(&http).await?;
        order(&http, &name).await?;
        println!("{name} is given up: start it with an empty data folder, and it is mirrored from the other nodes");
        if wait { watch(&http, &name, &before).await } else { Ok(ExitCode::SUCCESS) }
    })
}

async fn order(http: &str, name: &str) -> Result<(), Failure> {
    let url = format!("{}/api/nodes/{name}/replace", http.trim_end_matches('/'));
    let client = reqwest::Client::builder().timeout(Duration::from_secs(15)).build()?;
    // JSON, so that no page of another site can make a browser send this.
    let answer = client.post(&url).json(&serde_json::json!({})).send().await.map_err(|error| {
        let error = error.without_url();
        format!("no node answers at {url} ({error}): name one that is up with --http URL")
    })?;
    if answer.status().is_success() {
        return Ok(());
    }
    let (status, why) = (answer.status(), answer.text().await.unwrap_or_default());
    Err(format!("{status}: {}", why.trim()).into())
}

/// Shows how far the new disk is, until it is a voter everywhere and misses nothing.
async fn watch(http: &str, name: &str, before: &ClusterStatus) -> Result<ExitCode, Failure> {
    let old = before.nodes.iter().find(|node| node.name == name).and_then(|node| node.id);
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")?;
    bar.set_style(style.progress_chars("=> "));
    loop {
        let status = cluster::fetch(http).await?;
        let node = status.nodes.iter().find(|node| node.name == name);
        let id = node.and_then(|node| node.id).filter(|id| Some(*id) != old);
        let missing = node.and_then(|node| node.missing_bytes).unwrap_or(0);
        let voter_in = status.groups.iter().filter(|group| id.is_some_and(|id| group.voter_ids.contains(&id))).count();
        if missing > bar.length().unwrap_or(0) {
            bar.set_length(missing);
        }
        bar.set_position(bar.length().unwrap_or(0).saturating_sub(missing));
        bar.set_message(match id {
            None => format!("{name}: waiting for its start with an empty disk"),
            Some(_) => format!("{name}: a full copy of {voter_in} of {} groups", status.groups.len()),
        });
        if voter_in == status.groups.len() && missing == 0 {
            bar.finish_and_clear();
            println!("{name} holds everything: the cluster survives {}", cluster::failures(status.survives_failures));
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
