"""Questions about some hundred instances: each level of each model, the same by QIDO, and an end by C-CANCEL."""
import pydicom
import pytest
import raw
import requests
from pydicom.uid import generate_uid
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind as PATIENT_ROOT,
    StudyRootQueryRetrieveInformationModelFind as STUDY_ROOT,
)

EXPLICIT = "1.2.840.10008.1.2.1"
INSTANCES = 600
STUDY, SERIES = generate_uid(), [generate_uid(), generate_uid()]


@pytest.fixture(scope="module", autouse=True)
def many(server):
    """One study of two series, INSTANCES in all."""
    with raw.Raw(server.dimse) as peer:
        peer.associate([(1, raw.SECONDARY_CAPTURE, [raw.IMPLICIT])])
        for number in range(INSTANCES):
            instance = f"{STUDY[:50]}.{number}"
            more = raw.element(0x0020, 0x0013, str(number))
            body = raw.data_set(raw.SECONDARY_CAPTURE, instance, STUDY, SERIES[number % 2], more)
            assert peer.store(1, raw.SECONDARY_CAPTURE, instance, body, number + 1) == 0x0000
        peer.release()


def question(level, **keys):
    asked = pydicom.Dataset()
    asked.QueryRetrieveLevel = level
    for key, value in keys.items():
        setattr(asked, key, value)
    return asked


def find(server, root, asked):
    association = server.associate([(root, [EXPLICIT])])
    answers = list(association.send_c_find(asked, root))
    association.release()
    return [answer for _, answer in answers if answer is not None], answers[-1][0].Status


@pytest.mark.parametrize(
    "root, level, keys, count",
    [
        (PATIENT_ROOT, "PATIENT", {"PatientID": "RAW"}, 1),
        (PATIENT_ROOT, "STUDY", {"PatientID": "RAW", "StudyInstanceUID": ""}, 1),
        (PATIENT_ROOT, "SERIES", {"PatientID": "RAW", "StudyInstanceUID": STUDY, "SeriesInstanceUID": ""}, 2),
        (STUDY_ROOT, "STUDY", {"StudyInstanceUID": STUDY}, 1),
        (STUDY_ROOT, "SERIES", {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES}, 2),
        (STUDY_ROOT, "SERIES", {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES[0]}, 1),
        (STUDY_ROOT, "SERIES", {"StudyInstanceUID": STUDY, "SeriesInstanceUID": "1.2.3"}, 0),
    ],
)
def test_a_level_answers_once_for_each_thing(server, root, level, keys, count):
    answers, status = find(server, root, question(level, **keys))
    assert (len(answers), status) == (count, 0x0000)
    assert {answer.QueryRetrieveLevel for answer in answers} <= {level}


@pytest.mark.parametrize(
    "keys, query, count",
    [
        ({"SOPInstanceUID": "", "InstanceNumber": ""}, {}, INSTANCES // 2),
        ({"SOPInstanceUID": "", "InstanceNumber": "42"}, {"InstanceNumber": "42"}, 1),
        ({"SOPInstanceUID": "", "InstanceNumber": "43"}, {"InstanceNumber": "43"}, 0),
    ],
)
def test_qido_and_c_find_name_the_same_instances(server, keys, query, count):
    asked = question("IMAGE", StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES[0], **keys)
    answers, status = find(server, STUDY_ROOT, asked)
    assert status == 0x0000
    url = f"{server.web}/studies/{STUDY}/series/{SERIES[0]}/instances"
    answer = requests.get(url, params=query, timeout=30)
    assert answer.status_code == 200, answer.text
    rows = answer.json()
    by_find = sorted(str(answer.SOPInstanceUID) for answer in answers)
    assert by_find == sorted(row["00080018"]["Value"][0] for row in rows)
    assert len(by_find) == count


def test_pages_of_qido_hold_everything_once(server):
    seen = []
    for offset in range(0, INSTANCES, 70):
        url = f"{server.web}/studies/{STUDY}/instances?limit=70&offset={offset}"
        seen += [row["00080018"]["Value"][0] for row in requests.get(url, timeout=30).json()]
    assert len(seen) == len(set(seen)) == INSTANCES


def test_image_level_of_patient_root_answers_and_a_missing_upper_key_is_a900(server):
    keys = {"PatientID": "RAW", "StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES[1], "SOPInstanceUID": ""}
    answers, status = find(server, PATIENT_ROOT, question("IMAGE", **keys))
    assert (len(answers), status) == (INSTANCES // 2, 0x0000)
    keys["SeriesInstanceUID"] = ""
    assert find(server, PATIENT_ROOT, question("IMAGE", **keys)) == ([], 0xA900)


def test_a_cancel_that_comes_with_the_question_ends_it_with_fe00(server):
    """Both in one write: the cancel is there before the answers can all be out."""
    text, uid = raw.element, STUDY_ROOT
    identifier = text(0x0008, 0x0018, "") + text(0x0008, 0x0052, "IMAGE ")
    identifier += text(0x0020, 0x000D, STUDY) + text(0x0020, 0x000E, SERIES[0])
    request = raw.command_set((0x0002, uid), (0x0100, 0x0020), (0x0110, 9), (0x0700, 0), (0x0800, 0x0001))
    cancel = raw.command_set((0x0100, 0x0FFF), (0x0120, 9), (0x0800, 0x0101))
    with raw.Raw(server.dimse) as peer:
        kind, _ = peer.associate([(1, uid, [raw.IMPLICIT])])
        assert kind == raw.ASSOCIATE_AC
        peer.send(raw.pdv(1, 3, request) + raw.pdv(1, 2, identifier) + raw.pdv(1, 3, cancel))
        statuses = []
        while not statuses or statuses[-1] in (0xFF00, 0xFF01):
            status, has_data = peer.answer()
            statuses.append(status)
            if has_data:
                peer.receive()
        assert statuses[-1] == 0xFE00
        assert len(statuses) < INSTANCES // 2
        peer.command(1, raw.command_set((0x0002, uid), (0x0100, 0x0020), (0x0110, 10), (0x0700, 0), (0x0800, 0x0001)))
        peer.data(1, text(0x0008, 0x0052, "STUDY ") + text(0x0020, 0x000D, "1.2.3"))
        assert peer.response() == 0x0000, "the association goes on after a cancel"
        peer.release()
