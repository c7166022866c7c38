"""Padding makes no version: the same image in other bytes is nothing new, what came first stays, and all else is kept.

    a file with (FFFC,FFFC) ─► storescu leaves it out on its way ─► the archive has the same content in two forms
"""
import copy
import shutil
import subprocess
import zlib

import pydicom
import pytest
import requests
from conftest import SAMPLES, Server
from pydicom.uid import generate_uid
from test_peers import triptych
from test_store import store

IMPLICIT, DEFLATED, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
PADDING = (0xFFFC, 0xFFFC)
# More than a pad byte stands behind its deflated stream: what had to be tolerated is like nothing but its own bytes.
TOLERATED = {"image_dfl.dcm"}


def element(syntax, group, number, vr, value):
    """An element as the syntax writes it."""
    order = "big" if syntax == BIG else "little"
    word = lambda number, size: number.to_bytes(size, order)
    head = word(group, 2) + word(number, 2)
    if syntax == IMPLICIT:
        return head + word(len(value), 4) + value
    length = b"\0\0" + word(len(value), 4) if vr == "OB" else word(len(value), 2)
    return head + vr.encode() + length + value


def inflated(body):
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(body)


def deflated(body):
    stream = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = stream.compress(body) + stream.flush()
    return body + b"\0" * (len(body) % 2)


def with_more(sample, front=b"", behind=b""):
    if sample.syntax == DEFLATED:
        return deflated(front + inflated(sample.bytes) + behind)
    return front + sample.bytes + behind


def admitted(server):
    """How many instances were stored, by what they were."""
    lines = requests.get(server.url + "/metrics", timeout=10).text.splitlines()
    prefix = 'archive_service_stored_total{admission="'
    return {line[len(prefix) :].split('"')[0]: int(line.split()[-1]) for line in lines if line.startswith(prefix)}


def new_by(server, work):
    """What `work` stored, by what it was."""
    before = admitted(server)
    work()
    return {name: count - before.get(name, 0) for name, count in admitted(server).items() if count != before.get(name, 0)}


@pytest.mark.parametrize("sample", SAMPLES, ids=repr)
def test_a_real_file_in_another_padding_is_nothing_new_and_stays_as_it_came(server, sample):
    assert store(server, sample) == 0x0000
    group_length = element(sample.syntax, 0x0008, 0x0000, "UL", b"\1\2\3\4")
    padding = element(sample.syntax, *PADDING, "OB", b"\7" * 30)
    before = server.totals()
    variants = [with_more(sample, front=group_length), with_more(sample, behind=padding), with_more(sample, group_length, padding)]
    if sample.path.name in TOLERATED:
        assert new_by(server, lambda: store(server, sample, body=variants[0])) == {"version": 1}
        assert server.fetch(sample.header) == sample.bytes
        return
    for body in variants:
        assert body != sample.bytes
        assert new_by(server, lambda: store(server, sample, body=body)) == {"alike": 1}
    assert server.totals() == before
    assert server.fetch(sample.header) == sample.bytes
    # One element that is no padding, and it is another content.
    other = with_more(sample, behind=element(sample.syntax, 0xFFFC, 0xFFFD, "OB", b"\7" * 30))
    assert new_by(server, lambda: store(server, sample, body=other)) == {"version": 1}
    assert server.fetch(sample.header) == sample.bytes


def padded_file(tmp_path):
    """A file that ends with (FFFC,FFFC), under new UIDs: its path, header and data set."""
    sample = copy.copy(next(sample for sample in SAMPLES if sample.path.name == "CT_small.dcm"))
    data_set = pydicom.dcmread(sample.path)
    assert PADDING in data_set, "the sample has lost its padding"
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID, data_set.SOPInstanceUID = (generate_uid() for _ in range(3))
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    path = tmp_path / "padded.dcm"
    data_set.save_as(path)
    return type(sample)(path)


def storescu(server, path):
    subprocess.run(["storescu", "-aec", "TRIPTYCH", "127.0.0.1", str(server.dimse), path], check=True)


@pytest.mark.parametrize("first", ["the file", "storescu"])
def test_what_storescu_leaves_out_makes_no_version(server, tmp_path, first):
    sample = padded_file(tmp_path)
    ways = [lambda: store(server, sample), lambda: storescu(server, sample.path)]
    if first == "storescu":
        ways.reverse()
    versions = server.totals()["versions"]
    assert [new_by(server, way) for way in ways] == [{"new": 1}, {"alike": 1}], "DCMTK leaves (FFFC,FFFC) out"
    assert [new_by(server, way) for way in ways] == [{"same": 1}, {"alike": 1}]
    assert (PADDING in pydicom.dcmread(sample.path)) and server.totals()["versions"] == versions
    held = server.fetch(sample.header)
    assert (held == sample.bytes) == (first == "the file"), "what came first stays, byte for byte"


def test_padding_is_no_other_content_for_who_rejects_or_replaces_that(server, tmp_path):
    sample = padded_file(tmp_path)
    assert new_by(server, lambda: store(server, sample)) == {"new": 1}
    for policy in ("reject", "replace"):
        triptych(server, "set", "STORESCU", "--other-content", policy)
        assert new_by(server, lambda: storescu(server, sample.path)) == {"alike": 1}
    triptych(server, "remove", "STORESCU")
    assert server.fetch(sample.header) == sample.bytes


def padded_copy(sample):
    return with_more(sample, behind=element(sample.syntax, *PADDING, "OB", b"\7" * 30))


def lose_the_index(folder):
    shutil.rmtree(folder / "data" / "catalog")


@pytest.mark.parametrize("meanwhile", [lambda folder: None, lose_the_index], ids=["restart", "lost index"])
def test_old_rows_are_told_apart_by_their_bytes_and_new_ones_by_content_after_a_restart_too(server, tmp_path, meanwhile):
    """What was stored without canonical digests has none when the index is made anew from the log, either."""
    old, new = SAMPLES[0], SAMPLES[1]
    own = Server(tmp_path, "--compare-padding", "false")
    try:
        assert new_by(own, lambda: store(own, old)) == {"new": 1}
        own.stop()
        own = Server(tmp_path)
        assert new_by(own, lambda: store(own, new)) == {"new": 1}
        own.stop()
        meanwhile(tmp_path)
        own = Server(tmp_path)
        assert own.totals()["instances"] == 2
        assert new_by(own, lambda: store(own, new, body=padded_copy(new))) == {"alike": 1}
        assert new_by(own, lambda: store(own, old)) == {"same": 1}
        assert new_by(own, lambda: store(own, old, body=padded_copy(old))) == {"version": 1}, "it cannot be told"
        assert own.fetch(old.header) == old.bytes and own.fetch(new.header) == new.bytes
    finally:
        own.kill()
