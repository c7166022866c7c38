"""The real files of `tests/samples/fetch`: what of each is sent, and how two encodings of it are compared.

    preamble 128, "DICM", group 2 | data set     or, of what has no preamble: group 2 | data set, or the data set alone

Values are compared as bytes, in little endian: what pydicom makes of them (texts, numbers) could hide a difference.
"""
import hashlib
import warnings
from io import BytesIO
from pathlib import Path

import numpy
import pydicom
from coded import BIG, EXPLICIT, IMPLICIT
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_sequence
from pydicom.pixels import pixel_array
from pydicom.uid import UID
from triptych import ROOT

SAMPLES = ROOT / "target/samples"
LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
# Bytes of one number of a value.
WIDTHS = dict.fromkeys(("AT", "OW", "SS", "US"), 2)
WIDTHS |= dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4)
WIDTHS |= dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8)


def start_of_data_set(file):
    """Behind the meta group, whose length is not believed: some files have none, or a wrong one."""
    at = 132 if file[128:132] == b"DICM" else 0
    while file[at : at + 2] == b"\x02\0":
        vr = file[at + 4 : at + 6]
        head, length = (12, file[at + 8 : at + 12]) if vr in LONG else (8, file[at + 6 : at + 8])
        at += head + int.from_bytes(length, "little")
    return at


class Real:
    """A file; `name` is unique among them."""

    def __init__(self, path, file):
        self.path, self.name = path, f"{path.relative_to(SAMPLES).parts[0]}/{path.name}"
        self.file_bytes = len(file)
        start = start_of_data_set(file)
        self.meta = {}
        try:
            meta = pydicom.filereader._read_file_meta_info(BytesIO(file[132 if file[128:132] == b"DICM" else 0 : start]))
            self.meta = {keyword: str(meta.get(keyword) or "") for keyword in meta.dir()}
        except Exception:  # a meta group that is none: the data set says what is needed
            pass
        self.syntax = self.meta.get("TransferSyntaxUID") or guessed(file[start : start + 8])
        # What a sender needs to know; whoever cannot read that much sends what a new object would have.
        self.keys = {}
        try:
            header = self.parse(stop_before_pixels=True)
            for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
                self.keys[keyword] = str(header.get(keyword) or "")
        except Exception:
            pass

    def file(self):
        return self.path.read_bytes()

    def data_set(self):
        """The bytes of the data set, as they are sent."""
        file = self.file()
        return file[start_of_data_set(file) :]

    def parse(self, **how):
        return parsed(self.data_set(), self.syntax, **how)

    def sop_class(self):
        return self.keys.get("SOPClassUID") or self.meta.get("MediaStorageSOPClassUID") or "1.2.840.10008.5.1.4.1.1.7"

    def instance(self):
        return self.keys.get("SOPInstanceUID") or self.meta.get("MediaStorageSOPInstanceUID") or "2.25.1"

    def path_of_instance(self):
        return f"/studies/{self.keys['StudyInstanceUID']}/series/{self.keys['SeriesInstanceUID']}/instances/{self.instance()}"

    def __repr__(self):
        return self.name


def guessed(start):
    """The syntax of a data set about which nothing is said."""
    if start[0] == 0 and start[1] != 0:
        return BIG
    return EXPLICIT if start[4:6].isalpha() and start[4:6].isupper() else IMPLICIT


def real_files():
    """Every file that is DICOM, or says so by its name, once for each content."""
    assert (SAMPLES / "complete").exists(), f"{SAMPLES} is missing or not whole: run tests/samples/fetch"
    found, names = {}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(path for path in SAMPLES.rglob("*") if path.is_file()):
            with open(path, "rb") as opened:
                if opened.read(132)[128:] != b"DICM" and path.suffix != ".dcm":
                    continue
            file = path.read_bytes()
            digest = hashlib.sha256(file).digest()
            if digest not in found:
                real = found[digest] = Real(path, file)
                count = names[real.name] = names.get(real.name, 0) + 1
                real.name += f"#{count}" if count > 1 else ""
    return list(found.values())


def parsed(data_set, syntax, **how):
    """What pydicom makes of a data set in this syntax."""
    syntax = UID(syntax)
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    pydicom.filewriter.write_file_meta_info(buffer, meta, enforce_standard=False)
    return pydicom.dcmread(BytesIO(bytes(128) + b"DICM" + buffer.getvalue() + data_set), **how)


def little(vr, value, big):
    width = WIDTHS.get(vr, 1) if big else 1
    return value if width == 1 else numpy.frombuffer(value[: len(value) // width * width], f">u{width}").byteswap().tobytes()


def unlike(one, other, without=(), where=""):
    """The first difference between two data sets, in whatever encodings; "" for none."""
    tags = [{tag for tag in each.keys() if tag.element != 0 and tag not in without} for each in (one, other)]
    if tags[0] != tags[1]:
        return f"{where}{sorted(tags[0] ^ tags[1])[:5]} of one alone"
    for tag in sorted(tags[0]):
        pair = [each.get_item(tag) for each in (one, other)]
        if any(is_sequence(element) for element in pair):
            items = [items_of(element, of) for element, of in zip(pair, (one, other))]
            if len(items[0]) != len(items[1]):
                return f"{where}{tag}: {len(items[0])} and {len(items[1])} items"
            for number, (first, second) in enumerate(zip(*items)):
                if found := unlike(first, second, (), f"{where}{tag}[{number}]"):
                    return found
            continue
        vr = next((element.VR for element in pair if element.VR not in (None, "UN")), None)
        values = [bytes_of(element, vr if element.VR != "UN" else "UN") for element in pair]
        if values[0] != values[1] and padded(values[0]) != padded(values[1]):
            return f"{where}{tag} {vr}: {values[0][:40]!r} and {values[1][:40]!r}"
    return ""


def padded(value):
    return value[:-1] if len(value) % 2 == 0 and value[-1:] in (b"\0", b" ") else value


def is_sequence(element):
    return element.VR == "SQ" or isinstance(element.value, pydicom.sequence.Sequence)


def items_of(element, data_set):
    if isinstance(element, RawDataElement):
        value = element.value or b""
        implicit = element.is_implicit_VR or element.VR == "UN"
        little = element.is_little_endian or element.VR == "UN"
        return read_sequence(BytesIO(value), implicit, little, len(value), data_set._character_set or "iso8859")
    return element.value or []


def bytes_of(element, vr):
    if isinstance(element, RawDataElement):
        return little(vr, element.value or b"", not element.is_little_endian)
    # Private creators, which pydicom looks up.
    value = element.value or b""
    return value if isinstance(value, bytes) else str(value).encode()


def pixels(data_set):
    """The bytes of native pixel data in little endian, of whatever kind. Words of OW are as wide as a sample (PS3.5 §8.1.1; what
    pydicom and DCMTK do with more than 16 bits)."""
    for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if keyword in data_set:
            raw = data_set.get_item(keyword)
            vr = raw.VR or "OW"
            if vr == "OW" and number_of(data_set, "BitsAllocated") == 32:
                vr = "OL"
            return little(vr, raw.value or b"", not raw.is_little_endian)
    return None


def number_of(data_set, keyword):
    """The number, without the data set's keeping anything but its bytes."""
    raw = data_set.get_item(keyword)
    if not isinstance(raw, RawDataElement):
        return raw and raw.value
    return int.from_bytes(raw.value, "little" if raw.is_little_endian else "big")


def shown(data_set, raw, plugin=""):
    """As other decoders have it; `raw`: colours as they stand."""
    return pixel_array(data_set, raw=raw, decoding_plugin=plugin)
