"""Compressed images for tests: how they are sent under UIDs of their own, fetched in another syntax, and compared."""
import copy
import warnings
from pathlib import Path

import numpy
import pydicom
from pydicom.data import get_testdata_files
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.pixels import pixel_array
from pydicom.uid import UID, generate_uid
from pynetdicom import evt
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as GET
from test_store import store

ROOT = "1.2.840.10008.1.2"
IMPLICIT, EXPLICIT, BIG = ROOT, ROOT + ".1", ROOT + ".2"
PLAIN = {"explicit": EXPLICIT, "implicit": IMPLICIT, "big": BIG}
OF_FRAGMENTS = (0x7FE00001, 0x7FE00002, 0x7FE00003)
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


class Image:
    """An instance to be sent: what `test_store.store` needs, and its data set."""

    def __init__(self, data_set, syntax, name, study=None):
        self.header, self.syntax, self.name = data_set, syntax, name
        object.__setattr__(data_set, "named", name)
        data_set.SOPInstanceUID, data_set.SeriesInstanceUID = generate_uid(), generate_uid()
        data_set.StudyInstanceUID = study or generate_uid()
        data_set.SOPClassUID = data_set.get("SOPClassUID") or SECONDARY_CAPTURE
        data_set.file_meta = pydicom.dataset.FileMetaDataset()
        data_set.file_meta.TransferSyntaxUID = UID(syntax)
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        plain = copy.copy(data_set)
        write_dataset(buffer, plain)
        self.bytes = buffer.getvalue()

    def __repr__(self):
        return self.name

    def send(self, server):
        assert store(server, self) == 0x0000


