//! `triptych rejection …`: what rejection notes have taken out of the answers, and how it comes back.

use crate::Failure;
use crate::delete::{ask, confirmed, parse, runtime};
use clap::{Args, Subcommand};
use std::process::ExitCode;

#[derive(Subcommand)]
pub(crate) enum RejectionVerb {
    /// List the instances that rejection notes name, the newest notes first, and where each stands.
    List(ListFlags),
    /// Take back what notes did to a study, a series or an instance: what is hidden answers again on every node, and what has
    /// not come yet is accepted. Another note may reject it anew.
    Restore(RestoreFlags),
}

/// Flags of `rejection list`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListFlags {
    /// Study Instance UID: only instances of this study.
    #[arg(long, value_name = "UID")]
    study: Option<String>,
    /// Also those that were restored.
    #[arg(long)]
    restored: bool,
    /// At most so many, 1 to 10000.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Print JSON: stable names for scripts.
    #[arg(long)]
    json: bool,
    /// Address of any node.
    #[arg(long, env = "TRIPTYCH_URL", default_value = "http://127.0.0.1:8080")]
    http: String,
}

/// Flags of `rejection restore`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RestoreFlags {
    /// Study Instance UID.
    #[arg(long, value_name = "UID")]
    study: String,
    /// Series Instance UID: only this series of the study.
    #[arg(long, value_name = "UID")]
    series: Option<String>,
    /// SOP Instance UID: only this instance of the series.
    #[arg(long, value_name = "UID", requires = "series")]
    instance: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Print JSON: stable names for scripts.
    #[arg(long)]
    json: bool,
    /// Address of any node.
    #[arg(long, env = "TRIPTYCH_URL", default_value = "http://127.0.0.1:8080")]
    http: String,
}

pub(crate) fn run(verb: RejectionVerb) -> Result<ExitCode, Failure> {
    runtime()?.block_on(async {
        match verb {
            RejectionVerb::List(flags) => list(&flags).await,
            RejectionVerb::Restore(flags) => restore(&flags).await,
        }
    })
}

async fn list(flags: &ListFlags) -> Result<ExitCode, Failure> {
    let mut url = parse(&format!("{}/api/rejections", flags.http.trim_end_matches('/')))?;
    url.query_pairs_mut().append_pair("limit", &flags.limit.to_string());
    if flags.restored {
        url.query_pairs_mut().append_pair("restored", "true");
    }
    if let Some(study) = &flags.study {
        url.query_pairs_mut().append_pair("study", study);
    }
    let answer = ask(reqwest::Method::GET, url).await?;
    if flags.json {
        println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    let all = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        println!("no rejection note names an instance");
    }
    for one in all {
        let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
        println!(
            "{} · {} · {} {} · {} · note {}",
            text("instance"),
            text("state"),
            text("code"),
            text("title"),
            text("source"),
            one["note"]["instance"].as_str().unwrap_or_default()
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn restore(flags: &RestoreFlags) -> Result<ExitCode, Failure> {
    let what = match (&flags.series, &flags.instance) {
        (_, Some(_)) => "this instance",
        (Some(_), None) => "this series",
        (None, None) => "this study",
    };
    if !flags.yes && !confirmed(&format!("Show what rejection notes hide of {what} again, on every node?"))? {
        println!("nothing was restored");
        return Ok(ExitCode::FAILURE);
    }
    let mut url = parse(&format!("{}/api/rejections/restore", flags.http.trim_end_matches('/')))?;
    url.query_pairs_mut().append_pair("study", &flags.study);
    for (level, uid) in [("series", &flags.series), ("instance", &flags.instance)] {
        if let Some(uid) = uid {
            url.query_pairs_mut().append_pair(level, uid);
        }
    }
    let answer = ask(reqwest::Method::POST, url).await?;
    let count = |name: &str| answer[name].as_u64().unwrap_or(0);
    if flags.json {
        println!("{answer}");
    } else {
        println!("restored {} instances, {} more may come", count("instances"), count("lifted"));
    }
    if count("instances") + count("lifted") == 0 {
        return Err(format!("no rejection note counts for {what}: `triptych rejection list` lists them").into());
    }
    Ok(ExitCode::SUCCESS)
}
