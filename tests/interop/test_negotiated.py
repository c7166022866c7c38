"""Extended negotiation (PS3.4 C.5.1.1) byte by byte, what it changes, and keys that only headers know."""
import struct
import subprocess

import pydicom
import pytest
import requests
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import (
    CTImageStorage,
    PatientRootQueryRetrieveInformationModelFind as PATIENT_ROOT,
    StudyRootQueryRetrieveInformationModelFind as STUDY_ROOT,
    StudyRootQueryRetrieveInformationModelMove as STUDY_MOVE,
)

from raw import ASSOCIATE_AC, IMPLICIT, Raw, associate_rq, item, pdu, ASSOCIATE_RQ

RELATIONAL, DATE_TIME, FUZZY, TIMEZONE, MULTI_FRAME, EMPTY, MULTIPLE = range(7)


def proposal(sop_class, *wanted, length=7):
    asked = SOPClassExtendedNegotiation()
    asked.sop_class_uid = sop_class
    asked.service_class_application_information = bytes(int(byte in wanted) for byte in range(length))
    return asked


@pytest.fixture(scope="module", autouse=True)
def studies(server):
    """Four studies: (name, date, time, zone), and what only their headers say."""
    made = []
    association = server.associate([(CTImageStorage, [ExplicitVRLittleEndian])])
    for number, (name, date, time, zone) in enumerate(
        [
            ("Meyer^Josef", "20060705", "1130", "+0100"),
            ("Maier^Jo", "20060706", "0300", "-0500"),
            ("Miller^Ann", "20060707", "1830", None),
            ("", "20060705", "0900", "+0000"),
        ]
    ):
        data_set = pydicom.Dataset()
        data_set.file_meta = pydicom.dataset.FileMetaDataset()
        data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data_set.SOPClassUID, data_set.SOPInstanceUID = CTImageStorage, generate_uid()
        data_set.StudyInstanceUID, data_set.SeriesInstanceUID = generate_uid(), generate_uid()
        data_set.PatientName, data_set.PatientID = name, f"N{number}"
        data_set.StudyDate, data_set.StudyTime, data_set.Modality = date, time, "CT"
        if zone:
            data_set.TimezoneOffsetFromUTC = zone
        data_set.KVP, data_set.EthnicGroup = 80 + 40 * (number % 2), ["a", "b"][number // 2]
        data_set.OtherPatientIDs = ["X", f"Y{number}"]
        reference = pydicom.Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CTImageStorage, f"1.2.3.{number}"
        data_set.ReferencedImageSequence = [reference]
        block = data_set.private_block(0x0011, "ACME 1.0", create=True)
        block.add_new(1, "LO", f"private {number}")
        assert association.send_c_store(data_set).Status == 0
        made.append(data_set)
    association.release()
    return made


def ask(server, *negotiated, root=STUDY_ROOT, level="STUDY", syntax=ExplicitVRLittleEndian, change=None, **keys):
    """The patients found, their answers, and the statuses."""
    association = server.associate([(root, [syntax])], roles=[proposal(root, *negotiated)] if negotiated else [])
    question = pydicom.Dataset()
    question.QueryRetrieveLevel, question.PatientID = level, ""
    for key, value in keys.items():
        setattr(question, key, value)
    if change:
        change(question)
    answers, codes = [], []
    for status, answer in association.send_c_find(question, root):
        codes.append(status.Status)
        if answer is not None:
            answers.append(answer)
    association.release()
    return sorted(str(answer.PatientID) for answer in answers), answers, codes


def answered(server, *items):
    """The bytes that come back for each class."""
    contexts = [(each, [ExplicitVRLittleEndian]) for each in {str(each.sop_class_uid) for each in items}]
    association = server.associate(contexts, roles=list(items))
    back = {str(uid): data for uid, data in association.acceptor.sop_class_extended.items()}
    association.release()
    return back


def user_items(body):
    """The user information of an A-ASSOCIATE-AC: {item type: [values]}."""
    found, at = {}, 68

    def items(data):
        at = 0
        while at < len(data):
            kind, _, length = struct.unpack_from(">BBH", data, at)
            yield kind, data[at + 4 : at + 4 + length]
            at += 4 + length

    for kind, value in items(body[at:]):
        if kind == 0x50:
            for inner, data in items(value):
                found.setdefault(inner, []).append(data)
    return found


def test_each_byte_of_a_proposal_is_answered_as_it_is_done(server):
    everything = answered(server, proposal(STUDY_ROOT, *range(7)), proposal(PATIENT_ROOT, *range(7)))
    assert everything == {STUDY_ROOT: bytes([1, 1, 1, 1, 0, 1, 1]), PATIENT_ROOT: bytes([1, 1, 1, 1, 0, 1, 1])}
    for byte in range(7):
        expected = bytes(int(other == byte and byte != MULTI_FRAME) for other in range(7))
        assert answered(server, proposal(STUDY_ROOT, byte)) == {STUDY_ROOT: expected}
    assert answered(server, proposal(STUDY_ROOT, 0, 1, length=2)) == {STUDY_ROOT: b"\x01\x01"}
    assert answered(server, proposal(STUDY_MOVE, 0, 1, length=2)) == {STUDY_MOVE: b"\x01\x00"}


def test_nothing_is_answered_that_was_not_asked(server):
    with Raw(server.dimse) as peer:
        kind, body = peer.associate([(1, STUDY_ROOT, [IMPLICIT])])
        assert kind == ASSOCIATE_AC
        assert sorted(user_items(body)) == [0x51, 0x52, 0x55]
        peer.release()


def test_a_window_is_answered_with_eight_and_an_identity_with_an_answer(server):
    """PS3.7 D.3.3.3 and D.3.3.7: eight operations of the requestor at a time where any number is asked for, one of ours."""
    asked = associate_rq([(1, STUDY_ROOT, [IMPLICIT])])
    body = asked[6:]
    at = body.rindex(item(0x51, struct.pack(">I", 16384)))
    window = item(0x53, struct.pack(">HH", 0, 0))
    identity = item(0x58, bytes([1, 1]) + struct.pack(">H", 4) + b"user" + struct.pack(">H", 0))
    inner = body[at:] + window + identity
    with Raw(server.dimse) as peer:
        peer.send(pdu(ASSOCIATE_RQ, body[: at - 4] + item(0x50, inner)))
        kind, answer = peer.receive()
        assert kind == ASSOCIATE_AC
        items = user_items(answer)
        assert items[0x53] == [struct.pack(">HH", 8, 1)] and items[0x59] == [bytes(2)]
        peer.release()


def test_relational_queries_need_no_keys_above(server, studies):
    keys = {"level": "SERIES", "SeriesInstanceUID": studies[0].SeriesInstanceUID}
    assert ask(server, **keys)[2] == [0xA900]
    assert ask(server, RELATIONAL, **keys)[0] == ["N0"]


def test_date_and_time_are_one_range_if_negotiated(server):
    keys = {"StudyDate": "20060705-20060707", "StudyTime": "1000-1800"}
    assert ask(server, **keys)[0] == ["N0"], "between 10 and 18 on each day"
    assert ask(server, DATE_TIME, **keys)[0] == ["N0", "N1"], "from the 5th at 10 to the 7th at 18"
    night = {"StudyDate": "20060705-20060706", "StudyTime": "2200-0400"}
    assert ask(server, **night)[2] == [0xA900], "no range across midnight"
    assert ask(server, DATE_TIME, **night)[0] == ["N1"]
    web = requests.get(f"{server.web}/studies", params=keys, timeout=10).json()
    assert sorted(study["00100020"]["Value"][0] for study in web) == ["N0", "N1"], "QIDO always combines"


def test_names_match_by_sound_if_negotiated(server):
    assert ask(server, PatientName="meier^jo")[0] == []
    assert ask(server, FUZZY, PatientName="meier^jo")[0] == ["N0", "N1"]
    assert ask(server, FUZZY, PatientName="Jo Meyer")[0] == ["N0", "N1"]
    assert ask(server, FUZZY, root=PATIENT_ROOT, level="PATIENT", PatientName="mueller")[0] == ["N2"]
    answer = requests.get(f"{server.web}/studies?PatientName=mueler&fuzzymatching=true", timeout=10)
    assert [study["00100020"]["Value"][0] for study in answer.json()] == ["N2"] and "Warning" not in answer.headers


def test_times_are_those_of_the_requestor_if_negotiated(server):
    zone = {"TimezoneOffsetFromUTC": "+0000", "StudyDate": "20060706", "StudyTime": "08"}
    found, answers, _ = ask(server, TIMEZONE, **zone)
    assert found == ["N1"] and answers[0].StudyTime == "0800" and answers[0].TimezoneOffsetFromUTC == "+0000"
    assert ask(server, **zone)[0] == [], "not negotiated: as it was written"
    found, answers, _ = ask(server, TIMEZONE, TimezoneOffsetFromUTC="-1000", StudyDate="20060705", StudyTime="")
    assert sorted(found) == ["N0", "N1"] and {str(answer.StudyTime) for answer in answers} == {"0030", "2200"}
    assert ask(server, TIMEZONE, TimezoneOffsetFromUTC="Berlin", StudyDate="")[2] == [0xA900]


def test_two_quotation_marks_ask_for_nothing_if_negotiated(server):
    assert ask(server, PatientName='""')[0] == []
    assert ask(server, EMPTY, PatientName='""')[0] == ["N3"]
    assert ask(server, EMPTY, PatientName='""', StudyDescription='""')[0] == ["N3"]


def test_each_value_must_match_if_negotiated(server):
    both = {"OtherPatientIDs": ["X", "Y1"]}
    assert ask(server, **both)[0] == ["N0", "N1", "N2", "N3"]
    assert ask(server, MULTIPLE, **both)[0] == ["N1"]


@pytest.mark.parametrize("root, level", [(PATIENT_ROOT, "PATIENT"), (STUDY_ROOT, "STUDY"), (STUDY_ROOT, "SERIES"), (STUDY_ROOT, "IMAGE")])
def test_any_attribute_of_a_header_is_matched_and_returned_at_every_level(server, root, level):
    found, answers, codes = ask(server, RELATIONAL, root=root, level=level, KVP="80", EthnicGroup="b")
    assert found == ["N2"] and codes == [0xFF00, 0x0000]
    assert (answers[0].KVP, answers[0].EthnicGroup) == (80, "b")
    assert ask(server, RELATIONAL, root=root, level=level, KVP="80", EthnicGroup="c")[0] == []


def test_sequences_match_item_by_item(server, studies):
    key = pydicom.Dataset()
    key.ReferencedSOPInstanceUID = ["1.2.3.1", "1.2.3.2"]
    found, answers, _ = ask(server, ReferencedImageSequence=[key])
    assert found == ["N1", "N2"]
    (left,) = answers[0].ReferencedImageSequence
    assert "ReferencedSOPClassUID" not in left, "only what was asked for"
    found, answers, _ = ask(server, ReferencedImageSequence=[], StudyInstanceUID=studies[0].StudyInstanceUID)
    assert answers[0].ReferencedImageSequence[0].ReferencedSOPClassUID == CTImageStorage, "all of it"
    query = "ReferencedImageSequence.ReferencedSOPInstanceUID=1.2.3.1,1.2.3.2"
    web = requests.get(f"{server.web}/studies?{query}", timeout=10).json()
    assert sorted(study["00100020"]["Value"][0] for study in web) == ["N1", "N2"]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_private_attributes_match_in_the_block_of_their_creator(server, syntax):
    def private(value, creator="ACME 1.0", block=0x10):
        def change(question):
            question.add_new((0x0011, block), "LO", creator)
            question.add_new((0x0011, block << 8 | 1), "LO", value)

        return change

    assert ask(server, syntax=syntax, change=private("private 2"))[0] == ["N2"]
    assert ask(server, syntax=syntax, change=private("private ?", block=0x42))[0] == ["N0", "N1", "N2", "N3"]
    assert ask(server, syntax=syntax, change=private("private 2", creator="OTHER"))[0] == []


def test_findscu_of_dcmtk_asks_for_what_only_headers_know(server):
    title = ["-aec", "TRIPTYCH", "127.0.0.1", str(server.dimse)]
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", "KVP=120", "-k", "PatientID", "-k", "StudyInstanceUID"]
    said = subprocess.run(["findscu", "-S", *title, *keys], capture_output=True, text=True, check=True)
    said = said.stdout + said.stderr
    assert "[N1" in said and "[N3" in said and "[N0" not in said


def test_a_query_that_looks_into_headers_can_be_cancelled(server):
    association = server.associate([(STUDY_ROOT, [ExplicitVRLittleEndian])])
    question = pydicom.Dataset()
    question.QueryRetrieveLevel, question.StudyInstanceUID, question.KVP = "STUDY", "", ""
    codes = []
    for status, _ in association.send_c_find(question, STUDY_ROOT, msg_id=7):
        if not codes:
            association.send_c_cancel(7, query_model=STUDY_ROOT)
        codes.append(status.Status)
    assert codes[-1] in (0xFE00, 0x0000)
    association.release()
