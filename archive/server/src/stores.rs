//! `triptych backup …`: orders a backup, lists, checks and removes backups.

use crate::Failure;
use archive_catalog::{Catalog, CatalogOptions};
use clap::Subcommand;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use raft_tier::{ClusterStore, Manifest, Progress, ProgressView, Repository, TierError, format_unix_ms, prune, verify};
use raft_types::StateMachine;
use serde_json::{Value, json};
use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};
use uuid::Uuid;

#[derive(Subcommand)]
pub(crate) enum BackupVerb {
    /// Have a node make a backup, and wait for it. Only what no earlier backup holds is sent.
    Create {
        /// Where to: `file:///folder` (of the node) or `s3://bucket/prefix` (with the node's `AWS_…` variables).
        #[arg(long, value_name = "URL")]
        to: String,
        /// Address of the node that makes it.
        #[arg(long, env = "TRIPTYCH_URL", default_value = "http://127.0.0.1:8080")]
        http: String,
        /// Print JSON: stable names for scripts.
        #[arg(long)]
        json: bool,
    },
    /// What backups there are.
    List {
        #[command(flatten)]
        from: FromFlags,
    },
    /// Read everything of a backup, compare every digest, and look for every body that its rows name. Exit code 1 on any
    /// damage.
    Verify {
        #[command(flatten)]
        from: FromFlags,
        /// Which: an id, or a time in UTC such as 2026-11-26T00:30:00Z for the newest not after it. Default the newest.
        #[arg(long, value_name = "ID|TIME")]
        at: Option<String>,
        /// Folder for the rows while they are checked. Default the system's for temporary files.
        #[arg(long, value_name = "DIR")]
        scratch: Option<PathBuf>,
    },
    /// Remove old backups, and what only they need. Without --yes it only says what would go.
    Prune {
        #[command(flatten)]
        from: FromFlags,
        /// How many of the newest stay.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        keep: u32,
        /// Do it.
        #[arg(long)]
        yes: bool,
    },
}

/// Which backups.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FromFlags {
    /// Where they are: `file:///folder` or `s3://bucket/prefix`.
    #[arg(long, value_name = "URL")]
    pub(crate) from: String,
    /// Of which cluster, where there are several.
    #[arg(long, value_name = "ID")]
    pub(crate) cluster: Option<Uuid>,
    /// Print JSON: stable names for scripts.
    #[arg(long)]
    pub(crate) json: bool,
}

impl FromFlags {
    pub(crate) async fn open(&self) -> Result<ClusterStore, TierError> {
        Repository::open(&self.from)?.the_cluster(self.cluster).await
    }
}

pub(crate) fn run(verb: BackupVerb) -> Result<ExitCode, Failure> {
    crate::client::runtime()?.block_on(async {
        match verb {
            BackupVerb::Create { to, http, json } => order(&to, &http, json).await,
            BackupVerb::List { from } => list(&from).await,
            BackupVerb::Verify { from, at, scratch } => check(&from, at.as_deref(), scratch).await,
            BackupVerb::Prune { from, keep, yes } => thin(&from, keep, yes).await,
        }
    })
}

/// A bar of groups, with bytes beside it.
pub(crate) fn bar(what: &str) -> ProgressBar {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] group {pos} of {len}, {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what.to_owned());
    bar
}

pub(crate) fn show(bar: &ProgressBar, view: ProgressView) {
    bar.set_length(view.groups);
    bar.set_position(view.groups_done);
    let sent = if view.sent_bytes > 0 { format!(", {} sent", HumanBytes(view.sent_bytes)) } else { String::new() };
    bar.set_message(format!("{} of {} read{sent}", HumanBytes(view.bytes_done), HumanBytes(view.bytes)));
}

/// Moves the bar while `work` goes on.
pub(crate) async fn watched<T>(bar: &ProgressBar, progress: &Progress, work: impl Future<Output = T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = ticks.tick() => show(bar, progress.view()),
        }
    };
    bar.finish_and_clear();
    done
}

