//! `triptych peer …`: the application entities that call this archive, and that it calls; the same on every node.

use crate::Failure;
use archive_dimse::{
    Deadlines,
    scu::{Proposal, Requestor, ScuError},
};
use archive_model::{AeTitle, EXPLICIT_LE, IMPLICIT_LE, sop_class};
use archive_service::{
    RemoteAe,
    peers::{DICOMWEB, Rule},
};
use clap::{Args, Subcommand};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Map, Value, json};
use std::{fmt::Write, process::ExitCode, time::Duration};

/// The title of the entry for callers that are not listed.
const ANYBODY: &str = "*";

#[derive(Subcommand)]
pub(crate) enum PeerVerb {
    /// List the peers, with what each may do and where it is.
    List {
        #[command(flatten)]
        asked: Asked,
    },
    /// Set a peer, or change what is said of it: what is not given stays as it is, and is the default of a new one. In force
    /// on every node within moments, also for associations that are open.
    Set(Box<SetFlags>),
    /// Remove a peer: who calls under its title is one of those that are not listed.
    Remove {
        /// Its AE title, or `*`.
        ae: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Ask a peer for an echo (C-ECHO) from the node that is asked, and say how long it took.
    Echo {
        /// Its AE title.
        ae: String,
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

/// Flags of `peer set`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SetFlags {
    /// Its AE title, 1 to 16 characters; `*` for all that are not listed, `*dicomweb` for DICOMweb clients, of whom
    /// `--other-content` can be said.
    ae: String,
    /// Where it is called; `none` for one that only calls.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// What it may ask for: some of `echo,store,find,move,get,commit`, or `all`, or `none`, which shuts it out.
    #[arg(long, value_name = "RIGHTS", value_delimiter = ',')]
    rights: Option<Vec<String>>,
    /// Where it may call from: addresses and networks such as `10.1.2.0/24`, or `any`.
    #[arg(long, value_name = "NETWORK,…", value_delimiter = ',')]
    networks: Option<Vec<String>>,
    /// Transfer syntaxes that it may be sent, best first, or `any`: as stored, else uncompressed.
    #[arg(long, value_name = "UID,…", value_delimiter = ',')]
    transfer_syntaxes: Option<Vec<String>>,
    /// Its associations at the same time on each node, 1 to 65535; `any` for as many as the node takes.
    #[arg(long, value_name = "N")]
    associations: Option<String>,
    /// Another content that it sends under a known SOP Instance UID: `keep` it as a version, `reject` it (0111), or let it
    /// `replace` what the UID answers, which is kept as a version then.
    #[arg(long, value_name = "POLICY")]
    other_content: Option<String>,
    /// Whether its queries must carry level and upper keys: `strict` or `lenient`.
    #[arg(long, value_name = "HOW")]
    hierarchy: Option<String>,
    /// Storage classes that are not known here, private ones among them: `accept` or `refuse`.
    #[arg(long, value_name = "HOW")]
    unknown_classes: Option<String>,
    /// Whether it is told what is available (Instance Availability Notification): `yes` or `no`.
    #[arg(long, value_name = "HOW")]
    notify: Option<String>,
    /// For how many days what a C-MOVE to it could not send is tried again, once the C-MOVE is answered: 0 (not at all) to 30.
    #[arg(long, value_name = "N")]
    retry_days: Option<u32>,
    /// What it is shown in place of what is stored, one rule a flag: `find|retrieve|both ATTRIBUTE ACTION`, where the attribute
    /// is `PatientID`, `(0010,0020)` or `(0009,"CREATOR",01)`, and the action `set TEXT`, `clear`, `remove`, `map A=B,C=D`,
    /// `prefix TEXT` or `suffix TEXT`. It comes behind the rules that are there. What is stored stays as it is.
    #[arg(long, value_name = "RULE")]
    coerce: Vec<String>,
    /// A rule that goes, as `peer list` writes it, or `all`, before `--coerce` adds.
    #[arg(long, value_name = "RULE")]
    no_coerce: Vec<String>,
    /// For people, up to 500 characters.
    #[arg(long, value_name = "TEXT")]
    notes: Option<String>,
    #[command(flatten)]
    asked: Asked,
}

pub(crate) fn run(verb: PeerVerb) -> Result<ExitCode, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        match verb {
            PeerVerb::List { asked } => list(&asked).await,
            PeerVerb::Set(flags) => set(&flags).await,
            PeerVerb::Remove { ae, asked } => {
                ask(Method::DELETE, url(&asked.http, Some(&ae))?, None, None).await?;
                match asked.json {
                    true => println!("{}", json!({ "ae": ae, "removed": true })),
                    false => println!("{ae} is removed: who calls under it is one of those that are not listed"),
                }
                Ok(ExitCode::SUCCESS)
            }
            PeerVerb::Echo { ae, asked } => echo(&ae, &asked).await,
        }
    })
}

