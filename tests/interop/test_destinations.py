"""C-MOVE to DCMTK, and to a destination that takes only some of what is stored."""
import subprocess
import time

import pydicom
import pynetdicom
import pytest
import raw
from conftest import SAMPLES, Server, data_set_bytes, free_port
from pydicom.uid import generate_uid
from pynetdicom import evt
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelMove as PATIENT_ROOT,
    StudyRootQueryRetrieveInformationModelMove as STUDY_ROOT,
)

EXPLICIT = "1.2.840.10008.1.2.1"
DCMTK_PORT, PICKY_PORT = free_port(), free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    flags = ["--remote-ae", f"DCMTK=127.0.0.1:{DCMTK_PORT}", "--remote-ae", f"PICKY=127.0.0.1:{PICKY_PORT}"]
    node = Server(tmp_path_factory.mktemp("server"), *flags)
    yield node
    node.stop()


@pytest.fixture
def storescp(tmp_path):
    """DCMTK's receiver, which keeps the bytes that come: its folder."""
    folder = tmp_path / "received"
    folder.mkdir()
    with subprocess.Popen(["storescp", "+B", "+xa", "-aet", "DCMTK", "-od", folder, str(DCMTK_PORT)]) as process:
        try:
            deadline = time.monotonic() + 20
            probe = ["echoscu", "-aec", "DCMTK", "127.0.0.1", str(DCMTK_PORT)]
            while subprocess.run(probe, capture_output=True).returncode != 0:
                assert time.monotonic() < deadline, "storescp does not listen"
            yield folder
        finally:
            process.terminate()


def store(server, class_uid, syntax, instance, body):
    with raw.Raw(server.dimse) as peer:
        peer.associate([(1, str(class_uid), [syntax])])
        assert peer.store(1, str(class_uid), str(instance), body) == 0x0000
        peer.release()


def move(server, destination, level="STUDY", root=STUDY_ROOT, **keys):
    association = server.associate([(root, [EXPLICIT])])
    wanted = pydicom.Dataset()
    wanted.QueryRetrieveLevel = level
    for key, value in keys.items():
        setattr(wanted, key, value)
    answers = list(association.send_c_move(wanted, destination, root))
    association.release()
    return answers


@pytest.mark.parametrize("name", ["CT_small.dcm", "examples_palette.dcm", "waveform_ecg.dcm", "test-SR.dcm"])
def test_storescp_receives_what_is_stored(server, storescp, name):
    (sample,) = [sample for sample in SAMPLES if sample.path.name == name]
    header = sample.header
    store(server, header.SOPClassUID, sample.syntax, header.SOPInstanceUID, sample.bytes)
    final = move(server, "DCMTK", StudyInstanceUID=header.StudyInstanceUID)[-1][0]
    assert (final.Status, final.NumberOfCompletedSuboperations) == (0x0000, 1)
    (file,) = storescp.iterdir()
    assert data_set_bytes(file.read_bytes()) == sample.bytes


def test_movescu_moves_to_storescp(server, storescp):
    (sample,) = [sample for sample in SAMPLES if sample.path.name == "CT_small.dcm"]
    header = sample.header
    store(server, header.SOPClassUID, sample.syntax, header.SOPInstanceUID, sample.bytes)
    keys = ["-k", "0008,0052=STUDY", "-k", f"0020,000D={header.StudyInstanceUID}"]
    command = ["movescu", "-S", "-aec", "TRIPTYCH", "-aem", "DCMTK", "127.0.0.1", str(server.dimse), *keys]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (file,) = storescp.iterdir()
    assert data_set_bytes(file.read_bytes()) == sample.bytes


def test_a_destination_that_takes_only_some_is_b000_with_the_others_named(server):
    """One refused in the middle does not stop those behind it."""
    study, series = generate_uid(), generate_uid()
    instances = [generate_uid() for _ in range(5)]
    for instance in instances:
        body = raw.data_set(raw.SECONDARY_CAPTURE, instance, study, series)
        store(server, raw.SECONDARY_CAPTURE, raw.IMPLICIT, instance, body)
    received = []

    def take(event):
        instance = event.request.AffectedSOPInstanceUID
        received.append((instance, event.request.MoveOriginatorApplicationEntityTitle))
        return 0xA700 if instance == instances[2] else 0x0000

    ae = pynetdicom.AE(ae_title="PICKY")
    ae.add_supported_context(raw.SECONDARY_CAPTURE, [raw.IMPLICIT])
    listener = ae.start_server(("127.0.0.1", PICKY_PORT), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    try:
        status, identifier = move(server, "PICKY", "PATIENT", PATIENT_ROOT, PatientID="RAW")[-1]
    finally:
        listener.shutdown()
    counts = (status.NumberOfCompletedSuboperations, status.NumberOfFailedSuboperations)
    assert (status.Status, counts) == (0xB000, (4, 1))
    assert identifier.FailedSOPInstanceUIDList == instances[2]
    assert sorted(instance for instance, _ in received) == sorted(instances)
    assert {str(title) for _, title in received} == {"PYTEST"}, "the destination is told who asked"
