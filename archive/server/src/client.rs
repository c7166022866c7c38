//! `triptych send` and `find`: the DICOM user side for people at a terminal.

use crate::{Failure, sends};
use archive_dimse::{
    association::Deadlines,
    scu::{CONTEXTS_MAX, Proposal, Requestor},
};
use archive_model::{
    AeTitle, DataSet, EXPLICIT_LE, Element, FileReader, IMPLICIT_LE, Limits, Scanner, Tag, VR, Value, json, names,
    sop_class, tags, transfer_syntax,
};
use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Whom to talk to.
#[derive(Debug, Clone, Args)]
pub(crate) struct PeerFlags {
    /// Address of the archive.
    #[arg(long, env = "TRIPTYCH_AT", default_value = "127.0.0.1:11112", value_name = "HOST:PORT")]
    at: String,
    /// Its AE title.
    #[arg(long, default_value = "TRIPTYCH", value_name = "TITLE")]
    pub(crate) called: String,
    /// Our AE title.
    #[arg(long, default_value = "TRIPTYCH_CLI", value_name = "TITLE")]
    pub(crate) calling: String,
    /// Print JSON: stable names for scripts.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `send`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SendFlags {
    #[command(flatten)]
    peer: PeerFlags,
    /// DICOM files, or folders of them.
    #[arg(required_unless_present = "to")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    queue: sends::QueueFlags,
}

/// Flags of `find`.
#[derive(Debug, Clone, Args)]
pub(crate) struct FindFlags {
    #[command(flatten)]
    peer: PeerFlags,
    /// `patient`, `study`, `series` or `image`.
    #[arg(long, default_value = "study")]
    level: String,
    /// Keys: `PatientName=DOE*`, `StudyDate=20240101-`, or only a name to have it returned.
    keys: Vec<String>,
}

impl PeerFlags {
    fn titles(&self) -> Result<(AeTitle, AeTitle), Failure> {
        let calling = AeTitle::parse(&self.calling).map_err(|error| format!("--calling: {error}"))?;
        let called = AeTitle::parse(&self.called).map_err(|error| format!("--called: {error}"))?;
        Ok((calling, called))
    }

