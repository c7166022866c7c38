//! `triptych send --to` and `triptych sends`: what is sent to other applications, by which job, and how far it is.

use crate::{
    Failure, client,
    peer::{ask, push},
};
use clap::Args;
use reqwest::{Method, Url};
use serde_json::{Value, json};
use std::{fmt::Write, process::ExitCode, time::Duration};

/// Between two looks at jobs that are waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Jobs that one request answers.
const PAGE: usize = 1000;

/// Flags of `send` that have the archive send what it holds.
#[derive(Debug, Clone, Args)]
pub(crate) struct QueueFlags {
    /// Send no files, but what the archive holds, to this peer (its AE title): it is queued, tried again for days, and goes on
    /// at another node when one dies.
    #[arg(long, value_name = "AE", requires = "study", conflicts_with = "paths")]
    pub(crate) to: Option<String>,
    /// Study Instance UID of what is sent.
    #[arg(long, value_name = "UID", requires = "to")]
    study: Option<String>,
    /// Series Instance UID: only this series of the study.
    #[arg(long, value_name = "UID", requires = "to")]
    series: Option<String>,
    /// SOP Instance UID: only this instance of the study.
    #[arg(long, value_name = "UID", requires = "to")]
    instance: Option<String>,
    /// Wait until all is sent, or given up.
    #[arg(long, requires = "to")]
    wait: bool,
    /// Address of any node that is up: for `--to`.
    #[arg(long, env = "TRIPTYCH_URL", default_value = "http://127.0.0.1:8080")]
    http: String,
}

/// Flags of `sends`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SendsFlags {
    /// Only this one, with the instances that are left.
    id: Option<String>,
    /// Cancel it; one that has ended is forgotten.
    #[arg(long, requires = "id")]
    cancel: bool,
    /// Print JSON: stable names for scripts.
    #[arg(long)]
    json: bool,
    /// Address of any node that is up.
    #[arg(long, env = "TRIPTYCH_URL", default_value = "http://127.0.0.1:8080")]
    http: String,
}

fn url(http: &str, id: Option<&str>) -> Result<Url, Failure> {
    let mut url = Url::parse(&format!("{}/api/sends", http.trim_end_matches('/')))
        .map_err(|error| format!("--http: {error}: it looks like http://HOST:PORT"))?;
    if let Some(id) = id {
        push(&mut url, id)?;
    }
    Ok(url)
}

