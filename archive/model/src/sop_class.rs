//! SOP classes: what an archive stores (PS3.4 Annex B.5, Annex GG) and the services it speaks.
//!
//! The rows are those of PS3.6 table A-1. `is_storage` is the table; `may_be_storage` is everything that is not a
//! known service: private classes, and those that a later edition of the standard will add.

use std::{collections::HashMap, sync::LazyLock};

/// Verification (C-ECHO).
pub const VERIFICATION: &str = "1.2.840.10008.1.1";
/// Storage Commitment Push Model (PS3.4 Annex J).
pub const STORAGE_COMMITMENT: &str = "1.2.840.10008.1.20.1";
/// The one instance of it.
pub const STORAGE_COMMITMENT_INSTANCE: &str = "1.2.840.10008.1.20.1.1";
/// Patient Root Query/Retrieve: C-FIND.
pub const PATIENT_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.1.1";
/// Patient Root Query/Retrieve: C-MOVE.
pub const PATIENT_ROOT_MOVE: &str = "1.2.840.10008.5.1.4.1.2.1.2";
/// Patient Root Query/Retrieve: C-GET.
pub const PATIENT_ROOT_GET: &str = "1.2.840.10008.5.1.4.1.2.1.3";
/// Study Root Query/Retrieve: C-FIND.
pub const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
/// Study Root Query/Retrieve: C-MOVE.
pub const STUDY_ROOT_MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
/// Study Root Query/Retrieve: C-GET.
pub const STUDY_ROOT_GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";
/// Patient/Study Only Query/Retrieve (retired): C-FIND.
pub const PATIENT_STUDY_ONLY_FIND: &str = "1.2.840.10008.5.1.4.1.2.3.1";
/// Patient/Study Only Query/Retrieve (retired): C-MOVE.
pub const PATIENT_STUDY_ONLY_MOVE: &str = "1.2.840.10008.5.1.4.1.2.3.2";
/// Patient/Study Only Query/Retrieve (retired): C-GET.
pub const PATIENT_STUDY_ONLY_GET: &str = "1.2.840.10008.5.1.4.1.2.3.3";

/// Modality worklist: C-FIND.
pub const MODALITY_WORKLIST_FIND: &str = "1.2.840.10008.5.1.4.31";
/// Modality performed procedure step: N-CREATE, N-SET.
pub const MODALITY_PERFORMED_STEP: &str = "1.2.840.10008.3.1.2.3.3";
/// Modality performed procedure step: N-GET.
pub const MODALITY_PERFORMED_STEP_RETRIEVE: &str = "1.2.840.10008.3.1.2.3.4";

/// Instance availability notification: N-CREATE.
pub const AVAILABILITY_NOTIFICATION: &str = "1.2.840.10008.5.1.4.33";

/// A row of the table of storage classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SopClass {
    /// Its UID.
    pub uid: &'static str,
    /// Its name in PS3.6.
    pub name: &'static str,
    /// Whether the standard has retired it: still stored and served.
    pub retired: bool,
}

const fn row(uid: &'static str, name: &'static str, retired: bool) -> SopClass {
    SopClass { uid, name, retired }
}

static BY_UID: LazyLock<HashMap<&'static str, &'static SopClass>> =
    LazyLock::new(|| STORAGE_CLASSES.iter().map(|class| (class.uid, class)).collect());

/// Whether the standard says that instances of this class are stored.
#[must_use]
pub fn is_storage(uid: &str) -> bool {
    BY_UID.contains_key(uid)
}

/// Whether instances of this class could be stored: a standard storage class, a private one, or one that is not yet
/// in the table. False for every known class that is a service, and for what is no UID.
#[must_use]
pub fn may_be_storage(uid: &str) -> bool {
    is_storage(uid)
        || (crate::Uid::parse(uid).is_ok_and(|parsed| parsed.as_str() == uid)
            && !SERVICES.iter().any(|(service, _)| *service == uid)
            && !is_other_registration(uid))
}

/// UIDs of the standard that are neither storage nor a service: transfer syntaxes, coding schemes, well-known
/// instances, application contexts, frames of reference. Storage classes lie below 1.2.840.10008.5.1.
fn is_other_registration(uid: &str) -> bool {
    uid.strip_prefix("1.2.840.10008.").is_some_and(|rest| !rest.starts_with("5.1."))
}

