//! `triptych get`: a study or a series into files.
//!
//! Objects come as they are stored, each (SOP class, transfer syntax) in a context of its own. An association has 128
//! contexts and a study may need more: then it is asked for in rounds, each with other contexts.

use crate::{
    Failure,
    client::{PeerFlags, bar, runtime},
};
use archive_dimse::scu::{CONTEXTS_MAX, GetEvent, Proposal, ScuError};
use archive_model::{
    AeTitle, DEFLATED_LE, DataSet, EXPLICIT_BE, EXPLICIT_LE, Element, IMPLICIT_LE, PixelCoding, TRANSFER_SYNTAXES, Uid,
    VR, Value, sop_class, tags, write_file_meta,
};
use clap::Args;
use indicatif::ProgressBar;
use std::{
    collections::BTreeSet,
    fs::File,
    io::{Error, ErrorKind, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Encodings that the archive makes of each other: in different rounds an object would come twice.
const PLAIN: [&str; 4] = [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE];
/// Rounds for one study: 20 SOP classes in every syntax of the table need 9.
const ROUNDS_MAX: usize = 32;

/// Flags of `get`.
#[derive(Debug, Clone, Args)]
pub(crate) struct GetFlags {
    #[command(flatten)]
    peer: PeerFlags,
    /// Study Instance UID.
    #[arg(long)]
    study: String,
    /// Series Instance UID, to fetch one series only.
    #[arg(long)]
    series: Option<String>,
    /// Folder for the files: one for each image, named by its UID. Files that are there already are left as they are.
    #[arg(long, default_value = ".", value_name = "DIR")]
    out: PathBuf,
}

/// What came.
#[derive(Debug, Default)]
struct Fetched {
    written: u64,
    kept: u64,
    failed: u64,
    /// Classes that could not be proposed in every syntax.
    left_out: Vec<String>,
}

pub(crate) fn get(flags: GetFlags) -> Result<ExitCode, Failure> {
    std::fs::create_dir_all(&flags.out).map_err(|error| format!("--out {}: {error}", flags.out.display()))?;
    let bar = bar(0, "{bar:40} {pos}/{len} images {msg}");
    let result = runtime()?.block_on(get_all(&flags, &bar));
    bar.finish_and_clear();
    let Fetched { written, kept, failed, left_out } = result?;
    if flags.peer.json {
        println!("{}", serde_json::json!({ "fetched": written, "kept": kept, "failed": failed }));
    } else {
        println!("{written} images are in {}; {kept} were there already; {failed} failed", flags.out.display());
    }
    for class in &left_out {
        eprintln!("triptych: {class} was not asked for in every transfer syntax: fetch series by series");
    }
    Ok(if failed == 0 && written + kept > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Contexts of each round. What is common comes first, so that most studies need one.
fn rounds(classes: &BTreeSet<String>) -> Vec<Vec<Proposal>> {
    let is_file = |coding: PixelCoding, name: &str| coding != PixelCoding::Unknown && !name.starts_with("SMPTE");
    let common = [
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.51",
        "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.81",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.4.91",
        "1.2.840.10008.1.2.4.201",
        "1.2.840.10008.1.2.5",
    ];
    let others = TRANSFER_SYNTAXES.iter().filter(|row| is_file(row.pixel, row.name)).map(|row| row.uid);
    let others = others.filter(|uid| !PLAIN.contains(uid) && !common.contains(uid));
    let propose = |class: &String, syntax: &str| Proposal { provider: true, ..Proposal::new(class, &[syntax]) };
    let plain = classes.iter().map(|class| PLAIN.iter().map(|syntax| propose(class, syntax)).collect::<Vec<_>>());
    let coded = common.into_iter().chain(others).collect::<Vec<_>>().into_iter();
    let coded = coded.flat_map(|syntax| classes.iter().map(move |class| vec![propose(class, syntax)]));
    let mut rounds: Vec<Vec<Proposal>> = Vec::new();
    for together in plain.chain(coded) {
        match rounds.last_mut() {
            // One is for C-GET itself.
            Some(round) if round.len() + together.len() < CONTEXTS_MAX => round.extend(together),
            _ => rounds.push(together),
        }
    }
    rounds
}

async fn get_all(flags: &GetFlags, bar: &ProgressBar) -> Result<Fetched, Failure> {
    let mut identifier = DataSet::new();
    identifier.put_text(tags::STUDY_INSTANCE_UID, VR::UI, flags.study.clone());
    identifier.put(Element { tag: tags::SOP_CLASSES_IN_STUDY, vr: VR::UI, value: Value::Empty });
    identifier.put_text(tags::QUERY_RETRIEVE_LEVEL, VR::CS, "STUDY");
    let class = sop_class::STUDY_ROOT_FIND;
    let mut asking = flags.peer.connect(&[Proposal::new(class, &[EXPLICIT_LE, IMPLICIT_LE])]).await?;
    let mut classes = BTreeSet::new();
    asking
        .find(class, &identifier, |answer| classes.extend(answer.texts(tags::SOP_CLASSES_IN_STUDY).iter().cloned()))
        .await?;
    asking.release().await;
    if classes.is_empty() {
        return Err(format!("the archive holds no study {}", flags.study).into());
    }
    identifier.remove(tags::SOP_CLASSES_IN_STUDY);
    if let Some(series) = &flags.series {
        identifier.put_text(tags::SERIES_INSTANCE_UID, VR::UI, series.clone());
        identifier.put_text(tags::QUERY_RETRIEVE_LEVEL, VR::CS, "SERIES");
    }
    let mut files = Files::new(&flags.out, AeTitle::parse(&flags.peer.called).ok());
    let mut rounds = rounds(&classes);
    let left_out = rounds.split_off(rounds.len().min(ROUNDS_MAX));
    let mut failed = 0;
    for round in rounds {
        let before = files.taken();
        let missing = get_round(flags, &identifier, round, &mut files, bar).await?;
        // The first round counts all; in a later one all that came before fails again, for want of a context.
        failed = if before == 0 { missing } else { missing.saturating_sub(before) };
        if failed == 0 {
            break;
        }
    }
    let left_out: BTreeSet<String> = left_out.into_iter().flatten().map(|proposal| proposal.class).collect();
    let left_out = if failed == 0 { Vec::new() } else { left_out.into_iter().collect() };
    Ok(Fetched { written: files.written, kept: files.kept, failed: failed.max(files.failed), left_out })
}

/// Asks for all in the contexts of one round; answers how many did not come.
async fn get_round(
    flags: &GetFlags,
    identifier: &DataSet,
    round: Vec<Proposal>,
    files: &mut Files,
    bar: &ProgressBar,
) -> Result<u64, Failure> {
    let retrieve = sop_class::STUDY_ROOT_GET;
    let mut proposals = vec![Proposal::new(retrieve, &[EXPLICIT_LE, IMPLICIT_LE])];
    proposals.extend(round);
    let mut peer = flags.peer.connect(&proposals).await?;
    let mut missing = 0;
    let result = peer
        .get(retrieve, identifier, async |event| match event {
            GetEvent::Progress { remaining, failed } => {
                missing = failed;
                bar.set_length(bar.length().unwrap_or(0).max(files.taken() + remaining.unwrap_or(0)));
                0
            }
            event => {
                let status = files.take(event);
                bar.set_position(files.taken());
                status
            }
        })
        .await;
    match result {
        Ok(()) | Err(ScuError::Status { status: 0xB000 | archive_dimse::status::UNABLE_TO_PERFORM, .. }) => {
            peer.release().await;
            Ok(missing)
        }
        Err(error) => Err(error.into()),
    }
}

/// The files being written. A name from the wire becomes a path only as a UID: digits and dots.
struct Files {
    folder: PathBuf,
    written: u64,
    /// Were there already.
    kept: u64,
    failed: u64,
    open: Option<Open>,
    source: Option<AeTitle>,
}

/// An image on its way into its file.
struct Open {
    /// None when the file was there already.
    file: Option<File>,
    part: PathBuf,
    path: PathBuf,
}

impl Files {
    fn new(folder: &Path, source: Option<AeTitle>) -> Self {
        Self { folder: folder.to_path_buf(), written: 0, kept: 0, failed: 0, open: None, source }
    }

    fn taken(&self) -> u64 {
        self.written + self.kept
    }

    /// Takes the next event; answers the status of an object at its end.
    fn take(&mut self, event: GetEvent) -> u16 {
        let ends = matches!(event, GetEvent::End);
        if ends && self.open.is_none() {
            // Why was told when it happened.
            self.failed += 1;
            return archive_dimse::status::OUT_OF_RESOURCES;
        }
        match self.write(event) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("triptych: {}: {error}", self.folder.display());
                self.open = None;
                self.failed += u64::from(ends);
                archive_dimse::status::OUT_OF_RESOURCES
            }
        }
    }

    fn write(&mut self, event: GetEvent) -> std::io::Result<()> {
        match event {
            GetEvent::Begin { class, instance, syntax } => {
                let uid = Uid::parse(&instance).map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
                let path = self.folder.join(format!("{uid}.dcm"));
                let part = self.folder.join(format!("{uid}.dcm.part"));
                let mut file = None;
                if !path.exists() {
                    let mut new = File::create(&part)?;
                    new.write_all(&write_file_meta(&class, &instance, &syntax, self.source.as_ref()))?;
                    file = Some(new);
                }
                self.open = Some(Open { file, part, path });
                Ok(())
            }
            GetEvent::Piece(piece) => match &mut self.open {
                Some(Open { file: Some(file), .. }) => file.write_all(&piece),
                Some(Open { file: None, .. }) | None => Ok(()),
            },
            GetEvent::End => match self.open.take() {
                None => Ok(()),
                Some(Open { file: None, .. }) => {
                    self.kept += 1;
                    Ok(())
                }
                Some(Open { file: Some(file), part, path }) => {
                    // A file with its last name is whole.
                    file.sync_data()?;
                    std::fs::rename(part, path)?;
                    self.written += 1;
                    Ok(())
                }
            },
            GetEvent::Progress { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use archive_dimse::status::OUT_OF_RESOURCES;

    fn begin(instance: &str) -> GetEvent {
        GetEvent::Begin { class: "1.2".into(), instance: instance.into(), syntax: EXPLICIT_LE.into() }
    }

    #[test]
    fn a_file_is_named_by_its_uid_and_none_is_ever_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("1.2.3.dcm"), b"mine").expect("a file");
        let mut files = Files::new(folder.path(), None);
        for (instance, status) in [("1.2.3", 0), ("1.2.4", 0), ("../../1.2", OUT_OF_RESOURCES), ("", OUT_OF_RESOURCES)]
        {
            files.take(begin(instance));
            files.take(GetEvent::Piece(bytes::Bytes::from_static(b"data")));
            assert_eq!(files.take(GetEvent::End), status, "{instance}");
        }
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["1.2.3.dcm", "1.2.4.dcm"]);
        assert_eq!(std::fs::read(folder.path().join("1.2.3.dcm")).expect("a file"), b"mine");
        assert!(std::fs::read(folder.path().join("1.2.4.dcm")).expect("a file").ends_with(b"data"));
        assert_eq!((files.written, files.kept, files.failed), (1, 1, 2));
    }

    #[test]
    fn every_class_is_asked_for_in_every_syntax_whatever_their_number() {
        for count in [1, 2, 10, 40] {
            let classes: BTreeSet<String> = (0..count).map(|number| format!("1.2.{number}")).collect();
            let rounds = rounds(&classes);
            let all: BTreeSet<&Proposal> = rounds.iter().flatten().collect();
            assert_eq!(all.len(), rounds.iter().map(Vec::len).sum::<usize>(), "none twice");
            assert_eq!(all.len() % count, 0);
            assert!(all.len() / count > 45, "the whole table");
            assert!(rounds.iter().all(|round| round.len() < CONTEXTS_MAX));
            assert_eq!(rounds.len() > 1, count > 2);
            for class in &classes {
                let with_plain = rounds.iter().filter(|round| {
                    round.iter().any(|proposal| proposal.class == *class && PLAIN.contains(&&*proposal.syntaxes[0]))
                });
                assert_eq!(with_plain.count(), 1, "encodings that become each other come together");
            }
        }
    }
}