pub(crate) fn queue(flags: &QueueFlags, as_json: bool) -> Result<ExitCode, Failure> {
    client::runtime()?.block_on(async {
        let mut order = json!({ "to": flags.to, "study": flags.study });
        for (name, value) in [("series", &flags.series), ("instance", &flags.instance)] {
            if let Some(value) = value {
                order[name] = value.as_str().into();
            }
        }
        let (_, queued) = ask(Method::POST, url(&flags.http, None)?, None, Some(order)).await?;
        let ids: Vec<&str> = queued["ids"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let instances = queued["instances"].as_u64().unwrap_or(0);
        let to = flags.to.as_deref().unwrap_or_default();
        if !flags.wait {
            match as_json {
                true => println!("{queued}"),
                false => {
                    println!("{instances} instances are queued for {to} as {}: see `triptych sends`", ids.join(" "))
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        let bar = client::bar(instances, "{bar:40} {pos}/{len} instances {msg}");
        let mut ended = Vec::new();
        for id in ids {
            loop {
                let (_, job) = ask(Method::GET, url(&flags.http, Some(id))?, None, None).await?;
                let done = ended.iter().chain([&job]).map(settled).sum();
                bar.set_position(done);
                bar.set_message(job["why"].as_str().unwrap_or_default().to_owned());
                if !["running", "waiting"].contains(&job["state"].as_str().unwrap_or_default()) {
                    ended.push(job);
                    break;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        bar.finish_and_clear();
        let all_sent = ended.iter().all(|job| job["state"] == "done");
        match as_json {
            true => println!("{}", Value::from(ended)),
            false => print!("{}", describe(&ended)),
        }
        Ok(if all_sent { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Instances for which nothing more is done.
fn settled(job: &Value) -> u64 {
    ["sent", "gone"].into_iter().filter_map(|name| job[name].as_u64()).sum()
}

pub(crate) fn run(flags: &SendsFlags) -> Result<ExitCode, Failure> {
    client::runtime()?.block_on(async {
        if let Some(id) = &flags.id {
            let method = if flags.cancel { Method::DELETE } else { Method::GET };
            let (_, job) = ask(method, url(&flags.http, Some(id))?, None, None).await?;
            if flags.json {
                println!("{}", serde_json::to_string_pretty(&job)?);
            } else if flags.cancel {
                let text = |name: &str| job[name].as_str().unwrap_or_default().to_owned();
                println!(
                    "{id} was {} and is {} now: {} of {} instances are sent",
                    text("was"),
                    text("now"),
                    job["sent"],
                    job["instances"]
                );
            } else {
                let left = job["left_instances"].as_array().cloned().unwrap_or_default();
                print!("{}", describe(std::slice::from_ref(&job)));
                left.iter().filter_map(Value::as_str).for_each(|uid| println!("  left: {uid}"));
            }
            return Ok(ExitCode::SUCCESS);
        }
        let mut all = Vec::new();
        loop {
            let mut page = url(&flags.http, None)?;
            if let Some(last) = all.last().and_then(|job: &Value| job["id"].as_str()) {
                page.query_pairs_mut().append_pair("after", last);
            }
            page.query_pairs_mut().append_pair("limit", &PAGE.to_string());
            let (_, jobs) = ask(Method::GET, page, None, None).await?;
            match jobs {
                // Pages end earlier when their lists are long: only an empty one is the last.
                Value::Array(jobs) if !jobs.is_empty() => all.extend(jobs),
                _ => break,
            }
        }
        match flags.json {
            true => println!("{}", serde_json::to_string_pretty(&all)?),
            false => print!("{}", describe(&all)),
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Jobs as a person reads them.
fn describe(jobs: &[Value]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let mut line = |cells: [&str; 8]| {
        let [id, to, state, sent, left, failed, next, why] = cells;
        let text = format!("{id:<20}  {to:<16}  {state:<14}  {sent:>12}  {left:>6}  {failed:>6}  {next:<9}  {why}");
        _ = writeln!(out, "{}", text.trim_end());
    };
    line(["SEND", "TO", "STATE", "SENT", "LEFT", "FAILED", "NEXT", "LAST FAILURE"]);
    let now_ms =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    for job in jobs {
        let text = |name: &str| job[name].as_str().unwrap_or_default().to_owned();
        let count = |name: &str| job[name].as_u64().unwrap_or(0);
        let state = match job["node"].as_str() {
            Some(node) => format!("{} on {node}", text("state")),
            None => text("state"),
        };
        let next = match job["next_unix_ms"].as_u64() {
            Some(next) => format!("in {} s", u128::from(next).saturating_sub(now_ms) / 1000),
            None => String::new(),
        };
        let sent = format!("{}/{}", count("sent"), count("instances"));
        let (left, failed) = (count("left").to_string(), count("failed").to_string());
        line([&text("id"), &text("to"), &state, &sent, &left, &failed, &next, &text("why")]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_how_far_each_is_and_why_not_further() {
        let jobs = [
            json!({ "id": "a1", "to": "WS1", "state": "running", "node": "n2", "instances": 9, "sent": 4, "left": 5, "failed": 0 }),
            json!({ "id": "a2", "to": "WS2", "state": "waiting", "node": null, "instances": 3, "sent": 1, "left": 2, "failed": 2,
                    "next_unix_ms": 1, "why": "status A700" }),
        ];
        let text = describe(&jobs);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["a1", "WS1", "running", "on", "n2", "4/9", "5", "0"]);
        assert_eq!(lines[2], ["a2", "WS2", "waiting", "1/3", "2", "2", "in", "0", "s", "status", "A700"]);
        assert_eq!(jobs.iter().map(settled).sum::<u64>(), 5);
        assert_eq!(
            url("http://h:1/", Some("a/b")).map(|url| url.to_string()).ok().as_deref(),
            Some("http://h:1/api/sends/a%2Fb")
        );
    }
}
