//! The binary `triptych`: settings, wiring, shutdown. No rules of its own.

mod alone;
mod backup;
mod client;
mod cluster;
mod delete;
mod fetch;
mod index;
mod logging;
mod node;
mod peer;
#[cfg(feature = "planted-bugs")]
mod planted;
mod recover;
mod rejection;
mod restore;
mod sends;
mod serve;
mod settings;
mod stores;
mod upkeep;
mod watchdog;
mod world;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Blocks of 1 MiB come and go between threads: glibc's arenas keep four times what is in use, this one gives it back.
/// Without transparent huge pages, which make 200 MiB out of an idle node's 20.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A DICOM archive whose image blocks live in a Raft-replicated log.
#[derive(Parser)]
#[command(name = "triptych", version, about)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a node.
    Serve(Box<settings::ServeFlags>),
    /// Send DICOM files to an archive (C-STORE); or, with --to, have the archive send what it holds to a peer.
    Send(Box<client::SendFlags>),
    /// List what the archive sends to peers, C-MOVEs that run among it, with progress and the last failure; or cancel one.
    Sends(sends::SendsFlags),
    /// Ask an archive what it holds (C-FIND).
    Find(client::FindFlags),
    /// Fetch a study or a series from an archive (C-GET).
    Get(fetch::GetFlags),
    /// Read and verify the whole disk of a node now, and mend what is damaged with what its peers have.
    Scrub(upkeep::UpkeepFlags),
    /// Give back the space of what a node does not need any more, now.
    Compact(upkeep::UpkeepFlags),
    Delete(delete::DeleteFlags),
    Deletions(delete::DeletionsFlags),
    /// Look at what rejection notes (IHE IOCM) hide or have deleted, and restore it.
    Rejection {
        #[command(subcommand)]
        verb: rejection::RejectionVerb,
    },
    /// Manage the nodes of a cluster.
    Node {
        #[command(subcommand)]
        verb: node::NodeVerb,
    },
    /// Manage the application entities that call this archive, and that it calls.
    Peer {
        #[command(subcommand)]
        verb: peer::PeerVerb,
    },
    /// Add indexes for attributes that queries ask for, private ones too; list and remove them.
    Index {
        #[command(subcommand)]
        verb: index::IndexVerb,
    },
    /// Make backups to a folder or to S3, list, check and remove them.
    Backup {
        #[command(subcommand)]
        verb: stores::BackupVerb,
    },
    /// Make a data folder from a backup, offline: a cluster of one node, which may grow.
    Restore(restore::RestoreFlags),
    /// Make a cluster of one from what is left when most nodes are lost for good, offline.
    Recover(recover::RecoverFlags),
    /// Print the DICOM conformance statement (PS3.2) of this version, in Markdown.
    Conformance,
    /// Look at a cluster.
    Cluster {
        #[command(subcommand)]
        verb: cluster::ClusterVerb,
    },
}

fn main() -> ExitCode {
    raft_tier::install_tls();
    let result = match Arguments::parse().verb {
        Verb::Serve(flags) => serve::run(*flags),
        Verb::Send(flags) => client::send(*flags),
        Verb::Sends(flags) => sends::run(&flags),
        Verb::Find(flags) => client::find(flags),
        Verb::Get(flags) => fetch::get(flags),
        Verb::Scrub(flags) => upkeep::scrub(flags),
        Verb::Compact(flags) => upkeep::compact(flags),
        Verb::Delete(flags) => delete::delete(flags),
        Verb::Deletions(flags) => delete::deletions(flags),
        Verb::Rejection { verb } => rejection::run(verb),
        Verb::Node { verb } => node::run(verb),
        Verb::Peer { verb } => peer::run(verb),
        Verb::Index { verb } => index::run(verb),
        Verb::Backup { verb } => stores::run(verb),
        Verb::Restore(flags) => restore::run(flags),
        Verb::Recover(flags) => recover::run(flags),
        Verb::Conformance => {
            print!("{}", archive_dimse::conformance::statement());
            Ok(ExitCode::SUCCESS)
        }
        Verb::Cluster { verb } => cluster::run(verb),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("triptych: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// What any verb may fail with; it is only shown.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The error and its causes: `store 1.2.3: append block 7: input/output error`.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
