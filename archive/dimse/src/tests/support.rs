//! A running server, objects to send, and a requestor.

use crate::{
    DimseServer, DimseSettings,
    association::Deadlines,
    scu::{GetEvent, Proposal, Requestor, ScuError},
};
use archive_model::{
    AeTitle, DataSet, Element, Encoding, Uid, VR, Value, sop_class, tags, transfer_syntax, write_data_set,
};
use archive_service::{
    Archive, Freshness, RemoteAe, Selection, ServiceSettings,
    testing::{LocalLog, TestClock, archive, archive_at},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpListener;

pub(crate) const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
/// A class of a vendor.
pub(crate) const PRIVATE: &str = "1.3.46.670589.5.0.1";
pub(crate) const IMPLICIT: &str = "1.2.840.10008.1.2";
pub(crate) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub(crate) const JPEG: &str = "1.2.840.10008.1.2.4.70";
pub(crate) const STUDY: &str = "1.2.3.1";
pub(crate) const SERIES: &str = "1.2.3.1.1";

pub(crate) struct Face {
    pub(crate) server: DimseServer,
    pub(crate) archive: Archive,
    pub(crate) log: Arc<LocalLog>,
    pub(crate) registry: prometheus::Registry,
    _folder: tempfile::TempDir,
}

impl Face {
    pub(crate) async fn new() -> Self {
        Self::with(ServiceSettings::default(), settings()).await
    }

    pub(crate) async fn with(service: ServiceSettings, dimse: DimseSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = archive(folder.path(), service);
        Self::over(folder, made, dimse).await
    }

    /// One whose clock goes.
    pub(crate) async fn ticking(service: ServiceSettings, dimse: DimseSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = archive_at(folder.path(), service, TestClock::new());
        Self::over(folder, made, dimse).await
    }

    async fn over(folder: tempfile::TempDir, made: (Archive, Arc<LocalLog>), dimse: DimseSettings) -> Self {
        let (archive, log) = made;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = prometheus::Registry::new();
        let server = DimseServer::start(listener, archive.clone(), dimse, &registry).unwrap();
        Self { server, archive, log, registry, _folder: folder }
    }

    /// One that may move to `others`.
    pub(crate) async fn moving_to(others: &[(&str, SocketAddr)]) -> Self {
        let remotes = others
            .iter()
            .map(|(name, address)| ((*name).to_owned(), RemoteAe { title: title(name), address: address.to_string() }));
        Self::with(ServiceSettings { remotes: remotes.collect(), ..ServiceSettings::default() }, settings()).await
    }

    pub(crate) async fn connect(&self, proposals: &[Proposal]) -> Result<Requestor, ScuError> {
        self.connect_as("TRIPTYCH", proposals).await
    }

    pub(crate) async fn connect_as(&self, called: &str, proposals: &[Proposal]) -> Result<Requestor, ScuError> {
        let address = self.server.local_address().to_string();
        Requestor::connect(&address, &title("TEST"), &title(called), proposals, deadlines()).await
    }

    pub(crate) async fn instances(&self) -> Vec<String> {
        let selection = Selection { studies: vec![Uid::parse(STUDY).unwrap()], ..Selection::default() };
        let rows = self.archive.instances(selection, Freshness::Local).await.unwrap();
        rows.into_iter().map(|row| row.instance.to_string()).collect()
    }

    /// Stores all over one association.
    pub(crate) async fn store(&self, objects: &[Object]) {
        let proposals: Vec<Proposal> = objects.iter().map(Object::proposal).collect();
        let mut requestor = self.connect(&proposals).await.unwrap();
        for object in objects {
            assert_eq!(object.send(&mut requestor).await.unwrap().0, 0x0000);
        }
        requestor.release().await;
    }

    /// The value of a counter of this face.
    pub(crate) fn counted(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let metrics = families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
        metrics.map(|metric| metric.get_counter().get_value()).sum()
    }
}

pub(crate) fn settings() -> DimseSettings {
    let mut settings = DimseSettings { drain: Duration::from_millis(500), ..DimseSettings::default() };
    settings.deadlines.artim = Duration::from_millis(500);
    settings
}

pub(crate) fn deadlines() -> Deadlines {
    let seconds = Duration::from_secs(20);
    Deadlines { artim: seconds, progress: seconds, idle: seconds }
}

pub(crate) fn title(text: &str) -> AeTitle {
    AeTitle::parse(text).unwrap()
}

/// An object to send.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) class: &'static str,
    pub(crate) instance: String,
    pub(crate) syntax: &'static str,
    pub(crate) bytes: Vec<u8>,
}

impl Object {
    /// An image with `pixel_bytes` bytes of pixels in `syntax`.
    pub(crate) fn new(class: &'static str, number: usize, syntax: &'static str, pixel_bytes: usize) -> Self {
        Self::of("Müller^Jörg", class, number, syntax, pixel_bytes)
    }

