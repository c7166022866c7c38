"""What is stored comes back byte for byte, in every transfer syntax, by every road."""
import copy
import subprocess
import time
import uuid
from io import BytesIO

import pydicom
import pytest
from conftest import SAMPLES, data_set_bytes
from pydicom.uid import generate_uid
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet


def send(association, context, request):
    """As send_c_store does it, but with the bytes that `request` has: the response."""
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        time.sleep(0.0001)
    association.dimse.send_msg(request, context)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    assert answer is not None, "no answer to C-STORE"
    return answer


def store_request(class_uid, instance, body):
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = class_uid
    request.AffectedSOPInstanceUID = instance
    request.Priority = 0
    request.DataSet = BytesIO(body)
    return request


def store(server, sample, instance=None, body=None, class_uid=None):
    """C-STORE of exactly these bytes; answers the status."""
    class_uid = class_uid or str(sample.header.SOPClassUID)
    association = server.associate([(class_uid, [sample.syntax])])
    instance = instance or str(sample.header.SOPInstanceUID)
    request = store_request(class_uid, instance, sample.bytes if body is None else body)
    answer = send(association, association.accepted_contexts[0].context_id, request)
    association.release()
    return answer.Status


def test_there_are_samples_of_many_kinds():
    assert len(SAMPLES) >= 30
    assert len({sample.syntax for sample in SAMPLES}) >= 8


@pytest.mark.parametrize("sample", SAMPLES, ids=repr)
def test_a_real_file_comes_back_byte_for_byte_by_wado(server, sample):
    assert store(server, sample) == 0x0000
    assert server.fetch(sample.header) == sample.bytes


@pytest.mark.parametrize("sample", SAMPLES, ids=repr)
def test_a_real_file_comes_back_byte_for_byte_by_c_get(server, sample):
    assert store(server, sample) == 0x0000
    received = []

    def take(event):
        received.append((event.request.AffectedSOPInstanceUID, event.request.DataSet.getvalue()))
        return 0x0000

    class_uid = str(sample.header.SOPClassUID)
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = class_uid, False, True
    association = server.associate(
        [(StudyRootQueryRetrieveInformationModelGet, ["1.2.840.10008.1.2.1"]), (class_uid, [sample.syntax])],
        roles=[role],
        handlers=[(evt.EVT_C_STORE, take)],
    )
    wanted = pydicom.Dataset()
    wanted.QueryRetrieveLevel = "IMAGE"
    wanted.StudyInstanceUID = sample.header.StudyInstanceUID
    wanted.SeriesInstanceUID = sample.header.SeriesInstanceUID
    wanted.SOPInstanceUID = sample.header.SOPInstanceUID
    final = [status for status, _ in association.send_c_get(wanted, StudyRootQueryRetrieveInformationModelGet)][-1]
    association.release()
    assert final.Status == 0x0000 and final.NumberOfCompletedSuboperations == 1
    assert received == [(sample.header.SOPInstanceUID, sample.bytes)]


def test_dcmtk_stores_and_fetches_a_ct(server, tmp_path):
    sample = next(s for s in SAMPLES if s.path.name == "CT_small.dcm")
    title = ["-aec", "TRIPTYCH", "127.0.0.1", str(server.dimse)]
    subprocess.run(["storescu", *title, sample.path], check=True)
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={sample.header.StudyInstanceUID}"]
    subprocess.run(["getscu", "-S", "-B", "+B", "-od", tmp_path, *keys, *title], check=True)
    files = [file for file in tmp_path.iterdir() if sample.header.SOPInstanceUID in file.name]
    assert len(files) == 1 and data_set_bytes(files[0].read_bytes()) == sample.bytes


def test_the_same_object_again_is_success_and_nothing_new(server):
    sample = SAMPLES[0]
    assert store(server, sample) == 0x0000
    before = server.totals()
    assert store(server, sample) == 0x0000
    assert server.totals() == before


def test_other_content_under_a_known_uid_is_kept_as_a_version_and_the_first_stays(server):
    sample = next(s for s in SAMPLES if s.path.name == "CT_small.dcm")
    assert store(server, sample) == 0x0000
    before = server.totals()["versions"]
    other = bytearray(sample.bytes)
    other[-200] ^= 1  # a pixel
    assert store(server, sample, body=bytes(other)) == 0x0000
    assert server.totals()["versions"] == before + 1
    assert server.fetch(sample.header) == sample.bytes


def private_object(class_uid):
    data_set = pydicom.Dataset()
    data_set.SOPClassUID = class_uid
    data_set.SOPInstanceUID, data_set.StudyInstanceUID, data_set.SeriesInstanceUID = (generate_uid() for _ in range(3))
    data_set.PatientID = "P1"
    data_set.add_new((0x0009, 0x0010), "LO", "TRIPTYCH TEST")
    data_set.add_new((0x0009, 0x1001), "OB", uuid.uuid4().bytes)
    return data_set


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.113619.5.2.99"])
def test_a_private_class_and_a_private_syntax_are_kept_verbatim(server, syntax):
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    data_set = private_object("1.3.12.2.1107.5.9.77")
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, data_set)
    sample = copy.copy(SAMPLES[0])
    sample.header, sample.bytes, sample.syntax = data_set, buffer.getvalue(), syntax
    assert store(server, sample) == 0x0000
    assert server.fetch(data_set) == sample.bytes


def test_a_command_that_names_another_instance_is_a900_and_nothing_is_stored(server):
    before = server.totals()["instances"]
    assert store(server, SAMPLES[3], instance=generate_uid(), body=SAMPLES[3].bytes) == 0xA900
    assert server.totals()["instances"] == before
