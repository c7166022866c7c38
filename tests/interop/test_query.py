"""C-FIND and QIDO give the same answers, and wrong questions the right status."""
import subprocess

import pydicom
import pytest
import requests
from conftest import SAMPLES
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom.sop_class import (
    CTImageStorage,
    PatientRootQueryRetrieveInformationModelFind as PATIENT_ROOT,
    StudyRootQueryRetrieveInformationModelFind as STUDY_ROOT,
)

PEOPLE = [("Müller^Jörg", "P1", "20200105"), ("MUELLER^Anna", "P2", "20200201"), ("Yamada^Tarou=山田^太郎", "P3", "20210101")]


@pytest.fixture(scope="module", autouse=True)
def studies(server):
    made = []
    association = server.associate([(CTImageStorage, [ExplicitVRLittleEndian])])
    for number, (name, patient, date) in enumerate(PEOPLE):
        study = generate_uid()
        for series in range(2):
            data_set = pydicom.Dataset()
            data_set.file_meta = pydicom.dataset.FileMetaDataset()
            data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            data_set.SpecificCharacterSet = "ISO_IR 192"
            data_set.SOPClassUID, data_set.SOPInstanceUID = CTImageStorage, generate_uid()
            data_set.StudyInstanceUID, data_set.SeriesInstanceUID = study, generate_uid()
            data_set.PatientName, data_set.PatientID, data_set.StudyDate = name, patient, date
            data_set.AccessionNumber, data_set.Modality = f"A{number}", ["CT", "SR"][series]
            data_set.SeriesNumber, data_set.InstanceNumber = series + 1, 1
            assert association.send_c_store(data_set).Status == 0
        made.append(study)
    association.release()
    return made


def ask(server, root=STUDY_ROOT, level="STUDY", **keys):
    """Answers and the final status."""
    association = server.associate([(root, [ExplicitVRLittleEndian])])
    question = pydicom.Dataset()
    question.SpecificCharacterSet = "ISO_IR 192"
    if level:
        question.QueryRetrieveLevel = level
    for key, value in keys.items():
        setattr(question, key, value)
    answers, codes = [], []
    for status, answer in association.send_c_find(question, root):
        codes.append(status.Status)
        if answer is not None:
            answers.append(answer)
    association.release()
    return answers, codes


def found(server, **keys):
    answers, codes = ask(server, PatientID="", StudyInstanceUID=keys.pop("StudyInstanceUID", ""), **keys)
    assert codes[-1] == 0x0000
    return sorted(answer.PatientID for answer in answers)


QUESTIONS = [
    ({"PatientName": "müller^jörg"}, ["P1"]),
    ({"PatientName": "MULLER*"}, ["P1"]),
    ({"PatientName": "m*"}, ["P1", "P2"]),
    ({"PatientName": "山田*"}, ["P3"]),
    ({"AccessionNumber": "A1"}, ["P2"]),
    ({"AccessionNumber": "a1"}, []),
    ({"AccessionNumber": "A?"}, ["P1", "P2", "P3"]),
    ({"StudyDate": "20200101-20201231"}, ["P1", "P2"]),
    ({"StudyDate": "20210101-"}, ["P3"]),
    ({"StudyDate": "-20200105"}, ["P1"]),
    ({"ModalitiesInStudy": "SR"}, ["P1", "P2", "P3"]),
    ({"ModalitiesInStudy": "MR"}, []),
    ({"AccessionNumber": "%"}, []),
]


@pytest.mark.parametrize("keys, expected", QUESTIONS, ids=str)
def test_c_find_matches_as_the_standard_says(server, keys, expected):
    assert found(server, **keys) == expected


@pytest.mark.parametrize("keys, expected", QUESTIONS, ids=str)
def test_qido_gives_the_same_answers(server, keys, expected):
    answer = requests.get(server.web + "/studies", params=keys, timeout=10)
    assert answer.status_code == 200, answer.text
    assert sorted(study["00100020"]["Value"][0] for study in answer.json()) == expected


def test_a_list_of_uids_finds_each(server, studies):
    assert found(server, StudyInstanceUID=[studies[0], studies[2], "1.2.3"]) == ["P1", "P3"]