    /// An image of the patient `name`.
    pub(crate) fn of(name: &str, class: &'static str, number: usize, syntax: &'static str, pixel_bytes: usize) -> Self {
        let instance = format!("{SERIES}.{number}");
        let mut set = DataSet::new();
        set.put_text(tags::SOP_CLASS_UID, VR::UI, class);
        set.put_text(tags::SOP_INSTANCE_UID, VR::UI, instance.clone());
        set.put_text(tags::STUDY_INSTANCE_UID, VR::UI, STUDY);
        set.put_text(tags::SERIES_INSTANCE_UID, VR::UI, SERIES);
        set.put_text(tags::MODALITY, VR::CS, "CT");
        set.put_text(tags::STUDY_DATE, VR::DA, "20260102");
        set.put_text(tags::PATIENT_ID, VR::LO, "P1");
        set.put_text(tags::PATIENT_NAME, VR::PN, name);
        set.put_text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192");
        set.put_text(tags::INSTANCE_NUMBER, VR::IS, number.to_string());
        set.put(Element { tag: tags::ROWS, vr: VR::US, value: Value::Integers(vec![1]) });
        set.put(Element { tag: tags::COLUMNS, vr: VR::US, value: Value::Integers(vec![pixel_bytes as i128 / 2]) });
        set.put(Element { tag: tags::BITS_ALLOCATED, vr: VR::US, value: Value::Integers(vec![16]) });
        set.put(Element { tag: tags::SAMPLES_PER_PIXEL, vr: VR::US, value: Value::Integers(vec![1]) });
        let pixels: Vec<u8> = (0..pixel_bytes).map(|at| (at * 7 + number) as u8).collect();
        let encoding = transfer_syntax(syntax).encoding;
        let bytes = if syntax == JPEG {
            let mut bytes = write_data_set(&set, Encoding::ExplicitLe);
            bytes.extend([0xe0, 0x7f, 0x10, 0, b'O', b'B', 0, 0, 0xff, 0xff, 0xff, 0xff]);
            bytes.extend([0xfe, 0xff, 0, 0xe0, 0, 0, 0, 0, 0xfe, 0xff, 0, 0xe0]);
            bytes.extend(u32::try_from(pixels.len()).unwrap().to_le_bytes());
            bytes.extend(&pixels);
            bytes.extend([0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]);
            bytes
        } else {
            set.put(Element { tag: tags::PIXEL_DATA, vr: VR::OW, value: Value::Bytes(pixels.into()) });
            write_data_set(&set, encoding)
        };
        Self { class, instance, syntax, bytes }
    }

    pub(crate) fn proposal(&self) -> Proposal {
        Proposal::new(self.class, &[self.syntax])
    }

    pub(crate) async fn begin(&self, requestor: &mut Requestor) -> Result<u8, ScuError> {
        let context = requestor.context(self.class, self.syntax).unwrap();
        requestor.store_begin(context, self.class, &self.instance, None).await?;
        Ok(context)
    }

    pub(crate) async fn send(&self, requestor: &mut Requestor) -> Result<(u16, String), ScuError> {
        let context = self.begin(requestor).await?;
        for piece in self.bytes.chunks(100_000) {
            requestor.store_piece(context, piece, false).await?;
        }
        requestor.store_piece(context, &[], true).await?;
        requestor.store_end().await
    }
}

/// A study, by its level.
pub(crate) fn identifier(level: &str) -> DataSet {
    let mut set = DataSet::new();
    set.put_text(tags::QUERY_RETRIEVE_LEVEL, VR::CS, level);
    set.put_text(tags::STUDY_INSTANCE_UID, VR::UI, STUDY);
    set
}

/// What C-GET proposes to receive `syntaxes` of `class`.
pub(crate) fn get_proposals(classes: &[&str], syntaxes: &[&str]) -> Vec<Proposal> {
    let mut proposals = vec![Proposal::new(sop_class::STUDY_ROOT_GET, &[IMPLICIT])];
    for class in classes {
        for syntax in syntaxes {
            proposals.push(Proposal { provider: true, ..Proposal::new(class, &[syntax]) });
        }
    }
    proposals
}

/// Fetches the study; answers (instance, syntax, bytes) of each object, and the end.
pub(crate) async fn get(requestor: &mut Requestor) -> (Vec<(String, String, Vec<u8>)>, Result<(), ScuError>) {
    let mut objects = Vec::new();
    let study = identifier("STUDY");
    let end = requestor.get(sop_class::STUDY_ROOT_GET, &study, async |event| {
        match event {
            GetEvent::Begin { instance, syntax, .. } => objects.push((instance, syntax, Vec::new())),
            GetEvent::Piece(piece) => objects.last_mut().unwrap().2.extend_from_slice(&piece),
            GetEvent::End | GetEvent::Progress { .. } => {}
        }
        0
    });
    let end = end.await;
    (objects, end)
}
