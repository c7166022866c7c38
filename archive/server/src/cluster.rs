//! `triptych cluster …`: what a node says about its cluster, for people or for scripts.

use crate::Failure;
use clap::Subcommand;
use raft_types::{ClusterStatus, NodeHealth, NodeState, NodeStatus, UpkeepStatus};
use std::{fmt::Write, process::ExitCode, time::Duration};

#[derive(Subcommand)]
pub(crate) enum ClusterVerb {
    /// Nodes, groups, leaders, lag, and how many more failures the cluster survives. Any node answers.
    Status {
        /// Print JSON: stable names for scripts.
        #[arg(long)]
        json: bool,
        /// Address of any node.
        #[arg(long, env = "TRIPTYCH_URL", default_value = "http://127.0.0.1:8080")]
        http: String,
    },
}

pub(crate) fn run(verb: ClusterVerb) -> Result<ExitCode, Failure> {
    match verb {
        ClusterVerb::Status { json, http } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let status = runtime.block_on(fetch(&http))?;
            if json {
                println!("{}", serde_json::to_string_pretty(&status)?);
            } else {
                print!("{}", describe(&status));
            }
            Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
    }
}

pub(crate) async fn fetch(http: &str) -> Result<ClusterStatus, Failure> {
    let url = format!("{}/api/cluster", http.trim_end_matches('/'));
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
    let answer = client.get(&url).send().await.map_err(|error| {
        let error = error.without_url();
        format!("no node answers at {url} ({error}): start one with `triptych serve`, or name another with --http URL")
    })?;
    let answer = answer.error_for_status()?;
    Ok(answer.json().await?)
}

/// The status as a person reads it.
fn describe(status: &ClusterStatus) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |args: std::fmt::Arguments<'_>| _ = writeln!(text, "{args}");
    line(format_args!("cluster   {}", status.cluster_id.as_deref().unwrap_or("not formed yet")));
    line(format_args!("state     {}, as {} sees it", status.phase, status.answered_by));
    let led = status.groups.iter().filter(|group| group.leader.is_some()).count();
    line(format_args!(
        "groups    {led} of {} have a leader; {} copies of every image",
        status.groups.len(),
        status.replication_factor
    ));
    line(format_args!("survives  {}", failures(status.survives_failures)));
    line(format_args!(""));
    line(format_args!(
        "{:<12} {:>6} {:<22} {:<26} {:>6} {:>6} {:>8} {:>13}",
        "NODE", "ID", "ADDRESS", "STATE", "COPIES", "LEADS", "LAG", "LAST CONTACT"
    ));
    for node in &status.nodes {
        let id = node.id.map_or_else(|| "-".into(), |id| id.to_string());
        let state = state(node);
        let contact = node.last_contact_ms.map_or_else(|| "-".into(), |ms| format!("{ms} ms"));
        line(format_args!(
            "{:<12} {id:>6} {:<22} {state:<26} {:>6} {:>6} {:>8} {contact:>13}",
            node.name, node.peer_address, node.copies, node.leads, node.lag_entries
        ));
    }
    for node in &status.nodes {
        if let Some(bytes) = node.missing_bytes {
            line(format_args!(""));
            let left = indicatif::HumanBytes(bytes);
            line(format_args!(
                "mirroring: {} pulls {left} more from its peers; until then it counts as no copy",
                node.name
            ));
        }
    }
    let upkeep = &status.upkeep;
    if upkeep.damaged_left > 0 {
        line(format_args!(""));
        line(format_args!(
            "DAMAGED: {} places on the disk of {} could not be mended: see its log, and replace the disk",
            upkeep.damaged_left, status.answered_by
        ));
    }
    line(format_args!(""));
    line(format_args!("disk      {}", describe_upkeep(upkeep)));
    if status.moving_groups > 0 {
        line(format_args!(""));
        line(format_args!("moving: copies of {} groups are on their way to other nodes", status.moving_groups));
    }
    let leaderless: Vec<_> =
        status.groups.iter().filter(|group| group.leader.is_none()).map(|g| g.id.to_string()).collect();
    if !leaderless.is_empty() {
        line(format_args!(""));
        line(format_args!(
            "no leader: {} — writes to these groups wait until a majority of their nodes is up",
            leaderless.join(" ")
        ));
    }
    text
}

/// Scrub and compaction in a line.
fn describe_upkeep(upkeep: &UpkeepStatus) -> String {
    let scrub = match upkeep {
        UpkeepStatus { scrub_running: true, scrub_done_bytes, scrub_total_bytes, .. } => {
            format!("scrub at {} %", scrub_done_bytes * 100 / (*scrub_total_bytes).max(1))
        }
        UpkeepStatus { scrub_last_full_ms: None, .. } => "not scrubbed yet".into(),
        UpkeepStatus { scrub_last_full_ms: Some(at), .. } => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let age = now.saturating_sub(Duration::from_millis(*at));
            format!("scrubbed {} ago", indicatif::HumanDuration(age))
        }
    };
    format!(
        "{scrub}; damaged {} and mended {}; about {} of {} dead",
        upkeep.damaged_found,
        upkeep.damaged_repaired,
        indicatif::HumanBytes(upkeep.dead_bytes),
        indicatif::HumanBytes(upkeep.disk_bytes)
    )
}

/// Whether a node answers, and what the cluster has decided about it.
pub(crate) fn state(node: &NodeStatus) -> String {
    let mut text = match node.health {
        NodeHealth::Up => "up",
        NodeHealth::Down => "DOWN",
        NodeHealth::Unknown => "unknown",
    }
    .to_owned();
    match node.state {
        NodeState::Member => {}
        NodeState::Joining => text.push_str(", joining"),
        NodeState::Draining => text.push_str(", draining"),
        NodeState::Drained => text.push_str(", drained"),
        NodeState::Condemned => text.push_str(", given up"),
    }
    if let Some(bytes) = node.missing_bytes {
        // Writing to a String cannot fail.
        _ = write!(text, ", syncing {}", indicatif::HumanBytes(bytes));
    }
    text
}

pub(crate) fn failures(survives: u32) -> String {
    match survives {
        0 => "no further failure: bring the missing nodes back".into(),
        1 => "1 more failure".into(),
        more => format!("{more} more failures"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaderless_group_is_named_with_what_it_means() {
        let group = raft_types::GroupStatus {
            id: raft_types::GroupId(7),
            leader: None,
            term: 3,
            voters: vec!["n1".into()],
            voter_ids: Vec::new(),
            learners: Vec::new(),
            last: None,
            committed: None,
            applied: None,
            purged: None,
        };
        let status = ClusterStatus { groups: vec![group], ..ClusterStatus::default() };
        let text = describe(&status);
        assert!(text.contains("no leader: g7"), "{text}");
        assert!(text.contains("not formed yet"), "{text}");
    }
}
