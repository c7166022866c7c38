"""What leaves in another encoding than it came in, as pydicom reads it."""
from io import BytesIO

import pydicom
import pytest
import requests
from conftest import SAMPLES
from test_store import store

IMPLICIT, EXPLICIT, DEFLATED, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
PLAIN = [sample for sample in SAMPLES if sample.syntax in (IMPLICIT, BIG, DEFLATED)]


def values(data_set):
    """Every element as text; group lengths are no part of the data."""
    found = {}
    for element in data_set:
        if element.tag.element == 0:
            continue
        value = [values(item) for item in element.value] if element.VR == "SQ" else str(element.value)
        found[element.tag] = value
    return found


def pixels(data_set, syntax):
    """The pixel data in little endian."""
    data = data_set.get("PixelData")
    if data is None or syntax != BIG or data_set["PixelData"].VR != "OW":
        return data
    return bytes(data[at ^ 1] for at in range(len(data)))


@pytest.mark.parametrize("sample", PLAIN, ids=repr)
def test_explicit_little_endian_has_the_same_values(server, sample):
    assert store(server, sample) == 0x0000
    accept = {"Accept": f"application/dicom; transfer-syntax={EXPLICIT}"}
    answer = requests.get(server.instance_url(sample.header), headers=accept, timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == f"application/dicom; transfer-syntax={EXPLICIT}"
    got = pydicom.dcmread(BytesIO(answer.content))
    assert got.file_meta.TransferSyntaxUID == EXPLICIT
    stored = pydicom.dcmread(sample.path)
    assert pixels(got, EXPLICIT) == pixels(stored, sample.syntax)
    for each in (got, stored):
        if "PixelData" in each:
            del each.PixelData
    assert values(got) == values(stored)


@pytest.mark.parametrize("sample", [s for s in PLAIN if s.syntax != DEFLATED], ids=repr)
def test_two_encodings_never_leave_on_the_web(server, sample):
    assert store(server, sample) == 0x0000
    for accept in ("*/*", "application/dicom; transfer-syntax=*"):
        answer = requests.get(server.instance_url(sample.header), headers={"Accept": accept}, timeout=30)
        assert answer.status_code == 200, answer.text
        assert f"transfer-syntax={EXPLICIT}".encode() in answer.content + answer.headers["Content-Type"].encode()
    refused = {"Accept": f"application/dicom; transfer-syntax={sample.syntax}"}
    assert requests.get(server.instance_url(sample.header), headers=refused, timeout=30).status_code == 406


@pytest.mark.parametrize("sample", [s for s in PLAIN if "PixelData" in pydicom.dcmread(s.path)], ids=repr)
def test_a_frame_is_what_a_reader_of_explicit_little_endian_expects(server, sample):
    assert store(server, sample) == 0x0000
    stored = pydicom.dcmread(sample.path)
    accept = {"Accept": "application/octet-stream; transfer-syntax=*"}
    answer = requests.get(server.instance_url(sample.header) + "/frames/1", headers=accept, timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].endswith(f"transfer-syntax={EXPLICIT}")
    frames = int(stored.get("NumberOfFrames", 1) or 1)
    frame_bytes = stored.Rows * stored.Columns * stored.get("SamplesPerPixel", 1) * stored.BitsAllocated // 8
    expected = pixels(stored, sample.syntax)
    assert len(expected) in range(frames * frame_bytes, frames * frame_bytes + 2)
    assert answer.content == expected[:frame_bytes]