/// Every storage class of PS3.6 table A-1, retired ones included, by UID.
pub static STORAGE_CLASSES: &[SopClass] = &[
    row("1.2.840.10008.5.1.1.27", "Stored Print Storage SOP Class", true),
    row("1.2.840.10008.5.1.1.29", "Hardcopy Grayscale Image Storage SOP Class", true),
    row("1.2.840.10008.5.1.1.30", "Hardcopy Color Image Storage SOP Class", true),
    row("1.2.840.10008.5.1.4.1.1.1", "Computed Radiography Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.1.1", "Digital X-Ray Image Storage - For Presentation", false),
    row("1.2.840.10008.5.1.4.1.1.1.1.1", "Digital X-Ray Image Storage - For Processing", false),
    row("1.2.840.10008.5.1.4.1.1.1.2", "Digital Mammography X-Ray Image Storage - For Presentation", false),
    row("1.2.840.10008.5.1.4.1.1.1.2.1", "Digital Mammography X-Ray Image Storage - For Processing", false),
    row("1.2.840.10008.5.1.4.1.1.1.3", "Digital Intra-Oral X-Ray Image Storage - For Presentation", false),
    row("1.2.840.10008.5.1.4.1.1.1.3.1", "Digital Intra-Oral X-Ray Image Storage - For Processing", false),
    row("1.2.840.10008.5.1.4.1.1.2", "CT Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.2.1", "Enhanced CT Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.2.2", "Legacy Converted Enhanced CT Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.2.3", "CT Image Storage - For Processing", false),
    row("1.2.840.10008.5.1.4.1.1.2.4", "Enhanced CT Image Storage - For Processing", false),
    row("1.2.840.10008.5.1.4.1.1.2.5", "Legacy Converted Enhanced CT Image Storage - For Processing", false),
    row("1.2.840.10008.5.1.4.1.1.3", "Ultrasound Multi-frame Image Storage", true),
    row("1.2.840.10008.5.1.4.1.1.3.1", "Ultrasound Multi-frame Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.4", "MR Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.4.1", "Enhanced MR Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.4.2", "MR Spectroscopy Storage", false),
    row("1.2.840.10008.5.1.4.1.1.4.3", "Enhanced MR Color Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.4.4", "Legacy Converted Enhanced MR Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.5", "Nuclear Medicine Image Storage", true),
    row("1.2.840.10008.5.1.4.1.1.6", "Ultrasound Image Storage", true),
    row("1.2.840.10008.5.1.4.1.1.6.1", "Ultrasound Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.6.2", "Enhanced US Volume Storage", false),
    row("1.2.840.10008.5.1.4.1.1.6.3", "Photoacoustic Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.7", "Secondary Capture Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.7.1", "Multi-frame Single Bit Secondary Capture Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.7.2", "Multi-frame Grayscale Byte Secondary Capture Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.7.3", "Multi-frame Grayscale Word Secondary Capture Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.7.4", "Multi-frame True Color Secondary Capture Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.8", "Standalone Overlay Storage", true),
    row("1.2.840.10008.5.1.4.1.1.9", "Standalone Curve Storage", true),
    row("1.2.840.10008.5.1.4.1.1.9.1", "Waveform Storage - Trial", true),
    row("1.2.840.10008.5.1.4.1.1.9.1.1", "12-lead ECG Waveform Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.1.2", "General ECG Waveform Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.1.3", "Ambulatory ECG Waveform Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.1.4", "General 32-bit ECG Waveform Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.2.1", "Hemodynamic Waveform Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.3.1", "Cardiac Electrophysiology Waveform Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.4.1", "Basic Voice Audio Waveform Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.4.2", "General Audio Waveform Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.5.1", "Arterial Pulse Waveform Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.6.1", "Respiratory Waveform Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.6.2", "Multi-channel Respiratory Waveform Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.7.1", "Routine Scalp Electroencephalogram Waveform Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.7.2", "Electromyogram Waveform Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.7.3", "Electrooculogram Waveform Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.7.4", "Sleep Electroencephalogram Waveform Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.8.1", "Body Position Waveform Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.100.1", "Waveform Presentation State Storage", false),
    row("1.2.840.10008.5.1.4.1.1.9.100.2", "Waveform Acquisition Presentation State Storage", false),
    row("1.2.840.10008.5.1.4.1.1.10", "Standalone Modality LUT Storage", true),
    row("1.2.840.10008.5.1.4.1.1.11", "Standalone VOI LUT Storage", true),
    row("1.2.840.10008.5.1.4.1.1.11.1", "Grayscale Softcopy Presentation State Storage", false),
    row("1.2.840.10008.5.1.4.1.1.11.2", "Color Softcopy Presentation State Storage", false),
    row("1.2.840.10008.5.1.4.1.1.11.3", "Pseudo-Color Softcopy Presentation State Storage", false),
    row("1.2.840.10008.5.1.4.1.1.11.4", "Blending Softcopy Presentation State Storage", false),
    row("1.2.840.10008.5.1.4.1.1.11.5", "XA/XRF Grayscale Softcopy Presentation State Storage", false),
    row("1.2.840.10008.5.1.4.1.1.11.6", "Grayscale Planar MPR Volumetric Presentation State Storage", false),
    row("1.2.840.10008.5.1.4.1.1.11.7", "Compositing Planar MPR Volumetric Presentation State Storage", false),
    row("1.2.840.10008.5.1.4.1.1.11.8", "Advanced Blending Presentation State Storage", false),
    row("1.2.840.10008.5.1.4.1.1.11.9", "Volume Rendering Volumetric Presentation State Storage", false),
    row("1.2.840.10008.5.1.4.1.1.11.10", "Segmented Volume Rendering Volumetric Presentation State Storage", false),
    row("1.2.840.10008.5.1.4.1.1.11.11", "Multiple Volume Rendering Volumetric Presentation State Storage", false),
    row("1.2.840.10008.5.1.4.1.1.11.12", "Variable Modality LUT Softcopy Presentation State Storage", false),
    row("1.2.840.10008.5.1.4.1.1.12.1", "X-Ray Angiographic Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.12.1.1", "Enhanced XA Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.12.2", "X-Ray Radiofluoroscopic Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.12.2.1", "Enhanced XRF Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.12.3", "X-Ray Angiographic Bi-Plane Image Storage", true),
    row("1.2.840.10008.5.1.4.1.1.13.1.1", "X-Ray 3D Angiographic Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.13.1.2", "X-Ray 3D Craniofacial Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.13.1.3", "Breast Tomosynthesis Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.13.1.4", "Breast Projection X-Ray Image Storage - For Presentation", false),
    row("1.2.840.10008.5.1.4.1.1.13.1.5", "Breast Projection X-Ray Image Storage - For Processing", false),
    row(
        "1.2.840.10008.5.1.4.1.1.14.1",
        "Intravascular Optical Coherence Tomography Image Storage - For Presentation",
        false,
    ),
    row(
        "1.2.840.10008.5.1.4.1.1.14.2",
        "Intravascular Optical Coherence Tomography Image Storage - For Processing",
        false,
    ),
    row("1.2.840.10008.5.1.4.1.1.20", "Nuclear Medicine Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.30", "Parametric Map Storage", false),
    row("1.2.840.10008.5.1.4.1.1.66", "Raw Data Storage", false),
    row("1.2.840.10008.5.1.4.1.1.66.1", "Spatial Registration Storage", false),
    row("1.2.840.10008.5.1.4.1.1.66.2", "Spatial Fiducials Storage", false),
    row("1.2.840.10008.5.1.4.1.1.66.3", "Deformable Spatial Registration Storage", false),
    row("1.2.840.10008.5.1.4.1.1.66.4", "Segmentation Storage", false),
    row("1.2.840.10008.5.1.4.1.1.66.5", "Surface Segmentation Storage", false),
    row("1.2.840.10008.5.1.4.1.1.66.6", "Tractography Results Storage", false),
    row("1.2.840.10008.5.1.4.1.1.66.7", "Label Map Segmentation Storage", false),
    row("1.2.840.10008.5.1.4.1.1.66.8", "Height Map Segmentation Storage", false),
    row("1.2.840.10008.5.1.4.1.1.67", "Real World Value Mapping Storage", false),
    row("1.2.840.10008.5.1.4.1.1.68.1", "Surface Scan Mesh Storage", false),
    row("1.2.840.10008.5.1.4.1.1.68.2", "Surface Scan Point Cloud Storage", false),
    row("1.2.840.10008.5.1.4.1.1.77.1", "VL Image Storage - Trial", true),
    row("1.2.840.10008.5.1.4.1.1.77.1.1", "VL Endoscopic Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.77.1.1.1", "Video Endoscopic Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.77.1.2", "VL Microscopic Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.77.1.2.1", "Video Microscopic Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.77.1.3", "VL Slide-Coordinates Microscopic Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.77.1.4", "VL Photographic Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.77.1.4.1", "Video Photographic Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.77.1.5.1", "Ophthalmic Photography 8 Bit Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.77.1.5.2", "Ophthalmic Photography 16 Bit Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.77.1.5.3", "Stereometric Relationship Storage", false),
    row("1.2.840.10008.5.1.4.1.1.77.1.5.4", "Ophthalmic Tomography Image Storage", false),
    row(
        "1.2.840.10008.5.1.4.1.1.77.1.5.5",
        "Wide Field Ophthalmic Photography Stereographic Projection Image Storage",
        false,
    ),
    row("1.2.840.10008.5.1.4.1.1.77.1.5.6", "Wide Field Ophthalmic Photography 3D Coordinates Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.77.1.5.7", "Ophthalmic Optical Coherence Tomography En Face Image Storage", false),
    row(
        "1.2.840.10008.5.1.4.1.1.77.1.5.8",
        "Ophthalmic Optical Coherence Tomography B-scan Volume Analysis Storage",
        false,
    ),
    row("1.2.840.10008.5.1.4.1.1.77.1.6", "VL Whole Slide Microscopy Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.77.1.7", "Dermoscopic Photography Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.77.1.8", "Confocal Microscopy Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.77.1.9", "Confocal Microscopy Tiled Pyramidal Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.77.2", "VL Multi-frame Image Storage - Trial", true),
    row("1.2.840.10008.5.1.4.1.1.78.1", "Lensometry Measurements Storage", false),
    row("1.2.840.10008.5.1.4.1.1.78.2", "Autorefraction Measurements Storage", false),
    row("1.2.840.10008.5.1.4.1.1.78.3", "Keratometry Measurements Storage", false),
    row("1.2.840.10008.5.1.4.1.1.78.4", "Subjective Refraction Measurements Storage", false),
    row("1.2.840.10008.5.1.4.1.1.78.5", "Visual Acuity Measurements Storage", false),
    row("1.2.840.10008.5.1.4.1.1.78.6", "Spectacle Prescription Report Storage", false),
    row("1.2.840.10008.5.1.4.1.1.78.7", "Ophthalmic Axial Measurements Storage", false),
    row("1.2.840.10008.5.1.4.1.1.78.8", "Intraocular Lens Calculations Storage", false),
    row("1.2.840.10008.5.1.4.1.1.79.1", "Macular Grid Thickness and Volume Report Storage", false),
    row("1.2.840.10008.5.1.4.1.1.80.1", "Ophthalmic Visual Field Static Perimetry Measurements Storage", false),
    row("1.2.840.10008.5.1.4.1.1.81.1", "Ophthalmic Thickness Map Storage", false),
    row("1.2.840.10008.5.1.4.1.1.82.1", "Corneal Topography Map Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.1", "Text SR Storage - Trial", true),
    row("1.2.840.10008.5.1.4.1.1.88.2", "Audio SR Storage - Trial", true),
    row("1.2.840.10008.5.1.4.1.1.88.3", "Detail SR Storage - Trial", true),
    row("1.2.840.10008.5.1.4.1.1.88.4", "Comprehensive SR Storage - Trial", true),
    row("1.2.840.10008.5.1.4.1.1.88.11", "Basic Text SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.22", "Enhanced SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.33", "Comprehensive SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.34", "Comprehensive 3D SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.35", "Extensible SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.40", "Procedure Log Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.50", "Mammography CAD SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.59", "Key Object Selection Document Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.65", "Chest CAD SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.67", "X-Ray Radiation Dose SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.68", "Radiopharmaceutical Radiation Dose SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.69", "Colon CAD SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.70", "Implantation Plan SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.71", "Acquisition Context SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.72", "Simplified Adult Echo SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.73", "Patient Radiation Dose SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.74", "Planned Imaging Agent Administration SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.75", "Performed Imaging Agent Administration SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.76", "Enhanced X-Ray Radiation Dose SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.88.77", "Waveform Annotation SR Storage", false),
    row("1.2.840.10008.5.1.4.1.1.90.1", "Content Assessment Results Storage", false),
    row("1.2.840.10008.5.1.4.1.1.91.1", "Microscopy Bulk Simple Annotations Storage", false),
    row("1.2.840.10008.5.1.4.1.1.104.1", "Encapsulated PDF Storage", false),
    row("1.2.840.10008.5.1.4.1.1.104.2", "Encapsulated CDA Storage", false),
    row("1.2.840.10008.5.1.4.1.1.104.3", "Encapsulated STL Storage", false),
    row("1.2.840.10008.5.1.4.1.1.104.4", "Encapsulated OBJ Storage", false),
    row("1.2.840.10008.5.1.4.1.1.104.5", "Encapsulated MTL Storage", false),
    row("1.2.840.10008.5.1.4.1.1.128", "Positron Emission Tomography Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.128.1", "Legacy Converted Enhanced PET Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.129", "Standalone PET Curve Storage", true),
    row("1.2.840.10008.5.1.4.1.1.130", "Enhanced PET Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.131", "Basic Structured Display Storage", false),
    row("1.2.840.10008.5.1.4.1.1.200.1", "CT Defined Procedure Protocol Storage", false),
    row("1.2.840.10008.5.1.4.1.1.200.2", "CT Performed Procedure Protocol Storage", false),
    row("1.2.840.10008.5.1.4.1.1.200.3", "Protocol Approval Storage", false),
    row("1.2.840.10008.5.1.4.1.1.200.7", "XA Defined Procedure Protocol Storage", false),
    row("1.2.840.10008.5.1.4.1.1.200.8", "XA Performed Procedure Protocol Storage", false),
    row("1.2.840.10008.5.1.4.1.1.201.1", "Inventory Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.1", "RT Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.2", "RT Dose Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.3", "RT Structure Set Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.4", "RT Beams Treatment Record Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.5", "RT Plan Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.6", "RT Brachy Treatment Record Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.7", "RT Treatment Summary Record Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.8", "RT Ion Plan Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.9", "RT Ion Beams Treatment Record Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.10", "RT Physician Intent Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.11", "RT Segment Annotation Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.12", "RT Radiation Set Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.13", "C-Arm Photon-Electron Radiation Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.14", "Tomotherapeutic Radiation Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.15", "Robotic-Arm Radiation Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.16", "RT Radiation Record Set Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.17", "RT Radiation Salvage Record Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.18", "Tomotherapeutic Radiation Record Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.19", "C-Arm Photon-Electron Radiation Record Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.20", "Robotic Radiation Record Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.21", "RT Radiation Set Delivery Instruction Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.22", "RT Treatment Preparation Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.23", "Enhanced RT Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.24", "Enhanced Continuous RT Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.481.25", "RT Patient Position Acquisition Instruction Storage", false),
    row("1.2.840.10008.5.1.4.1.1.501.1", "DICOS CT Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.501.2.1", "DICOS Digital X-Ray Image Storage - For Presentation", false),
    row("1.2.840.10008.5.1.4.1.1.501.2.2", "DICOS Digital X-Ray Image Storage - For Processing", false),
    row("1.2.840.10008.5.1.4.1.1.501.3", "DICOS Threat Detection Report Storage", false),
    row("1.2.840.10008.5.1.4.1.1.501.4", "DICOS 2D AIT Storage", false),
    row("1.2.840.10008.5.1.4.1.1.501.5", "DICOS 3D AIT Storage", false),
    row("1.2.840.10008.5.1.4.1.1.501.6", "DICOS Quadrupole Resonance (QR) Storage", false),
    row("1.2.840.10008.5.1.4.1.1.601.1", "Eddy Current Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.601.2", "Eddy Current Multi-frame Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.601.3", "Thermography Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.601.4", "Thermography Multi-frame Image Storage", false),
    row("1.2.840.10008.5.1.4.1.1.601.5", "Ultrasound Waveform Storage", false),
    row("1.2.840.10008.5.1.4.34.1", "RT Beams Delivery Instruction Storage - Trial", true),
    row("1.2.840.10008.5.1.4.34.7", "RT Beams Delivery Instruction Storage", false),
    row("1.2.840.10008.5.1.4.34.10", "RT Brachy Application Setup Delivery Instruction Storage", false),
    row("1.2.840.10008.5.1.4.38.1", "Hanging Protocol Storage", false),
    row("1.2.840.10008.5.1.4.39.1", "Color Palette Storage", false),
    row("1.2.840.10008.5.1.4.43.1", "Generic Implant Template Storage", false),
    row("1.2.840.10008.5.1.4.44.1", "Implant Assembly Template Storage", false),
    row("1.2.840.10008.5.1.4.45.1", "Implant Template Group Storage", false),
];

