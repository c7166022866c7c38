"""C-MOVE to third parties, and C-GET to those who take less than what is stored."""
import copy

import pydicom
import pytest
from conftest import SAMPLES, SCP_PORT
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet as GET,
    StudyRootQueryRetrieveInformationModelMove as MOVE,
)
from test_store import store

CHOSEN = [s for s in SAMPLES if s.path.name in ("CT_small.dcm", "MR_small.dcm")]
CHOSEN += [s for s in SAMPLES if s.syntax.startswith("1.2.840.10008.1.2.4.")][:3]


@pytest.fixture
def scp():
    """A destination; `refuse` makes it answer A700."""
    received, refuse = [], []

    def take(event):
        received.append((event.request.AffectedSOPInstanceUID, event.request.DataSet.getvalue()))
        return 0xA700 if refuse else 0x0000

    ae = AE(ae_title="PYSCP")
    for sample in SAMPLES:
        ae.add_supported_context(str(sample.header.SOPClassUID), [sample.syntax])
    listener = ae.start_server(("127.0.0.1", SCP_PORT), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    yield received, refuse
    listener.shutdown()


def move(server, destination, level="STUDY", **keys):
    association = server.associate([(MOVE, [ExplicitVRLittleEndian])])
    wanted = pydicom.Dataset()
    wanted.QueryRetrieveLevel = level
    for key, value in keys.items():
        setattr(wanted, key, value)
    answers = list(association.send_c_move(wanted, destination, MOVE))
    association.release()
    return answers


@pytest.mark.parametrize("sample", CHOSEN, ids=repr)
def test_c_move_sends_what_is_stored(server, scp, sample):
    received, _ = scp
    assert store(server, sample) == 0x0000
    answers = move(
        server,
        "PYSCP",
        "IMAGE",
        StudyInstanceUID=sample.header.StudyInstanceUID,
        SeriesInstanceUID=sample.header.SeriesInstanceUID,
        SOPInstanceUID=sample.header.SOPInstanceUID,
    )
    final = answers[-1][0]
    assert (final.Status, final.NumberOfCompletedSuboperations) == (0x0000, 1)
    assert answers[0][0].Status == 0xFF00
    assert received == [(sample.header.SOPInstanceUID, sample.bytes)]


def test_a_destination_that_refuses_all_is_a702_with_the_failed_uids(server, scp):
    _, refuse = scp
    sample = CHOSEN[0]
    assert store(server, sample) == 0x0000
    refuse.append(True)
    status, identifier = move(server, "PYSCP", StudyInstanceUID=sample.header.StudyInstanceUID)[-1]
    assert status.Status == 0xA702 and status.NumberOfFailedSuboperations >= 1
    failed = identifier.FailedSOPInstanceUIDList
    assert sample.header.SOPInstanceUID in ([failed] if isinstance(failed, str) else list(failed))


def test_an_unknown_destination_is_a801(server):
    assert store(server, CHOSEN[0]) == 0x0000
    assert move(server, "UNKNOWN", StudyInstanceUID=CHOSEN[0].header.StudyInstanceUID)[-1][0].Status == 0xA801


def test_a_destination_that_nobody_listens_at_is_a702(server):
    assert store(server, CHOSEN[0]) == 0x0000
    assert move(server, "NOBODY", StudyInstanceUID=CHOSEN[0].header.StudyInstanceUID)[-1][0].Status == 0xA702


def test_nothing_to_move_is_success_with_zero_counts(server):
    final = move(server, "PYSCP", StudyInstanceUID="1.2.3.4.5")[-1][0]
    assert (final.Status, final.NumberOfCompletedSuboperations) == (0x0000, 0)


def test_a_retrieval_without_its_unique_key_is_a900(server):
    assert move(server, "PYSCP", StudyInstanceUID="")[-1][0].Status == 0xA900


def implicit_ct():
    """The CT under new UIDs, in Implicit VR Little Endian."""
    ct = next(s for s in SAMPLES if s.path.name == "CT_small.dcm")
    sample = copy.copy(ct)
    sample.header = pydicom.Dataset(pydicom.dcmread(ct.path))
    for private in [element.tag for element in sample.header if element.tag.is_private]:
        del sample.header[private]  # without a dictionary their VR cannot be told from implicit bytes
    sample.header.SOPInstanceUID, sample.header.StudyInstanceUID = generate_uid(), generate_uid()
    sample.header.SeriesInstanceUID = generate_uid()
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, sample.header)
    sample.bytes, sample.syntax = buffer.getvalue(), ImplicitVRLittleEndian
    return sample


def test_c_get_converts_between_plain_encodings(server):
    sample = implicit_ct()
    assert store(server, sample) == 0x0000
    received = []

    def take(event):
        received.append(event.dataset)
        return 0x0000

    class_uid = str(sample.header.SOPClassUID)
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = class_uid, False, True
    association = server.associate(
        [(GET, [ExplicitVRLittleEndian]), (class_uid, [ExplicitVRLittleEndian])],
        roles=[role],
        handlers=[(evt.EVT_C_STORE, take)],
    )
    wanted = pydicom.Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "IMAGE", sample.header.StudyInstanceUID
    wanted.SeriesInstanceUID = sample.header.SeriesInstanceUID
    wanted.SOPInstanceUID = sample.header.SOPInstanceUID
    final = list(association.send_c_get(wanted, GET))[-1][0]
    association.release()
    assert final.Status == 0x0000
    (data_set,) = received
    values = lambda item: {element.tag: (str(element.VR), str(element.value)) for element in item}
    assert values(data_set) == values(sample.header)


def test_c_get_of_what_the_requestor_does_not_take_fails_and_is_never_mislabelled(server):
    # Whatever is inside of a private syntax is not known. (Compressed images are decoded: test_decode.py.)
    sample = copy.copy(next(s for s in SAMPLES if s.path.name == "CT_small.dcm"))
    sample.header = copy.deepcopy(sample.header)
    sample.header.SOPInstanceUID, sample.header.StudyInstanceUID = generate_uid(), generate_uid()
    sample.header.SeriesInstanceUID, sample.syntax = generate_uid(), "1.2.826.0.1.3680043.9.9999.1"
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, pydicom.Dataset(sample.header))
    sample.bytes = buffer.getvalue()
    assert store(server, sample) == 0x0000
    class_uid = str(sample.header.SOPClassUID)
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = class_uid, False, True
    association = server.associate(
        [(GET, [ExplicitVRLittleEndian]), (class_uid, [ExplicitVRLittleEndian])],
        roles=[role],
        handlers=[(evt.EVT_C_STORE, lambda event: 0x0000)],
    )
    wanted = pydicom.Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "IMAGE", sample.header.StudyInstanceUID
    wanted.SeriesInstanceUID = sample.header.SeriesInstanceUID
    wanted.SOPInstanceUID = sample.header.SOPInstanceUID
    final = list(association.send_c_get(wanted, GET))[-1][0]
    association.release()
    assert final.Status == 0xA702 and final.NumberOfFailedSuboperations == 1
