//! `triptych node …`: what an operator orders for a node.

use crate::{Failure, cluster};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use raft_types::{ClusterStatus, NodeState, NodeStatus};
use serde_json::{Value, json};
use std::{process::ExitCode, time::Duration};

/// Between two looks while an order is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Subcommand)]
pub(crate) enum NodeVerb {
    /// List the nodes: state, copies, groups they lead.
    ///
    /// To add a node, start it with an empty data folder, a name of its own, and a list of peers that names itself and at
    /// least one member: `triptych serve --data DIR --name n4 --peers n1=HOST:PORT,n4=HOST:PORT`. It joins, and gets its
    /// share of the copies.
    List {
        #[command(flatten)]
        asked: Asked,
    },
    /// Give a lost node up. The next start under its name with an empty data folder takes its place, and is mirrored from
    /// the others. If its own disk comes back first, nothing has happened.
    Replace {
        /// Name of the lost node, as in `--peers`.
        name: String,
        /// Wait, with a progress bar, until the new disk holds everything.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        asked: Asked,
    },
    /// Move a node's copies to the others, its leaderships first. It goes on serving all the while. A dead node can be
    /// drained, too: its copies are made anew from the others.
    Drain {
        /// Name of the node.
        name: String,
        /// With too few other nodes: keep fewer copies of every image from now on.
        #[arg(long)]
        reduce: bool,
        /// Wait, with a progress bar, until it keeps nothing any more.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        asked: Asked,
    },
    /// Let a node stay that was to be drained: it gets its share of the copies again.
    Undrain {
        /// Name of the node.
        name: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Remove a drained node for good: its process ends, and its data folder is not needed any more. A node of the same
    /// name may join later with an empty folder.
    Remove {
        /// Name of the node.
        name: String,
        #[command(flatten)]
        asked: Asked,
    },
}

/// Whom to ask, and how to answer.
#[derive(Args)]
pub(crate) struct Asked {
    /// Print JSON: stable names for scripts.
    #[arg(long)]
    json: bool,
    /// Address of any node that is up.
    #[arg(long, env = "TRIPTYCH_URL", default_value = "http://127.0.0.1:8080")]
    http: String,
}

pub(crate) fn run(verb: NodeVerb) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(carry_out(verb))
}

async fn carry_out(verb: NodeVerb) -> Result<ExitCode, Failure> {
    match verb {
        NodeVerb::List { asked } => list(&asked).await,
        NodeVerb::Replace { name, wait, asked } => {
            let before = cluster::fetch(&asked.http).await?;
            order(&asked.http, &name, "replace", json!({})).await?;
            if !asked.json {
                println!(
                    "{name} is given up: start it with an empty data folder, and it is mirrored from the other nodes"
                );
            }
            if wait { watch_replace(&asked, &name, &before).await } else { say(&asked, &name, "condemned") }
        }
        NodeVerb::Drain { name, reduce, wait, asked } => {
            order(&asked.http, &name, "drain", json!({ "reduce": reduce })).await?;
            if !asked.json {
                println!("{name} is drained: its leaderships and copies move to the other nodes");
            }
            if wait { watch_drain(&asked, &name).await } else { say(&asked, &name, "draining") }
        }
        NodeVerb::Undrain { name, asked } => {
            order(&asked.http, &name, "undrain", json!({})).await?;
            if !asked.json {
                println!("{name} stays: it gets its share of the copies again");
            }
            say(&asked, &name, "member")
        }
        NodeVerb::Remove { name, asked } => {
            order(&asked.http, &name, "remove", json!({})).await?;
            if !asked.json {
                println!("{name} is removed: its process ends, and its data folder is not needed any more");
            }
            say(&asked, &name, "removed")
        }
    }
}