/// Every class of PS3.6 table A-1 that is a service, or a group of services: UID and name.
pub static SERVICES: &[(&str, &str)] = &[
    ("1.2.840.10008.5.1.4.1.1.201.6", "Repository Query"),
    ("1.2.840.10008.5.1.4.1.1.201.5", "Inventory Creation"),
    ("1.2.840.10008.5.1.4.1.1.201.4", "Inventory - GET"),
    ("1.2.840.10008.5.1.4.1.1.201.3", "Inventory - MOVE"),
    ("1.2.840.10008.5.1.4.1.1.201.2", "Inventory - FIND"),
    ("1.2.840.10008.5.1.4.1.1.200.6", "Protocol Approval Information Model - GET"),
    ("1.2.840.10008.5.1.4.1.1.200.5", "Protocol Approval Information Model - MOVE"),
    ("1.2.840.10008.5.1.4.1.1.200.4", "Protocol Approval Information Model - FIND"),
    ("1.2.840.10008.1.1", "Verification SOP Class"),
    ("1.2.840.10008.1.3.10", "Media Storage Directory Storage"),
    ("1.2.840.10008.1.9", "Basic Study Content Notification SOP Class"),
    ("1.2.840.10008.1.20.1", "Storage Commitment Push Model SOP Class"),
    ("1.2.840.10008.1.20.2", "Storage Commitment Pull Model SOP Class"),
    ("1.2.840.10008.1.40", "Procedural Event Logging SOP Class"),
    ("1.2.840.10008.1.42", "Substance Administration Logging SOP Class"),
    ("1.2.840.10008.3.1.2.1.1", "Detached Patient Management SOP Class"),
    ("1.2.840.10008.3.1.2.1.4", "Detached Patient Management Meta SOP Class"),
    ("1.2.840.10008.3.1.2.2.1", "Detached Visit Management SOP Class"),
    ("1.2.840.10008.3.1.2.3.1", "Detached Study Management SOP Class"),
    ("1.2.840.10008.3.1.2.3.2", "Study Component Management SOP Class"),
    ("1.2.840.10008.3.1.2.3.3", "Modality Performed Procedure Step SOP Class"),
    ("1.2.840.10008.3.1.2.3.4", "Modality Performed Procedure Step Retrieve SOP Class"),
    ("1.2.840.10008.3.1.2.3.5", "Modality Performed Procedure Step Notification SOP Class"),
    ("1.2.840.10008.3.1.2.5.1", "Detached Results Management SOP Class"),
    ("1.2.840.10008.3.1.2.5.4", "Detached Results Management Meta SOP Class"),
    ("1.2.840.10008.3.1.2.5.5", "Detached Study Management Meta SOP Class"),
    ("1.2.840.10008.3.1.2.6.1", "Detached Interpretation Management SOP Class"),
    ("1.2.840.10008.5.1.1.1", "Basic Film Session SOP Class"),
    ("1.2.840.10008.5.1.1.2", "Basic Film Box SOP Class"),
    ("1.2.840.10008.5.1.1.4", "Basic Grayscale Image Box SOP Class"),
    ("1.2.840.10008.5.1.1.4.1", "Basic Color Image Box SOP Class"),
    ("1.2.840.10008.5.1.1.4.2", "Referenced Image Box SOP Class"),
    ("1.2.840.10008.5.1.1.9", "Basic Grayscale Print Management Meta SOP Class"),
    ("1.2.840.10008.5.1.1.9.1", "Referenced Grayscale Print Management Meta SOP Class"),
    ("1.2.840.10008.5.1.1.14", "Print Job SOP Class"),
    ("1.2.840.10008.5.1.1.15", "Basic Annotation Box SOP Class"),
    ("1.2.840.10008.5.1.1.16", "Printer SOP Class"),
    ("1.2.840.10008.5.1.1.16.376", "Printer Configuration Retrieval SOP Class"),
    ("1.2.840.10008.5.1.1.18", "Basic Color Print Management Meta SOP Class"),
    ("1.2.840.10008.5.1.1.18.1", "Referenced Color Print Management Meta SOP Class"),
    ("1.2.840.10008.5.1.1.22", "VOI LUT Box SOP Class"),
    ("1.2.840.10008.5.1.1.23", "Presentation LUT SOP Class"),
    ("1.2.840.10008.5.1.1.24", "Image Overlay Box SOP Class"),
    ("1.2.840.10008.5.1.1.24.1", "Basic Print Image Overlay Box SOP Class"),
    ("1.2.840.10008.5.1.1.26", "Print Queue Management SOP Class"),
    ("1.2.840.10008.5.1.1.31", "Pull Print Request SOP Class"),
    ("1.2.840.10008.5.1.1.32", "Pull Stored Print Management Meta SOP Class"),
    ("1.2.840.10008.5.1.1.33", "Media Creation Management SOP Class UID"),
    ("1.2.840.10008.5.1.1.40", "Display System SOP Class"),
    ("1.2.840.10008.5.1.4.1.2.1.1", "Patient Root Query/Retrieve Information Model - FIND"),
    ("1.2.840.10008.5.1.4.1.2.1.2", "Patient Root Query/Retrieve Information Model - MOVE"),
    ("1.2.840.10008.5.1.4.1.2.1.3", "Patient Root Query/Retrieve Information Model - GET"),
    ("1.2.840.10008.5.1.4.1.2.2.1", "Study Root Query/Retrieve Information Model - FIND"),
    ("1.2.840.10008.5.1.4.1.2.2.2", "Study Root Query/Retrieve Information Model - MOVE"),
    ("1.2.840.10008.5.1.4.1.2.2.3", "Study Root Query/Retrieve Information Model - GET"),
    ("1.2.840.10008.5.1.4.1.2.3.1", "Patient/Study Only Query/Retrieve Information Model - FIND"),
    ("1.2.840.10008.5.1.4.1.2.3.2", "Patient/Study Only Query/Retrieve Information Model - MOVE"),
    ("1.2.840.10008.5.1.4.1.2.3.3", "Patient/Study Only Query/Retrieve Information Model - GET"),
    ("1.2.840.10008.5.1.4.1.2.4.2", "Composite Instance Root Retrieve - MOVE"),
    ("1.2.840.10008.5.1.4.1.2.4.3", "Composite Instance Root Retrieve - GET"),
    ("1.2.840.10008.5.1.4.1.2.5.3", "Composite Instance Retrieve Without Bulk Data - GET"),
    ("1.2.840.10008.5.1.4.20.1", "Defined Procedure Protocol Information Model - FIND"),
    ("1.2.840.10008.5.1.4.20.2", "Defined Procedure Protocol Information Model - MOVE"),
    ("1.2.840.10008.5.1.4.20.3", "Defined Procedure Protocol Information Model - GET"),
    ("1.2.840.10008.5.1.4.31", "Modality Worklist Information Model - FIND"),
    ("1.2.840.10008.5.1.4.32", "General Purpose Worklist Management Meta SOP Class"),
    ("1.2.840.10008.5.1.4.32.1", "General Purpose Worklist Information Model - FIND"),
    ("1.2.840.10008.5.1.4.32.2", "General Purpose Scheduled Procedure Step SOP Class"),
    ("1.2.840.10008.5.1.4.32.3", "General Purpose Performed Procedure Step SOP Class"),
    ("1.2.840.10008.5.1.4.33", "Instance Availability Notification SOP Class"),
    ("1.2.840.10008.5.1.4.34.2", "RT Conventional Machine Verification - Trial"),
    ("1.2.840.10008.5.1.4.34.3", "RT Ion Machine Verification - Trial"),
    ("1.2.840.10008.5.1.4.34.4.1", "Unified Procedure Step - Push SOP Class - Trial"),
    ("1.2.840.10008.5.1.4.34.4.2", "Unified Procedure Step - Watch SOP Class - Trial"),
    ("1.2.840.10008.5.1.4.34.4.3", "Unified Procedure Step - Pull SOP Class - Trial"),
    ("1.2.840.10008.5.1.4.34.4.4", "Unified Procedure Step - Event SOP Class - Trial"),
    ("1.2.840.10008.5.1.4.34.6.1", "Unified Procedure Step - Push SOP Class"),
    ("1.2.840.10008.5.1.4.34.6.2", "Unified Procedure Step - Watch SOP Class"),
    ("1.2.840.10008.5.1.4.34.6.3", "Unified Procedure Step - Pull SOP Class"),
    ("1.2.840.10008.5.1.4.34.6.4", "Unified Procedure Step - Event SOP Class"),
    ("1.2.840.10008.5.1.4.34.6.5", "Unified Procedure Step - Query SOP Class"),
    ("1.2.840.10008.5.1.4.34.8", "RT Conventional Machine Verification"),
    ("1.2.840.10008.5.1.4.34.9", "RT Ion Machine Verification"),
    ("1.2.840.10008.5.1.4.37.1", "General Relevant Patient Information Query"),
    ("1.2.840.10008.5.1.4.37.2", "Breast Imaging Relevant Patient Information Query"),
    ("1.2.840.10008.5.1.4.37.3", "Cardiac Relevant Patient Information Query"),
    ("1.2.840.10008.5.1.4.38.2", "Hanging Protocol Information Model - FIND"),
    ("1.2.840.10008.5.1.4.38.3", "Hanging Protocol Information Model - MOVE"),
    ("1.2.840.10008.5.1.4.38.4", "Hanging Protocol Information Model - GET"),
    ("1.2.840.10008.5.1.4.39.2", "Color Palette Query/Retrieve Information Model - FIND"),
    ("1.2.840.10008.5.1.4.39.3", "Color Palette Query/Retrieve Information Model - MOVE"),
    ("1.2.840.10008.5.1.4.39.4", "Color Palette Query/Retrieve Information Model - GET"),
    ("1.2.840.10008.5.1.4.41", "Product Characteristics Query SOP Class"),
    ("1.2.840.10008.5.1.4.42", "Substance Approval Query SOP Class"),
    ("1.2.840.10008.5.1.4.43.2", "Generic Implant Template Information Model - FIND"),
    ("1.2.840.10008.5.1.4.43.3", "Generic Implant Template Information Model - MOVE"),
    ("1.2.840.10008.5.1.4.43.4", "Generic Implant Template Information Model - GET"),
    ("1.2.840.10008.5.1.4.44.2", "Implant Assembly Template Information Model - FIND"),
    ("1.2.840.10008.5.1.4.44.3", "Implant Assembly Template Information Model - MOVE"),
    ("1.2.840.10008.5.1.4.44.4", "Implant Assembly Template Information Model - GET"),
    ("1.2.840.10008.5.1.4.45.2", "Implant Template Group Information Model - FIND"),
    ("1.2.840.10008.5.1.4.45.3", "Implant Template Group Information Model - MOVE"),
    ("1.2.840.10008.5.1.4.45.4", "Implant Template Group Information Model - GET"),
    ("1.2.840.10008.10.1", "Video Endoscopic Image Real-Time Communication"),
    ("1.2.840.10008.10.2", "Video Photographic Image Real-Time Communication"),
    ("1.2.840.10008.10.3", "Audio Waveform Real-Time Communication"),
    ("1.2.840.10008.10.4", "Rendition Selection Document Real-Time Communication"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_dictionary_std::uids;

    #[test]
    fn images_reports_and_plans_are_storage_and_services_are_not() {
        for uid in [uids::CT_IMAGE_STORAGE, uids::BASIC_TEXT_SR_STORAGE, uids::RT_PLAN_STORAGE, uids::RAW_DATA_STORAGE]
        {
            assert!(is_storage(uid) && may_be_storage(uid), "{uid}");
        }
        for uid in [VERIFICATION, STUDY_ROOT_FIND, PATIENT_ROOT_MOVE, "1.2.840.10008.1.20.1", "no uid", ""] {
            assert!(!is_storage(uid) && !may_be_storage(uid), "{uid}");
        }
        assert!(!may_be_storage("1.2.840.10008.1.20.1.1"));
        assert!(!may_be_storage("1.2.840.10008.1.2.4.50"));
    }

    #[test]
    fn a_private_class_and_one_of_a_later_edition_may_be_stored() {
        assert!(!is_storage("1.2.840.113619.4.27") && may_be_storage("1.2.840.113619.4.27"));
        assert!(may_be_storage("1.2.840.10008.5.1.4.1.1.999.1"));
    }

    #[test]
    fn each_class_has_one_row() {
        let mut seen = std::collections::HashSet::new();
        for uid in STORAGE_CLASSES.iter().map(|class| class.uid).chain(SERVICES.iter().map(|(uid, _)| *uid)) {
            assert!(seen.insert(uid), "{uid} twice");
            assert!(crate::Uid::parse(uid).is_ok(), "{uid}");
        }
    }
}
