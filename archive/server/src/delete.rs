//! `triptych delete` and `triptych deletions`: what goes is shown and asked for first, and what went is listed with its
//! reason.

use crate::Failure;
use clap::Args;
use std::{
    io::{BufRead, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

/// Delete a study, a series or an instance on every node. A tombstone with the reason stays; the images do not come back.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeleteFlags {
    /// Study Instance UID.
    #[arg(long, value_name = "UID")]
    study: String,
    /// Series Instance UID: only this series of the study.
    #[arg(long, value_name = "UID")]
    series: Option<String>,
    /// SOP Instance UID: only this instance of the series.
    #[arg(long, value_name = "UID", requires = "series")]
    instance: Option<String>,
    /// Why: kept with the tombstone for whoever asks later. Name no patient.
    #[arg(long)]
    reason: String,
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

/// List what was deleted, newest first, with reason and source.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeletionsFlags {
    /// Study Instance UID: only what was deleted of this study.
    #[arg(long, value_name = "UID")]
    study: Option<String>,
    /// At most so many, 1 to 1000.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Print JSON: stable names for scripts.
    #[arg(long)]
    json: bool,
    /// Address of any node.
    #[arg(long, env = "TRIPTYCH_URL", default_value = "http://127.0.0.1:8080")]
    http: String,
}

pub(crate) fn delete(flags: DeleteFlags) -> Result<ExitCode, Failure> {
    runtime()?.block_on(async {
        // What rejection notes hide goes with it.
        let count = count(&flags).await? + hidden(&flags).await?;
        let what = match (&flags.series, &flags.instance) {
            (_, Some(_)) => "instance",
            (Some(_), None) => "series",
            (None, None) => "study",
        };
        if count == 0 {
            return Err(format!("no such {what} is there: look for it with `triptych find`").into());
        }
        if !flags.yes && !confirmed(&format!("Delete this {what}, {count} instances, on every node?"))? {
            println!("nothing was deleted");
            return Ok(ExitCode::FAILURE);
        }
        let mut url = resource(&flags)?;
        url.query_pairs_mut().append_pair("reason", &flags.reason);
        let answer = ask(reqwest::Method::DELETE, url).await?;
        if flags.json {
            println!("{answer}");
        } else {
            println!("deleted {} instances, {} bytes", answer["instances"], answer["bytes"]);
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub(crate) fn deletions(flags: DeletionsFlags) -> Result<ExitCode, Failure> {
    runtime()?.block_on(async {
        let mut url = parse(&format!("{}/api/deletions", flags.http.trim_end_matches('/')))?;
        url.query_pairs_mut().append_pair("limit", &flags.limit.to_string());
        if let Some(study) = &flags.study {
            url.query_pairs_mut().append_pair("study", study);
        }
        let answer = ask(reqwest::Method::GET, url).await?;
        if flags.json {
            println!("{answer}");
            return Ok(ExitCode::SUCCESS);
        }
        for one in answer.as_array().into_iter().flatten() {
            let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
            let level = ["instance", "series", "study"].into_iter().find(|level| one[level].is_string());
            let level = level.unwrap_or("study");
            println!(
                "{level} {} · {} instances · {} · {}",
                text(level),
                one["instances"],
                text("source"),
                text("reason")
            );
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

pub(crate) fn parse(url: &str) -> Result<reqwest::Url, Failure> {
    reqwest::Url::parse(url).map_err(|error| format!("--http: {error}: it looks like http://HOST:PORT").into())
}

/// The address of what is to be deleted.
fn resource(flags: &DeleteFlags) -> Result<reqwest::Url, Failure> {
    let mut path = format!("{}/dicom-web/studies/{}", flags.http.trim_end_matches('/'), flags.study);
    for (level, uid) in [("series", &flags.series), ("instances", &flags.instance)] {
        if let Some(uid) = uid {
            path = format!("{path}/{level}/{uid}");
        }
    }
    parse(&path)
}

/// How many instances would go.
async fn count(flags: &DeleteFlags) -> Result<u64, Failure> {
    let http = flags.http.trim_end_matches('/');
    let mut url = parse(&format!("{http}/dicom-web/studies"))?;
    url.query_pairs_mut().append_pair("StudyInstanceUID", &flags.study);
    let mut tag = "00201208"; // Number of Study Related Instances
    if let Some(series) = &flags.series {
        url = parse(&format!("{http}/dicom-web/studies/{}/series", flags.study))?;
        url.query_pairs_mut().append_pair("SeriesInstanceUID", series);
        tag = "00201209"; // Number of Series Related Instances
    }
    if let (Some(series), Some(instance)) = (&flags.series, &flags.instance) {
        url = parse(&format!("{http}/dicom-web/studies/{}/series/{series}/instances", flags.study))?;
        url.query_pairs_mut().append_pair("SOPInstanceUID", instance);
        let found = ask(reqwest::Method::GET, url).await?;
        return Ok(found.as_array().map_or(0, |found| found.len() as u64));
    }
    let found = ask(reqwest::Method::GET, url).await?;
    Ok(found[0][tag]["Value"][0].as_u64().unwrap_or(0))
}

/// How many of them are in no answer, because a rejection note hides them.
async fn hidden(flags: &DeleteFlags) -> Result<u64, Failure> {
    let mut url = parse(&format!("{}/api/rejections", flags.http.trim_end_matches('/')))?;
    url.query_pairs_mut().append_pair("study", &flags.study);
    let found = ask(reqwest::Method::GET, url).await?;
    let is_meant = |one: &&serde_json::Value| {
        let named = |level: &str, uid: &Option<String>| uid.as_ref().is_none_or(|uid| one[level] == uid.as_str());
        one["state"] == "hidden" && named("series", &flags.series) && named("instance", &flags.instance)
    };
    Ok(found.as_array().into_iter().flatten().filter(is_meant).count() as u64)
}

pub(crate) async fn ask(method: reqwest::Method, url: reqwest::Url) -> Result<serde_json::Value, Failure> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build()?;
    let answer =
        client.request(method, url).header("accept", "application/json").send().await.map_err(|error| {
            format!("no node answers ({}): name one that is up with --http URL", error.without_url())
        })?;
    let (status, body) = (answer.status(), answer.text().await?);
    if !status.is_success() {
        return Err(format!("{status}: {}", body.trim()).into());
    }
    // QIDO answers 204 and nothing when nothing matches.
    Ok(if body.is_empty() { serde_json::Value::Null } else { serde_json::from_str(&body)? })
}

/// Asks a person; without one, nothing is confirmed.
pub(crate) fn confirmed(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err("nobody is here to confirm it: add --yes if you are sure".into());
    }
    print!("{question} [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