def test_counts_and_modalities_are_right_at_once(server, studies):
    answers, _ = ask(
        server,
        StudyInstanceUID=studies[0],
        NumberOfStudyRelatedSeries="",
        NumberOfStudyRelatedInstances="",
        ModalitiesInStudy="",
    )
    (answer,) = answers
    assert (answer.NumberOfStudyRelatedSeries, answer.NumberOfStudyRelatedInstances) == (2, 2)
    assert sorted(answer.ModalitiesInStudy) == ["CT", "SR"]
    assert answer.RetrieveAETitle == "TRIPTYCH" and answer.InstanceAvailability == "ONLINE"


def test_every_level_of_both_roots_answers(server, studies):
    patients, codes = ask(server, PATIENT_ROOT, "PATIENT", PatientID="P1", NumberOfPatientRelatedStudies="")
    assert len(patients) == 1 and patients[0].NumberOfPatientRelatedStudies == 1 and codes[-1] == 0
    series, _ = ask(server, level="SERIES", StudyInstanceUID=studies[0], SeriesInstanceUID="", SeriesNumber="", Modality="")
    assert [(answer.SeriesNumber, answer.Modality) for answer in series] == [(1, "CT"), (2, "SR")]
    images, _ = ask(
        server,
        level="IMAGE",
        StudyInstanceUID=studies[0],
        SeriesInstanceUID=series[0].SeriesInstanceUID,
        SOPInstanceUID="",
        InstanceNumber="",
    )
    assert len(images) == 1 and images[0].InstanceNumber == 1


@pytest.mark.parametrize(
    "root, level, keys",
    [
        (STUDY_ROOT, "PATIENT", {"PatientID": "P1"}),
        (STUDY_ROOT, "NONSENSE", {"PatientID": "P1"}),
        (STUDY_ROOT, None, {"PatientID": "P1"}),
        (STUDY_ROOT, "SERIES", {"SeriesInstanceUID": ""}),
        (STUDY_ROOT, "IMAGE", {"StudyInstanceUID": "1.2", "SOPInstanceUID": ""}),
        (STUDY_ROOT, "STUDY", {"StudyDate": "yesterday"}),
    ],
)
def test_a_wrong_question_is_a900(server, root, level, keys):
    answers, codes = ask(server, root, level, **keys)
    assert (answers, codes) == ([], [0xA900])


def test_an_unsupported_optional_key_is_ff01(server, studies):
    # Of a level below, and what no image has and nothing here computes.
    for keyword in ("SeriesDescription", "AnatomicRegionsInStudyCodeSequence"):
        value = [] if keyword.endswith("Sequence") else ""
        answers, codes = ask(server, StudyInstanceUID=studies[0], PatientID="", **{keyword: value})
        assert codes == [0xFF01, 0x0000] and keyword not in answers[0]
    # Any other attribute may be in a header: supported, and of zero length where it is not.
    answers, codes = ask(server, StudyInstanceUID=studies[0], PatientID="", StudyComments="")
    assert codes == [0xFF00, 0x0000] and answers[0].StudyComments == ""


def test_no_match_is_success_without_answers(server):
    assert ask(server, PatientID="NOBODY") == ([], [0x0000])
    assert requests.get(server.web + "/studies?PatientID=NOBODY", timeout=10).json() == []


def test_a_cancelled_find_ends_with_fe00_or_its_last_answer(server):
    association = server.associate([(STUDY_ROOT, [ExplicitVRLittleEndian])])
    question = pydicom.Dataset()
    question.QueryRetrieveLevel, question.StudyInstanceUID = "STUDY", ""
    codes = []
    for status, _ in association.send_c_find(question, STUDY_ROOT, msg_id=7):
        if not codes:
            association.send_c_cancel(7, query_model=STUDY_ROOT)
        codes.append(status.Status)
    association.release()
    assert codes[-1] in (0xFE00, 0x0000)


def test_dcmtk_asks_too(server):
    title = ["-aec", "TRIPTYCH", "127.0.0.1", str(server.dimse)]
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=P2", "-k", "StudyInstanceUID"]
    said = subprocess.run(["findscu", "-S", *title, *keys], capture_output=True, text=True, check=True)
    assert "[P2" in said.stdout + said.stderr


@pytest.mark.parametrize("query", ["Nonsense=1", "limit=-1", "limit=x", "StudyDate=yesterday", "00100010x=1"])
def test_a_wrong_qido_is_400_with_a_body(server, query):
    answer = requests.get(f"{server.web}/studies?{query}", timeout=10)
    assert answer.status_code == 400 and len(answer.text) > 10


def test_samples_can_be_found(server):
    assert SAMPLES