    pub(crate) async fn connect(&self, proposals: &[Proposal]) -> Result<Requestor, Failure> {
        let (calling, called) = self.titles()?;
        Ok(Requestor::connect(&self.at, &calling, &called, proposals, Deadlines::default()).await?)
    }
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

pub(crate) fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// One file to send.
struct Found {
    path: PathBuf,
    class: String,
    instance: String,
    syntax: String,
    bytes: u64,
}

pub(crate) fn send(flags: SendFlags) -> Result<ExitCode, Failure> {
    if flags.queue.to.is_some() {
        return sends::queue(&flags.queue, flags.peer.json);
    }
    let (mut found, mut skipped) = (Vec::new(), Vec::new());
    for path in &flags.paths {
        gather(path, &mut found, &mut skipped)?;
    }
    if found.is_empty() {
        return Err(format!(
            "no DICOM file among {} path(s); {} files are something else",
            flags.paths.len(),
            skipped.len()
        )
        .into());
    }
    let total: u64 = found.iter().map(|file| file.bytes).sum();
    let bar = bar(total, "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {msg}");
    let result = runtime()?.block_on(send_all(&flags.peer, &found, &bar));
    bar.finish_and_clear();
    let failed = result?;
    let sent = found.len() - failed.len();
    if flags.peer.json {
        let failed: Vec<_> = failed
            .iter()
            .map(|(path, why)| serde_json::json!({ "file": path.display().to_string(), "why": why }))
            .collect();
        println!("{}", serde_json::json!({ "sent": sent, "failed": failed, "skipped": skipped.len(), "bytes": total }));
    } else {
        println!("{sent} of {} files are stored ({} are no DICOM files)", found.len(), skipped.len());
        for (path, why) in &failed {
            println!("not stored: {}: {why}", path.display());
        }
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn gather(path: &Path, found: &mut Vec<Found>, skipped: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let mut waiting = vec![path.to_path_buf()];
    while let Some(path) = waiting.pop() {
        let about = std::fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if about.is_dir() {
            let mut inside: Vec<_> = std::fs::read_dir(&path)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
            inside.sort_unstable();
            waiting.extend(inside.into_iter().rev());
            continue;
        }
        match look(&path)? {
            Some(file) => found.push(file),
            None => skipped.push(path),
        }
    }
    Ok(())
}

/// What a file is, from its meta group.
fn look(path: &Path) -> Result<Option<Found>, Failure> {
    let mut file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let bytes = file.metadata()?.len();
    let mut reader = FileReader::new(&Limits::default());
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = file.read(&mut buffer)?;
        let Ok(data) = reader.push(Bytes::copy_from_slice(&buffer[..count])) else { return Ok(None) };
        if count == 0 {
            return Ok(None);
        }
        if let Some(meta) = reader.meta() {
            // The data set's own UIDs count: the meta group of an edited file may name others.
            let mut scanner = Scanner::new(&transfer_syntax(&meta.transfer_syntax), &Limits::default());
            let _ = scanner.push(&data); // what is wrong with it, the archive says
            let own = |tag| scanner.so_far().text(tag).filter(|uid| !uid.is_empty()).map(str::to_owned);
            let class = own(tags::SOP_CLASS_UID).or_else(|| meta.sop_class.clone());
            let instance = own(tags::SOP_INSTANCE_UID).or_else(|| meta.sop_instance.clone());
            let (Some(class), Some(instance)) = (class, instance) else { return Ok(None) };
            return Ok(Some(Found {
                path: path.to_path_buf(),
                class,
                instance,
                syntax: meta.transfer_syntax.clone(),
                bytes,
            }));
        }
    }
}

async fn send_all(peer: &PeerFlags, files: &[Found], bar: &ProgressBar) -> Result<Vec<(PathBuf, String)>, Failure> {
    let mut failed = Vec::new();
    let mut rest = files;
    while !rest.is_empty() {
        let mut wanted = BTreeSet::new();
        let mut count = 0;
        for file in rest {
            let proposal = Proposal::new(&file.class, &[&file.syntax]);
            if wanted.len() == CONTEXTS_MAX && !wanted.contains(&proposal) {
                break;
            }
            wanted.insert(proposal);
            count += 1;
        }
        let (now, later) = rest.split_at(count);
        rest = later;
        let proposals: Vec<Proposal> = wanted.into_iter().collect();
        let mut to = peer.connect(&proposals).await?;
        for file in now {
            bar.set_message(file.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default());
            if let Err(why) = send_one(&mut to, file, bar).await? {
                failed.push((file.path.clone(), why));
            }
        }
        to.release().await;
    }
    Ok(failed)
}

async fn send_one(to: &mut Requestor, file: &Found, bar: &ProgressBar) -> Result<Result<(), String>, Failure> {
    let Some(context) = to.context(&file.class, &file.syntax) else {
        bar.inc(file.bytes);
        return Ok(Err("the archive does not accept its SOP class or transfer syntax".into()));
    };
    let mut source = File::open(&file.path)?;
    let mut reader = FileReader::new(&Limits::default());
    to.store_begin(context, &file.class, &file.instance, None).await?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        // Files of a person at a terminal: a read of 256 KiB does not hold up anything else here.
        let count = source.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        bar.inc(count as u64);
        let piece = reader.push(Bytes::copy_from_slice(&buffer[..count])).map_err(|error| error.to_string())?;
        to.store_piece(context, &piece, false).await?;
    }
    let held = reader.finish().map_err(|error| error.to_string())?;
    to.store_piece(context, &held, true).await?;
    let (status, comment) = to.store_end().await?;
    Ok(if status == 0 { Ok(()) } else { Err(format!("status {status:04X} {comment}")) })
}

pub(crate) fn find(flags: FindFlags) -> Result<ExitCode, Failure> {
    let (level, defaults): (_, &[Tag]) = match flags.level.as_str() {
        "patient" => ("PATIENT", &[tags::PATIENT_ID, tags::PATIENT_NAME, tags::PATIENT_BIRTH_DATE]),
        "study" => (
            "STUDY",
            &[
                tags::STUDY_DATE,
                tags::PATIENT_ID,
                tags::PATIENT_NAME,
                tags::MODALITIES_IN_STUDY,
                tags::NUMBER_OF_STUDY_RELATED_INSTANCES,
                tags::STUDY_DESCRIPTION,
                tags::STUDY_INSTANCE_UID,
            ],
        ),
        "series" => {
            ("SERIES", &[tags::MODALITY, tags::SERIES_NUMBER, tags::SERIES_DESCRIPTION, tags::SERIES_INSTANCE_UID])
        }
        "image" => ("IMAGE", &[tags::INSTANCE_NUMBER, tags::SOP_CLASS_UID, tags::SOP_INSTANCE_UID]),
        other => return Err(format!("--level {other}: `patient`, `study`, `series` or `image`").into()),
    };
    let mut identifier = DataSet::new();
    for tag in defaults {
        identifier.put(Element { tag: *tag, vr: names::vr_of(*tag), value: Value::Empty });
    }
    for key in &flags.keys {
        let (name, value) = key.split_once('=').unwrap_or((key, ""));
        let tag = json::key_tag(name)
            .or_else(|| names::tag_named(name))
            .ok_or_else(|| format!("{name} is no DICOM attribute; names are those of PS3.6, such as PatientName"))?;
        identifier.put_text(tag, names::vr_of(tag), value);
    }
    identifier.put_text(tags::QUERY_RETRIEVE_LEVEL, VR::CS, level);
    identifier.put_text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192");
    let class = if level == "PATIENT" { sop_class::PATIENT_ROOT_FIND } else { sop_class::STUDY_ROOT_FIND };
    let spinner = ProgressBar::new_spinner();
    let answers = runtime()?.block_on(async {
        let mut peer = flags.peer.connect(&[Proposal::new(class, &[EXPLICIT_LE, IMPLICIT_LE])]).await?;
        let mut answers = Vec::new();
        peer.find(class, &identifier, |answer| {
            answers.push(answer);
            spinner.set_message(format!("{} found", answers.len()));
            spinner.tick();
        })
        .await?;
        peer.release().await;
        Ok::<_, Failure>(answers)
    });
    spinner.finish_and_clear();
    let answers = answers?;
    if flags.peer.json {
        let list = answers.iter().map(|answer| String::from_utf8(json::to_json(answer, &json::no_bulk)));
        println!("[{}]", list.collect::<Result<Vec<_>, _>>()?.join(","));
    } else {
        print_table(&identifier, &answers);
    }
    Ok(ExitCode::SUCCESS)
}

/// The head of a column.
fn title(tag: Tag) -> String {
    names::name_of(tag).map_or_else(|| json::tag_key(tag), str::to_owned)
}

fn print_table(identifier: &DataSet, answers: &[DataSet]) {
    let hidden = [tags::QUERY_RETRIEVE_LEVEL, tags::SPECIFIC_CHARACTER_SET];
    let columns: Vec<Tag> = identifier.iter().map(|key| key.tag).filter(|tag| !hidden.contains(tag)).collect();
    let text = |answer: &DataSet, tag| answer.texts(tag).join("\\");
    let width = |tag: &Tag| {
        let longest = answers.iter().map(|answer| text(answer, *tag).chars().count()).max().unwrap_or(0);
        longest.max(title(*tag).len())
    };
    let widths: Vec<usize> = columns.iter().map(width).collect();
    let mut out = std::io::stdout().lock();
    let mut line = |cells: Vec<String>| {
        let cells: Vec<_> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end()).is_ok()
    };
    let mut shown = line(columns.iter().map(|tag| title(*tag)).collect());
    for answer in answers {
        // `| head` closes the pipe: nobody reads any more.
        shown = shown && line(columns.iter().map(|tag| text(answer, *tag)).collect());
    }
    if shown {
        line(vec![format!("{} found", answers.len())]);
    }
}