async fn list(asked: &Asked) -> Result<ExitCode, Failure> {
    let (_, answer) = ask(Method::GET, url(&asked.http, None)?, None, None).await?;
    if asked.json {
        println!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        print!("{}", describe(&answer));
    }
    Ok(ExitCode::SUCCESS)
}

async fn set(flags: &SetFlags) -> Result<ExitCode, Failure> {
    let (_, listed) = ask(Method::GET, url(&flags.asked.http, None)?, None, None).await?;
    let peers = listed["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let held = peers.iter().find(|peer| peer["ae"] == flags.ae.trim()).and_then(Value::as_object);
    let entry = flags.over(held.cloned().unwrap_or_default())?;
    let path = url(&flags.asked.http, Some(&flags.ae))?;
    // Of two changes at once the second is told that it has not seen the first.
    let (status, answer) = ask(Method::PUT, path, listed["version"].as_u64(), Some(entry.into())).await?;
    if flags.asked.json {
        println!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        let done = if status == StatusCode::CREATED { "is set" } else { "is changed" };
        println!("{} {done}{}", flags.ae.trim(), summary(&answer));
    }
    Ok(ExitCode::SUCCESS)
}

impl SetFlags {
    /// What is given, over what is held; what is wrong with it, the node says.
    fn over(&self, mut entry: Map<String, Value>) -> Result<Map<String, Value>, Failure> {
        let mut put = |name: &str, value: Value| _ = entry.insert(name.to_owned(), value);
        match self.address.as_deref() {
            None => {}
            Some("none" | "") => put("address", Value::Null),
            Some(address) => put("address", address.into()),
        }
        let all = ["echo", "store", "find", "move", "get", "commit"];
        match self.rights.as_deref() {
            None => {}
            Some([one]) if one == "all" => put("rights", json!(all)),
            Some([one]) if one == "none" => put("rights", json!([])),
            Some(rights) => put("rights", json!(rights)),
        }
        for (name, given) in [("networks", &self.networks), ("transfer_syntaxes", &self.transfer_syntaxes)] {
            match given.as_deref() {
                None => {}
                Some([one]) if one == "any" => put(name, json!([])),
                Some(some) => put(name, json!(some)),
            }
        }
        match self.associations.as_deref() {
            None => {}
            Some("any") => put("associations_max", Value::Null),
            Some(number) => {
                let number: u32 = number.parse().map_err(|_| "--associations: a number from 1 to 65535, or `any`")?;
                put("associations_max", number.into());
            }
        }
        match self.notify.as_deref() {
            None => {}
            Some("yes") => put("notify", true.into()),
            Some("no") => put("notify", false.into()),
            Some(other) => return Err(format!("--notify {other}: `yes` or `no`").into()),
        }
        if let Some(days) = self.retry_days {
            put("retry_days", days.into());
        }
        self.rules(&mut entry)?;
        let mut put = |name: &str, value: Value| _ = entry.insert(name.to_owned(), value);
        for (name, given) in [
            ("other_content", &self.other_content),
            ("hierarchy", &self.hierarchy),
            ("unknown_classes", &self.unknown_classes),
            ("notes", &self.notes),
        ] {
            if let Some(text) = given {
                put(name, text.as_str().into());
            }
        }
        Ok(entry)
    }
}

impl SetFlags {
    /// The rules that are held, without those that go, and with those that come.
    fn rules(&self, entry: &mut Map<String, Value>) -> Result<(), Failure> {
        if self.coerce.is_empty() && self.no_coerce.is_empty() {
            return Ok(());
        }
        let held = entry.get("coerce").cloned().unwrap_or_else(|| json!([]));
        let mut rules: Vec<Rule> = serde_json::from_value(held)?;
        for gone in &self.no_coerce {
            if gone == "all" {
                rules.clear();
                continue;
            }
            let gone: Rule = gone.parse().map_err(|why| format!("--no-coerce: {why}"))?;
            let before = rules.len();
            rules.retain(|rule| *rule != gone);
            if rules.len() == before {
                return Err(
                    format!("--no-coerce: {} has no rule `{gone}`: `triptych peer list` lists them", self.ae).into()
                );
            }
        }
        for new in &self.coerce {
            let new: Rule = new.parse().map_err(|why| format!("--coerce: {why}"))?;
            if !rules.contains(&new) {
                rules.push(new);
            }
        }
        entry.insert("coerce".into(), serde_json::to_value(rules)?);
        Ok(())
    }
}

async fn echo(ae: &str, asked: &Asked) -> Result<ExitCode, Failure> {
    let mut path = url(&asked.http, Some(ae))?;
    push(&mut path, "echo")?;
    let (_, answer) = ask(Method::POST, path, None, Some(json!({}))).await?;
    let ok = answer["ok"] == true;
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    if asked.json {
        println!("{answer}");
    } else if ok {
        let milliseconds = answer["milliseconds"].as_f64().unwrap_or_default();
        println!("{} at {} answered {} in {milliseconds:.1} ms", text("ae"), text("address"), text("from"));
    } else {
        println!("{} at {} did not answer {}: {}", text("ae"), text("address"), text("from"), text("why"));
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// C-ECHO to `remote`, in an association of its own.
pub(crate) async fn echo_to(calling: &AeTitle, remote: &RemoteAe) -> Result<(), ScuError> {
    let within = Duration::from_secs(10);
    let deadlines = Deadlines { artim: within, progress: within, idle: within };
    let proposals = [Proposal::new(sop_class::VERIFICATION, &[IMPLICIT_LE, EXPLICIT_LE])];
    let mut peer = Requestor::connect(&remote.address, calling, &remote.title, &proposals, deadlines).await?;
    match peer.echo().await {
        Ok(()) => {
            peer.release().await;
            Ok(())
        }
        Err(error) => {
            peer.abort().await;
            Err(error)
        }
    }
}

/// `/api/peers`, or one of them.
fn url(http: &str, ae: Option<&str>) -> Result<Url, Failure> {
    let mut url = Url::parse(&format!("{}/api/peers", http.trim_end_matches('/')))
        .map_err(|error| format!("--http: {error}: it looks like http://HOST:PORT"))?;
    if let Some(ae) = ae {
        let title = AeTitle::parse(ae).map_err(|error| format!("{ae:?}: {error}"))?;
        push(&mut url, title.as_str())?;
    }
    Ok(url)
}

pub(crate) fn push(url: &mut Url, segment: &str) -> Result<(), Failure> {
    let mut segments = url.path_segments_mut().map_err(|()| "--http: it looks like http://HOST:PORT")?;
    segments.push(segment);
    Ok(())
}

pub(crate) async fn ask(
    method: Method,
    url: Url,
    version: Option<u64>,
    body: Option<Value>,
) -> Result<(StatusCode, Value), Failure> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
    let mut request = client.request(method, url);
    if let Some(version) = version {
        request = request.header("if-match", format!("\"{version}\""));
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request
        .send()
        .await
        .map_err(|error| format!("no node answers ({}): name one that is up with --http URL", error.without_url()))?;
    let (status, text) = (answer.status(), answer.text().await?);
    if !status.is_success() {
        return Err(text.trim().into());
    }
    Ok((status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? }))
}

/// The list as a person reads it.
fn describe(answer: &Value) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let mut line = |ae: &str, cells: [&str; 4]| {
        let [address, rights, from, rest] = cells;
        let text = format!("{ae:<16}  {address:<24}  {rights:<32}  {from:<20}  {rest}");
        _ = writeln!(out, "{}", text.trim_end());
    };
    line("AE", ["ADDRESS", "MAY", "FROM", ""]);
    let peers = answer["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let anybody = &answer["anybody"];
    let others = peers.iter().filter(|peer| peer["ae"] != ANYBODY);
    for peer in std::iter::once(anybody).chain(others) {
        let ae = peer["ae"].as_str().unwrap_or_default();
        if ae == DICOMWEB {
            line(ae, ["-", "as it is given", "anywhere", &rest(peer)]);
            continue;
        }
        let title = if ae == ANYBODY { "* (not listed)" } else { ae };
        let address = peer["address"].as_str().unwrap_or("-");
        let networks = words(&peer["networks"]);
        let from = if networks.is_empty() { "anywhere".to_owned() } else { networks };
        line(title, [address, &rights(peer), &from, &rest(peer)]);
        for rule in peer["coerce"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            line("", ["  coerce", rule, "", ""]);
        }
    }
    for remote in answer["command_line"].as_array().into_iter().flatten().filter(|remote| remote["in_force"] == true) {
        let text = |name: &str| remote[name].as_str().unwrap_or_default().to_owned();
        line(&text("ae"), [&text("address"), "as *", "as *", "(--remote-ae of this node)"]);
    }
    out
}

fn words(list: &Value) -> String {
    let words = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(" ")
}

fn rights(peer: &Value) -> String {
    let rights = words(&peer["rights"]);
    if rights.is_empty() { "do nothing".into() } else { rights }
}

/// What a peer that was set may do and is shown.
fn summary(peer: &Value) -> String {
    if peer["ae"] == DICOMWEB {
        return format!(": other content under a known UID: {}", peer["other_content"].as_str().unwrap_or_default());
    }
    let coerced = match peer["coerce"].as_array().map_or(0, Vec::len) {
        0 => String::new(),
        1 => ", and is shown what 1 rule makes of what is stored".to_owned(),
        count => format!(", and is shown what {count} rules make of what is stored"),
    };
    format!(": it may {}{coerced}", rights(peer))
}

/// What is not as usual.
fn rest(peer: &Value) -> String {
    let mut said = Vec::new();
    if let Some(most) = peer["associations_max"].as_u64() {
        said.push(format!("at most {most} at once"));
    }
    for (name, usual, what) in [
        ("other_content", "keep", "other content:"),
        ("hierarchy", "strict", "queries:"),
        ("unknown_classes", "accept", "unknown classes:"),
    ] {
        if let Some(value) = peer[name].as_str().filter(|value| *value != usual) {
            said.push(format!("{what} {value}"));
        }
    }
    if peer["notify"] == true {
        said.push("is told what is available".to_owned());
    }
    if let Some(days) = peer["retry_days"].as_u64().filter(|days| *days > 0) {
        said.push(format!("moves are retried for {days} days"));
    }
    let syntaxes = words(&peer["transfer_syntaxes"]);
    if !syntaxes.is_empty() {
        said.push(format!("sent in {syntaxes}"));
    }
    if let Some(notes) = peer["notes"].as_str().filter(|notes| !notes.is_empty()) {
        said.push(notes.to_owned());
    }
    said.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> SetFlags {
        let asked = Asked { json: false, http: String::new() };
        SetFlags {
            ae: "CT1".into(),
            address: None,
            rights: None,
            networks: None,
            transfer_syntaxes: None,
            associations: None,
            other_content: None,
            hierarchy: None,
            unknown_classes: None,
            notify: None,
            retry_days: None,
            coerce: Vec::new(),
            no_coerce: Vec::new(),
            notes: None,
            asked,
        }
    }

    #[test]
    fn what_is_not_given_stays_as_it_is() {
        let held = json!({ "ae": "CT1", "address": "ct1:104", "rights": ["echo"], "associations_max": 3 });
        let held = held.as_object().cloned().expect("an object");
        let same = flags().over(held.clone()).expect("good flags");
        assert_eq!(same, held);
        let changed = SetFlags {
            address: Some("none".into()),
            rights: Some(vec!["all".into()]),
            associations: Some("any".into()),
            networks: Some(vec!["10.0.0.0/8".into()]),
            ..flags()
        };
        let changed = Value::from(changed.over(held).expect("good flags"));
        assert_eq!(changed["address"], Value::Null);
        assert_eq!(changed["associations_max"], Value::Null);
        assert_eq!(changed["rights"].as_array().map(Vec::len), Some(6));
        assert_eq!(changed["networks"], json!(["10.0.0.0/8"]));
        let wrong = SetFlags { associations: Some("many".into()), ..flags() };
        assert!(wrong.over(Map::new()).is_err());
    }

    #[test]
    fn rules_come_behind_those_that_are_there_and_go_by_name() {
        let over = |coerce: &[&str], no_coerce: &[&str]| {
            let held = json!({ "ae": "CT1", "coerce": ["find PatientID clear"] });
            let given = |list: &[&str]| list.iter().map(|rule| (*rule).to_owned()).collect();
            let flags = SetFlags { coerce: given(coerce), no_coerce: given(no_coerce), ..flags() };
            flags.over(held.as_object().cloned().unwrap_or_default()).map(|entry| entry["coerce"].clone())
        };
        let rule = "both (0008,0050) prefix H-";
        let both = json!(["find PatientID clear", "both AccessionNumber prefix H-"]);
        assert_eq!(over(&[rule, "find PatientID clear"], &[]).expect("rules"), both);
        assert_eq!(
            over(&[rule], &["find (0010,0020) clear"]).expect("rules"),
            json!(["both AccessionNumber prefix H-"])
        );
        assert_eq!(over(&[], &["all"]).expect("rules"), json!([]));
        assert!(over(&[], &["find PatientID remove"]).is_err_and(|why| why.to_string().contains("peer list")));
        assert!(over(&["find StudyInstanceUID clear"], &[]).is_err_and(|why| why.to_string().contains("found by")));
    }

    #[test]
    fn the_list_says_who_may_do_what_and_what_the_command_line_adds() {
        let peer = |ae: &str, rights: Value| json!({ "ae": ae, "rights": rights, "networks": [], "notes": "" });
        let answer = json!({
            "peers": [peer("CT1", json!(["echo", "store"])), peer("*", json!([]))],
            "anybody": peer("*", json!([])),
            "command_line": [
                { "ae": "WS1", "address": "ws1:104", "in_force": true },
                { "ae": "CT1", "address": "x:1", "in_force": false },
            ],
        });
        let text = describe(&answer);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        let mut ruled = peer("CT1", json!(["find"]));
        ruled["coerce"] = json!(["find PatientID clear"]);
        let web = json!({ "ae": DICOMWEB, "rights": [], "other_content": "reject", "notes": "" });
        let more = describe(&json!({ "peers": [ruled, web], "anybody": peer("*", json!([])), "command_line": [] }));
        assert!(more.contains("coerce") && more.contains("find PatientID clear\n"), "{more}");
        assert!(more.contains("*dicomweb") && more.contains("other content: reject"), "{more}");
        assert!(lines[1].starts_with("* (not listed)") && lines[1].contains("do nothing"), "{text}");
        assert!(lines[2].starts_with("CT1 ") && lines[2].contains("echo store"), "{text}");
        assert!(lines[3].starts_with("WS1 ") && lines[3].contains("ws1:104"), "{text}");
    }

    #[test]
    fn a_title_with_a_slash_is_one_segment_of_the_path() {
        let url = url("http://h:1/", Some("A/B C")).expect("a URL");
        assert_eq!(url.as_str(), "http://h:1/api/peers/A%2FB%20C");
        assert!(super::url("http://h:1", Some("12345678901234567")).is_err());
    }
}