async fn order(to: &str, http: &str, json: bool) -> Result<ExitCode, Failure> {
    let url = format!("{}/api/backups", http.trim_end_matches('/'));
    let client = reqwest::Client::builder().timeout(Duration::from_secs(15)).build()?;
    let unreachable = |error: reqwest::Error| {
        let error = error.without_url();
        format!("no node answers at {url} ({error}): name one that is up with --http URL")
    };
    let answer = client.post(&url).json(&json!({ "to": to })).send().await.map_err(unreachable)?;
    if !answer.status().is_success() {
        let (status, why) = (answer.status(), answer.text().await.unwrap_or_default());
        return Err(format!("{status}: {}", why.trim()).into());
    }
    let bar = bar("backup");
    let done = loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let state: Value = client.get(&url).send().await.map_err(unreachable)?.json().await?;
        if let Ok(view) = serde_json::from_value::<ProgressView>(state["progress"].clone()) {
            show(&bar, view);
        }
        if state["state"] != "running" {
            break state;
        }
    };
    bar.finish_and_clear();
    let made = done["state"] == "done";
    if json {
        println!("{}", serde_json::to_string_pretty(&done)?);
    } else if made {
        let number = |name: &str| done["totals"][name].as_u64().unwrap_or(0);
        println!(
            "backup {} is made: {} blocks of images, {} in all, {} of it sent now",
            done["id"].as_str().unwrap_or_default(),
            number("bodies"),
            HumanBytes(number("stored_bytes")),
            HumanBytes(number("sent_bytes"))
        );
    } else {
        let why = done["why"].as_str().unwrap_or("the node has started again meanwhile");
        eprintln!("triptych: no backup was made: {why}");
    }
    Ok(if made { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn list(from: &FromFlags) -> Result<ExitCode, Failure> {
    let repository = Repository::open(&from.from)?;
    let clusters = match from.cluster {
        Some(id) => vec![id],
        None => repository.clusters().await?,
    };
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    for cluster in clusters {
        let store = repository.cluster(cluster);
        for id in store.backups().await? {
            match store.manifest(&id).await {
                Ok(manifest) => found.push(manifest),
                Err(error @ TierError::Damaged { .. }) => damaged.push(error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
    }
    if from.json {
        let backups: Vec<Value> = found.iter().map(summary).collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "backups": backups, "damaged": damaged }))?);
    } else {
        println!("{:<22} {:<20} {:<36} {:>9} {:>12} {:>12}", "ID", "BEGUN (UTC)", "CLUSTER", "BLOCKS", "SIZE", "SENT");
        for manifest in &found {
            println!(
                "{:<22} {:<20} {:<36} {:>9} {:>12} {:>12}",
                manifest.id,
                format_unix_ms(manifest.started_unix_ms),
                manifest.cluster_id.to_string(),
                manifest.totals.bodies,
                HumanBytes(manifest.totals.stored_bytes).to_string(),
                HumanBytes(manifest.totals.sent_bytes).to_string()
            );
        }
        for error in &damaged {
            println!("{error}");
        }
    }
    Ok(if damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn summary(manifest: &Manifest) -> Value {
    json!({
        "id": manifest.id, "cluster_id": manifest.cluster_id, "started_unix_ms": manifest.started_unix_ms,
        "finished_unix_ms": manifest.finished_unix_ms, "started": format_unix_ms(manifest.started_unix_ms),
        "node": manifest.node, "groups": manifest.group_count, "totals": manifest.totals, "previous": manifest.previous,
    })
}

async fn check(from: &FromFlags, at: Option<&str>, scratch: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let store = from.open().await?;
    let id = store.pick(at).await?;
    let folder = match scratch {
        Some(folder) => tempfile::Builder::new().prefix("triptych-verify-").tempdir_in(folder)?,
        None => tempfile::Builder::new().prefix("triptych-verify-").tempdir()?,
    };
    let catalog: Arc<dyn StateMachine> = Arc::new(Catalog::open(folder.path(), CatalogOptions::default())?);
    let (bar, progress) = (bar("verify"), Progress::default());
    let report = watched(&bar, &progress, verify(&store, &id, catalog, &progress)).await?;
    if from.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        for damage in &report.damage {
            println!("damaged: {}: {}", damage.object, damage.why);
        }
        if report.more_damage > 0 {
            println!("damaged: {} more", report.more_damage);
        }
        let verdict = if report.is_sound() { "sound" } else { "DAMAGED" };
        println!(
            "backup {id} is {verdict}: {} objects and {} read, {} blocks of images found as the rows name them",
            report.objects,
            HumanBytes(report.bytes),
            report.bodies
        );
    }
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn thin(from: &FromFlags, keep: u32, yes: bool) -> Result<ExitCode, Failure> {
    let store = from.open().await?;
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let now = raft_types::Clock::unix_ms(&crate::world::SystemClock::new());
    let pruned = prune(&store, keep, yes, &format!("{now}-{:x}", std::process::id())).await?;
    if from.json {
        println!("{}", serde_json::to_string_pretty(&pruned)?);
    } else {
        let verb = if yes { "removed" } else { "would be removed" };
        println!(
            "{} backups, {} packs and {} objects with rows {verb}: {}; {} backups stay{}",
            pruned.backups.len(),
            pruned.packs,
            pruned.rows,
            HumanBytes(pruned.bytes),
            pruned.kept.len(),
            if yes { "" } else { " (say --yes to do it)" }
        );
    }
    Ok(ExitCode::SUCCESS)
}
