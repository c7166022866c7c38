"""What DCMTK sends and takes: it encodes data sets anew, and what it sent is what is kept."""
import subprocess
import time

import pydicom
import pytest
import raw
from conftest import SAMPLES, data_set_bytes, free_port
from pydicom.uid import generate_uid
from pynetdicom import build_role, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as GET

EXPLICIT = "1.2.840.10008.1.2.1"
# How storescu is told to propose only the syntax of the file.
STORESCU_SYNTAX = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}
# Files that DCMTK cannot read: a syntax that is not the one declared, UIDs that are none.
NOT_FOR_DCMTK = {"SC_rgb_jpeg.dcm", "rtdose_rle.dcm"}
READABLE = [sample for sample in SAMPLES if sample.path.name not in NOT_FOR_DCMTK]


def run(name, *arguments):
    """Runs a program of DCMTK to its end."""
    command = [name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)


@pytest.fixture
def storescp(tmp_path):
    """DCMTK's receiver, which keeps the bytes that come: its port and its folder."""
    folder, port = tmp_path / "received", free_port()
    folder.mkdir()
    with subprocess.Popen(["storescp", "+B", "+xa", "-od", folder, str(port)]) as process:
        try:
            deadline = time.monotonic() + 20
            while run("echoscu", "127.0.0.1", port).returncode != 0:
                assert time.monotonic() < deadline, "storescp does not listen"
            yield port, folder
        finally:
            process.terminate()


@pytest.mark.parametrize("syntax", sorted({sample.syntax for sample in READABLE}))
def test_what_storescu_sends_is_kept_as_sent(server, storescp, syntax):
    port, folder = storescp
    wanted = [sample for sample in READABLE if sample.syntax == syntax]
    for title, to in (("DCMTK", port), ("TRIPTYCH", server.dimse)):
        paths = [sample.path for sample in wanted]
        done = run("storescu", "-R", STORESCU_SYNTAX[syntax], "-aec", title, "127.0.0.1", to, *paths)
        assert done.returncode == 0, done.stderr
    sent = {pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID: file for file in folder.iterdir()}
    assert len(sent) == len(wanted)
    for sample in wanted:
        expected = data_set_bytes(sent[sample.header.SOPInstanceUID].read_bytes())
        assert server.fetch(sample.header) == expected, sample


def test_dcmsend_brings_everything_at_once_and_it_is_there_already(server):
    before = server.totals()["instances"]
    paths = [sample.path for sample in READABLE]
    done = run("dcmsend", "-aec", "TRIPTYCH", "--decompress-never", "127.0.0.1", server.dimse, *paths)
    assert done.returncode == 0, done.stderr
    assert server.totals()["instances"] == before == len(READABLE)


def test_a_study_of_several_objects_comes_by_c_get_whole(server):
    """A study of its own: as many objects as were stored, each once, each with the bytes that were sent."""
    study, series, sent = generate_uid(), generate_uid(), {}
    with raw.Raw(server.dimse) as peer:
        peer.associate([(1, raw.SECONDARY_CAPTURE, [raw.IMPLICIT])])
        for number in range(40):
            instance = generate_uid()
            sent[instance] = raw.data_set(raw.SECONDARY_CAPTURE, instance, study, series)
            assert peer.store(1, raw.SECONDARY_CAPTURE, instance, sent[instance], number + 1) == 0x0000
        peer.release()
    received = {}

    def take(event):
        received[event.request.AffectedSOPInstanceUID] = event.request.DataSet.getvalue()
        return 0x0000

    association = server.associate(
        [(GET, [EXPLICIT]), (raw.SECONDARY_CAPTURE, [raw.IMPLICIT])],
        roles=[build_role(raw.SECONDARY_CAPTURE, scp_role=True)],
        handlers=[(evt.EVT_C_STORE, take)],
    )
    wanted = pydicom.Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", study
    final = list(association.send_c_get(wanted, GET))[-1][0]
    association.release()
    assert (final.Status, final.NumberOfCompletedSuboperations) == (0x0000, 40)
    assert received == sent


def test_the_same_other_content_twice_is_one_version(server):
    instance, study, series = generate_uid(), generate_uid(), generate_uid()
    first, other = (
        raw.data_set(raw.SECONDARY_CAPTURE, instance, study, series, raw.element(0x0020, 0x4000, text))
        for text in ("first ", "other ")
    )
    versions = []
    with raw.Raw(server.dimse) as peer:
        peer.associate([(1, raw.SECONDARY_CAPTURE, [raw.IMPLICIT])])
        for message, body in enumerate([first, other, other, first], 1):
            assert peer.store(1, raw.SECONDARY_CAPTURE, instance, body, message) == 0x0000
            versions.append(server.totals()["versions"])
        peer.release()
    assert versions[1:] == [versions[0] + 1] * 3
