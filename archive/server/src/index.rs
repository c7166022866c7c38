//! `triptych index …`: indexes for attributes that queries ask for; the same on every node, filled by each for itself.

use crate::{
    Failure, client,
    peer::{ask, push},
};
use clap::{Args, Subcommand};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use std::{fmt::Write, process::ExitCode, time::Duration};

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Subcommand)]
pub(crate) enum IndexVerb {
    /// List the indexes that were added, and how far the node that is asked is with each. Until one is full, queries find the
    /// same without it, by looking into headers.
    List {
        #[command(flatten)]
        asked: Asked,
    },
    /// Add an index for an attribute. It is filled in the background from what is stored, on every node, while the archive runs.
    Add(AddFlags),
    /// Remove an index.
    Remove {
        /// The attribute.
        attribute: String,
        #[command(flatten)]
        asked: Asked,
    },
}

/// Whom to ask, and how to answer.
#[derive(Debug, Clone, Args)]
pub(crate) struct Asked {
    /// Print JSON: stable names for scripts.
    #[arg(long)]
    json: bool,
    /// Address of any node that is up.
    #[arg(long, env = "TRIPTYCH_URL", default_value = "http://127.0.0.1:8080")]
    http: String,
}

/// Flags of `index add`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AddFlags {
    /// The attribute: `KVP`, `(0018,0060)`, or of a vendor `(0009,"ACME 1.0",01)`: group, private creator, number in its block.
    attribute: String,
    /// Where its value is the same for all images below: `patient`, `study`, `series` or `image`. The index has one row there
    /// instead of one an image; it is right, and used at every level, whatever is said.
    #[arg(long)]
    level: String,
    /// Its value representation, such as `LO`; only a private attribute needs it.
    #[arg(long)]
    vr: Option<String>,
    /// Wait until the node that is asked has filled it, with a progress bar.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    asked: Asked,
}

pub(crate) fn run(verb: IndexVerb) -> Result<ExitCode, Failure> {
    client::runtime()?.block_on(async {
        match verb {
            IndexVerb::List { asked } => {
                let (_, answer) = ask(Method::GET, url(&asked.http, None)?, None, None).await?;
                match asked.json {
                    true => println!("{}", serde_json::to_string_pretty(&answer)?),
                    false => print!("{}", describe(&answer)),
                }
            }
            IndexVerb::Add(flags) => {
                let path = url(&flags.asked.http, Some(&flags.attribute))?;
                let body = json!({ "level": flags.level, "vr": flags.vr });
                let (_, mut state) = ask(Method::PUT, path.clone(), None, Some(body)).await?;
                if flags.wait {
                    state = filled(&path, state).await?;
                }
                match flags.asked.json {
                    true => println!("{state}"),
                    false => println!("{}", added(&state)),
                }
            }
            IndexVerb::Remove { attribute, asked } => {
                ask(Method::DELETE, url(&asked.http, Some(&attribute))?, None, None).await?;
                match asked.json {
                    true => println!("{}", json!({ "removed": attribute })),
                    false => println!("{attribute} has no index any more: queries for it look into headers"),
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// `/api/indexes`, or one of them.
fn url(http: &str, attribute: Option<&str>) -> Result<Url, Failure> {
    let mut url = Url::parse(&format!("{}/api/indexes", http.trim_end_matches('/')))
        .map_err(|error| format!("--http: {error}: it looks like http://HOST:PORT"))?;
    if let Some(attribute) = attribute {
        push(&mut url, attribute)?;
    }
    Ok(url)
}

/// Shows how far it is, until it is full.
async fn filled(path: &Url, mut state: Value) -> Result<Value, Failure> {
    let bar = client::bar(0, "{bar:40} {pos}/{len} instances {per_sec} {eta}");
    while state["state"] == "filling" {
        let left = state["instances_left"].as_u64().unwrap_or(0);
        // More may come meanwhile.
        bar.set_length(bar.length().unwrap_or(0).max(left));
        bar.set_position(bar.length().unwrap_or(0).saturating_sub(left));
        tokio::time::sleep(LOOK_EVERY).await;
        (_, state) = ask(Method::GET, path.clone(), None, None).await?;
    }
    bar.finish_and_clear();
    Ok(state)
}

fn added(state: &Value) -> String {
    let attribute = state["attribute"].as_str().unwrap_or_default();
    if state["state"] == "ready" {
        return format!("{attribute} has an index, and queries use it");
    }
    format!(
        "{attribute} has an index, which is being filled: {} instances are left; `triptych index list` says how far it is",
        state["instances_left"]
    )
}

/// The list as a person reads it.
fn describe(answer: &Value) -> String {
    let indexes = answer["indexes"].as_array().map_or(&[][..], Vec::as_slice);
    if indexes.is_empty() {
        return "there are no indexes but those of every archive: add one with `triptych index add`\n".into();
    }
    let mut out = String::new();
    // Writing to a String cannot fail.
    let mut line = |cells: [&str; 5]| {
        let [attribute, tag, vr, level, state] = cells;
        _ = writeln!(out, "{attribute:<32}  {tag:<24}  {vr:<2}  {level:<7}  {state}");
    };
    let on = format!("ON {}", answer["answered_by"].as_str().unwrap_or_default().to_uppercase());
    line(["ATTRIBUTE", "TAG", "VR", "LEVEL", &on]);
    let all = answer["instances"].as_u64().unwrap_or(0);
    for index in indexes {
        let text = |name: &str| index[name].as_str().unwrap_or_default();
        let left = index["instances_left"].as_u64().unwrap_or(0);
        let state = match text("state") {
            "ready" => "ready".to_owned(),
            _ => {
                let percent = 100.0 * all.saturating_sub(left) as f64 / all.max(1) as f64;
                format!("filling: {percent:.0} %, {left} instances left")
            }
        };
        line([text("attribute"), text("tag"), text("vr"), text("level"), &state]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_how_far_each_is() {
        let index = |attribute: &str, state: &str, left: u64| json!({ "attribute": attribute, "tag": "(0018,0060)", "vr": "DS", "level": "series", "state": state, "instances_left": left });
        let indexes = [index("KVP", "ready", 0), index("Other", "filling", 50)];
        let answer = json!({ "version": 2, "answered_by": "n1", "instances": 200, "indexes": indexes });
        let text = describe(&answer);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["ATTRIBUTE", "TAG", "VR", "LEVEL", "ON", "N1"]);
        assert_eq!(lines[1], ["KVP", "(0018,0060)", "DS", "series", "ready"]);
        assert_eq!(lines[2][4..], ["filling:", "75", "%,", "50", "instances", "left"]);
        assert!(describe(&json!({ "indexes": [] })).contains("index add"));
        assert!(added(&indexes[1]).contains("50 instances are left"));
    }

    #[test]
    fn a_private_attribute_is_one_segment_of_the_path() {
        let url = url("http://h:1/", Some("(0009,\"A/B 1\",01)")).expect("a URL");
        assert_eq!(url.as_str(), "http://h:1/api/indexes/(0009,%22A%2FB%201%22,01)");
    }
}