def compressed_files():
    """Every file with compressed pixel data that pydicom has here."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(get_testdata_files("*.dcm")):
            try:
                data_set = pydicom.dcmread(path)
                syntax = data_set.file_meta.TransferSyntaxUID
                # SC_rgb_jpeg.dcm is not what it declares: pydicom cannot write it again.
                usable = "dicomdirtests" not in path and Path(path).name != "SC_rgb_jpeg.dcm"
                if usable and syntax.is_compressed and "PixelData" in data_set:
                    found.append(Path(path))
            except Exception:  # no meta group, or no DICOM at all
                continue
    return found


def image_of(path):
    data_set = pydicom.dcmread(path)
    # What is UN stays little endian in any encoding (PS3.5 §6.2.2); pydicom would read it as if it were big endian.
    unknown = [tag for tag in data_set.keys() if data_set.get_item(tag).VR == "UN"]
    object.__setattr__(data_set, "unknown", unknown)
    return Image(data_set, str(data_set.file_meta.TransferSyntaxUID), path.name)


def made(array, syntax, frames, photometric="MONOCHROME2", stored=None, signed=False, study=None, **more):
    """A secondary capture of these coded frames; `array` is what one of them shows."""
    data_set = pydicom.Dataset()
    data_set.PatientID, data_set.Modality = "CODED", "OT"
    data_set.Rows, data_set.Columns = array.shape[:2]
    data_set.SamplesPerPixel = array.shape[2] if array.ndim == 3 else 1
    if data_set.SamplesPerPixel > 1:
        data_set.PlanarConfiguration = 0
    data_set.BitsAllocated = array.itemsize * 8
    data_set.BitsStored = stored or data_set.BitsAllocated
    data_set.HighBit = data_set.BitsStored - 1
    data_set.PixelRepresentation = int(signed)
    data_set.PhotometricInterpretation = photometric
    if len(frames) > 1:
        data_set.NumberOfFrames = len(frames)
    for keyword, value in more.items():
        setattr(data_set, keyword, value)
    data_set.PixelData = encapsulate(list(frames))
    data_set["PixelData"].VR = "OB"
    data_set["PixelData"].is_undefined_length = True
    return Image(data_set, syntax, f"{syntax[len(ROOT):]} {photometric}", study)


def rle(array):
    """A frame of RLE Lossless, by pydicom."""
    from pydicom.pixels.encoders.native import _encode_frame

    samples = array.shape[2] if array.ndim == 3 else 1

    class Runner:
        rows, columns, samples_per_pixel, bits_allocated = array.shape[0], array.shape[1], samples, array.itemsize * 8

        @staticmethod
        def get_option(name, default=None):
            return "<" if name == "byteorder" else default

    return bytes(_encode_frame(array.tobytes(), Runner))


def c_get(server, image, syntaxes, level="IMAGE", classes=None):
    """The final response, and the data sets that came, each with its meta group."""
    received, roles = [], []

    def take(event):
        data_set = event.dataset
        data_set.file_meta = event.file_meta
        received.append((data_set, event.request.DataSet.getvalue()))
        return 0x0000

    contexts = [(GET, [EXPLICIT])]
    for class_uid in classes or [str(image.header.SOPClassUID)]:
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = class_uid, False, True
        roles.append(role)
        contexts += [(class_uid, [syntax]) for syntax in syntaxes]
    association = server.associate(contexts, roles=roles, handlers=[(evt.EVT_C_STORE, take)])
    wanted = pydicom.Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = level, image.header.StudyInstanceUID
    if level == "IMAGE":
        wanted.SeriesInstanceUID, wanted.SOPInstanceUID = image.header.SeriesInstanceUID, image.header.SOPInstanceUID
    final = list(association.send_c_get(wanted, GET))[-1][0]
    if association.is_established:
        association.release()
    return final, received


def samples(data_set):
    """The pixels of a native data set as numbers, colours as they stand."""
    return pixel_array(data_set, raw=True)


def difference(one, other):
    assert one.shape == other.shape, f"{one.shape} {other.shape}"
    return int(numpy.abs(one.astype("int64") - other.astype("int64")).max())


def values(data_set, without=(), big=False):
    """Every element as text but these and the group lengths; `big`: the words are in big endian, as pydicom leaves them."""
    found = {}
    for element in data_set:
        if element.tag.element == 0 or element.tag in without:
            continue
        value = element.value
        if big and element.VR == "OW" and value:
            value = bytes(value[at ^ 1] for at in range(len(value)))
        found[element.tag] = [values(item, big=big) for item in value] if element.VR == "SQ" else str(value)
    return found


PIXELS = [pydicom.tag.Tag(name) for name in ("PixelData", "PhotometricInterpretation", "PlanarConfiguration")]


def check_native(got, stored, syntax):
    """The attributes of an image that was decoded: those of its pixels follow, all others stay."""
    assert got.file_meta.TransferSyntaxUID == syntax
    colour = got.SamplesPerPixel > 1
    expected = {"YBR_FULL_422": "RGB", "YBR_RCT": "RGB", "YBR_ICT": "RGB", "XYB": "RGB"}
    became = expected.get(stored.PhotometricInterpretation, stored.PhotometricInterpretation)
    if stored.file_meta.TransferSyntaxUID in (ROOT + ".4.50", ROOT + ".4.51") and colour:
        became = "RGB"
    assert got.PhotometricInterpretation == became
    assert got.get("PlanarConfiguration") == (0 if colour else None)
    assert not any(tag in got for tag in OF_FRAGMENTS)
    element = got["PixelData"]
    assert not element.is_undefined_length
    frames = int(got.get("NumberOfFrames", 1) or 1)
    native = got.Rows * got.Columns * got.SamplesPerPixel * got.BitsAllocated // 8 * frames
    assert len(element.value) == native + native % 2
    if syntax != IMPLICIT:
        assert element.VR == ("OB" if got.BitsAllocated <= 8 else "OW")
    without = [*PIXELS, *(pydicom.tag.Tag(tag) for tag in OF_FRAGMENTS)]
    if syntax == BIG:
        without += getattr(stored, "unknown", [])
    if syntax != IMPLICIT:  # private VRs cannot be told there
        assert values(got, without, syntax == BIG) == values(stored, without)
    for keyword in ("SOPInstanceUID", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        assert got.get(keyword) == stored.get(keyword)