/// For scripts: the node and its state.
fn say(asked: &Asked, name: &str, state: &str) -> Result<ExitCode, Failure> {
    if asked.json {
        println!("{}", json!({ "node": name, "state": state }));
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(asked: &Asked) -> Result<ExitCode, Failure> {
    let status = cluster::fetch(&asked.http).await?;
    if asked.json {
        println!("{}", serde_json::to_string_pretty(&status.nodes)?);
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", describe(&status.nodes));
    Ok(ExitCode::SUCCESS)
}

fn describe(nodes: &[NodeStatus]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |args: std::fmt::Arguments<'_>| _ = writeln!(text, "{args}");
    line(format_args!("{:<12} {:>6} {:<22} {:<26} {:>6} {:>6}", "NODE", "ID", "ADDRESS", "STATE", "COPIES", "LEADS"));
    for node in nodes {
        let id = node.id.map_or_else(|| "-".into(), |id| id.to_string());
        let copies = match (node.copies, node.copies_wanted) {
            (copies, wanted) if copies == wanted => copies.to_string(),
            (copies, wanted) => format!("{copies}→{wanted}"),
        };
        line(format_args!(
            "{:<12} {id:>6} {:<22} {:<26} {copies:>6} {:>6}",
            node.name,
            node.peer_address,
            cluster::state(node),
            node.leads
        ));
    }
    text
}

async fn order(http: &str, name: &str, what: &str, body: Value) -> Result<(), Failure> {
    let url = format!("{}/api/nodes/{name}/{what}", http.trim_end_matches('/'));
    let client = reqwest::Client::builder().timeout(Duration::from_secs(15)).build()?;
    // JSON, so that no page of another site can make a browser send this.
    let answer = client.post(&url).json(&body).send().await.map_err(|error| {
        let error = error.without_url();
        format!("no node answers at {url} ({error}): name one that is up with --http URL")
    })?;
    if answer.status().is_success() {
        return Ok(());
    }
    let (status, why) = (answer.status(), answer.text().await.unwrap_or_default());
    Err(format!("{status}: {}", why.trim()).into())
}

fn bar(asked: &Asked, template: &str) -> Result<ProgressBar, Failure> {
    let bar = if asked.json { ProgressBar::hidden() } else { ProgressBar::no_length() };
    bar.set_style(ProgressStyle::with_template(template)?.progress_chars("=> "));
    Ok(bar)
}

/// Shows how many copies a node still keeps, until it keeps none.
async fn watch_drain(asked: &Asked, name: &str) -> Result<ExitCode, Failure> {
    let bar = bar(asked, "{msg} [{bar:30}] {pos}/{len} {eta}")?;
    loop {
        let status = cluster::fetch(&asked.http).await?;
        let Some(node) = status.nodes.iter().find(|node| node.name == name) else {
            bar.finish_and_clear();
            return Err(format!("{name} is no member any more").into());
        };
        let left = u64::from(node.copies.max(node.copies_wanted));
        if left > bar.length().unwrap_or(0) {
            bar.set_length(left);
        }
        bar.set_position(bar.length().unwrap_or(0).saturating_sub(left));
        bar.set_message(format!("{name}: {left} copies are still to go"));
        match node.state {
            NodeState::Drained => {
                bar.finish_and_clear();
                if !asked.json {
                    println!(
                        "{name} keeps nothing any more: `triptych node remove {name}` takes it out of the cluster"
                    );
                }
                return say(asked, name, "drained");
            }
            NodeState::Draining => {}
            NodeState::Member | NodeState::Joining | NodeState::Condemned => {
                bar.finish_and_clear();
                return Err(format!("{name} is not drained any more: somebody has taken the order back").into());
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Shows how far the new disk is, until it is a member of every group, has its copies and misses nothing.
async fn watch_replace(asked: &Asked, name: &str, before: &ClusterStatus) -> Result<ExitCode, Failure> {
    let old = before.nodes.iter().find(|node| node.name == name).and_then(|node| node.id);
    let bar = bar(asked, "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")?;
    loop {
        let status = cluster::fetch(&asked.http).await?;
        let node = status.nodes.iter().find(|node| node.name == name);
        let new = node.filter(|node| node.id.is_some() && node.id != old);
        let missing = node.and_then(|node| node.missing_bytes).unwrap_or(0);
        if missing > bar.length().unwrap_or(0) {
            bar.set_length(missing);
        }
        bar.set_position(bar.length().unwrap_or(0).saturating_sub(missing));
        bar.set_message(match new {
            None => format!("{name}: waiting for its start with an empty disk"),
            Some(node) => format!("{name}: a full copy of {} of {} groups", node.copies, node.copies_wanted),
        });
        let is_whole = |node: &NodeStatus| node.state == NodeState::Member && node.copies == node.copies_wanted;
        if missing == 0 && status.moving_groups == 0 && new.is_some_and(is_whole) {
            bar.finish_and_clear();
            if !asked.json {
                let survives = cluster::failures(status.survives_failures);
                println!("{name} holds everything: the cluster survives {survives}");
            }
            return say(asked, name, "member");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft_types::{NodeHealth, NodeId};

    #[test]
    fn a_list_says_what_each_node_keeps_and_what_it_should() {
        let node = NodeStatus {
            name: "n4".into(),
            id: Some(NodeId(9)),
            peer_address: "h:1".into(),
            health: NodeHealth::Up,
            leads: 2,
            lag_entries: 0,
            last_contact_ms: None,
            missing_bytes: Some(2048),
            state: NodeState::Draining,
            copies: 7,
            copies_wanted: 3,
        };
        let text = describe(&[node]);
        assert!(text.contains("up, draining, syncing 2.00 KiB") && text.contains("7→3"), "{text}");
    }
}
