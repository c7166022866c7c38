"""Modality worklist and performed procedure steps, as a modality uses them, with the entries made by HTTP."""
import subprocess

import pydicom
import pytest
import requests
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom.sop_class import (
    ModalityPerformedProcedureStep as MPPS,
    ModalityPerformedProcedureStepRetrieve as MPPS_GET,
    ModalityWorklistInformationFind as MWL,
)


def entry(step, name="Doe^Jane", modality="CT", station="CT1", date="20261126", time="093000", study=None, **more):
    scheduled = Dataset()
    scheduled.Modality, scheduled.ScheduledStationAETitle = modality, station
    scheduled.ScheduledProcedureStepStartDate, scheduled.ScheduledProcedureStepStartTime = date, time
    scheduled.ScheduledProcedureStepID = step
    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 192"
    data_set.PatientName, data_set.PatientID = name, "P-" + step
    data_set.StudyInstanceUID = study or generate_uid()
    data_set.RequestedProcedureID, data_set.AccessionNumber = "R1", "A1"
    data_set.ScheduledProcedureStepSequence = [scheduled]
    for key, value in more.items():
        setattr(data_set, key, value)
    return data_set


def enter(server, *entries):
    body = "[" + ",".join(each.to_json() for each in entries) + "]"
    return requests.post(f"{server.url}/api/worklist", data=body, headers={"Content-Type": "application/dicom+json"}, timeout=10)


def key(**keys):
    """A query: what is given at the top is of the entry, what begins with `step_` of its scheduled step."""
    question, item = Dataset(), Dataset()
    question.SpecificCharacterSet = "ISO_IR 192"
    question.PatientName, question.PatientID, question.StudyInstanceUID = "", "", ""
    item.Modality, item.ScheduledProcedureStepID, item.ScheduledProcedureStepStartDate = "", "", ""
    for name, value in keys.items():
        if name.startswith("step_"):
            setattr(item, name[5:], value)
        else:
            setattr(question, name, value)
    question.ScheduledProcedureStepSequence = [item]
    return question


def listed(server, question):
    association = server.associate([(MWL, [ExplicitVRLittleEndian])])
    answers, code = [], None
    for status, answer in association.send_c_find(question, MWL):
        code = status.Status
        if answer is not None:
            answers.append(answer)
    association.release()
    assert code == 0x0000, f"{code:04x}"
    return answers


def steps(server, **keys):
    return sorted(answer.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID for answer in listed(server, key(**keys)))


@pytest.fixture(scope="module", autouse=True)
def entries(server):
    made = [entry("S1"), entry("S2", name="Müller^Jörg", modality="MR", station="MR1", date="20261127"),
            entry("S3", name="Yamada^Tarou=山田^太郎", date="20261201", time="140000")]
    answer = enter(server, *made)
    assert answer.status_code == 201, answer.text
    assert [each["step"] for each in answer.json()["entered"]] == ["S1", "S2", "S3"]
    return made


@pytest.mark.parametrize("keys, expected", [
    ({}, ["S1", "S2", "S3"]),
    ({"step_Modality": "MR"}, ["S2"]),
    ({"step_ScheduledStationAETitle": "CT1"}, ["S1", "S3"]),
    ({"step_ScheduledProcedureStepStartDate": "20261126-20261130"}, ["S1", "S2"]),
    ({"step_ScheduledProcedureStepStartDate": "20261201-", "step_Modality": "CT"}, ["S3"]),
    ({"PatientName": "muller*"}, ["S2"]),
    ({"PatientName": "山田*"}, ["S3"]),
    ({"PatientID": "P-S?"}, ["S1", "S2", "S3"]),
    ({"AccessionNumber": "A1", "step_ScheduledProcedureStepID": "S1"}, ["S1"]),
    ({"PatientID": "NOBODY"}, []),
])
def test_a_modality_lists_its_steps(server, keys, expected):
    assert steps(server, **keys) == expected


def test_an_answer_has_the_keys_and_nothing_else(server, entries):
    (answer,) = listed(server, key(step_ScheduledProcedureStepID="S1", AdmissionID=""))
    assert answer.PatientName == "Doe^Jane" and answer.StudyInstanceUID == entries[0].StudyInstanceUID
    assert answer.AdmissionID == "" and "RequestedProcedureID" not in answer
    assert set(answer.ScheduledProcedureStepSequence[0].dir()) == {
        "Modality", "ScheduledProcedureStepID", "ScheduledProcedureStepStartDate"}


def test_an_empty_sequence_asks_for_all_of_it(server):
    question = key(PatientID="P-S1")
    question.ScheduledProcedureStepSequence = []
    (answer,) = listed(server, question)
    item = answer.ScheduledProcedureStepSequence[0]
    assert item.ScheduledStationAETitle == "CT1" and item.ScheduledProcedureStepStatus == "SCHEDULED"


def test_dcmtk_lists_it_too(server):
    said = subprocess.run(
        ["findscu", "-W", "-aec", "TRIPTYCH", "127.0.0.1", str(server.dimse), "-k", "(0040,0100)[0].Modality=MR", "-k", "PatientID"],
        capture_output=True, text=True, timeout=30)
    assert said.returncode == 0 and "P-S2" in said.stderr + said.stdout and "P-S1" not in said.stderr + said.stdout


def test_entries_are_read_changed_and_removed_by_http(server):
    one = entry("S9")
    assert enter(server, one).status_code == 201
    url = f"{server.url}/api/worklist/{one.StudyInstanceUID}/S9"
    assert Dataset.from_json(requests.get(url, timeout=10).text).PatientName == "Doe^Jane"
    one.PatientName = "Doe^John"
    assert enter(server, one).status_code == 201
    assert Dataset.from_json(requests.get(url, timeout=10).text).PatientName == "Doe^John"
    keys = [each["key"] for each in requests.get(f"{server.url}/api/worklist", timeout=10).json()]
    assert keys.count(f"{one.StudyInstanceUID}/S9") == 1
    assert requests.delete(url, timeout=10).status_code == 204
    assert requests.get(url, timeout=10).status_code == 404 and requests.delete(url, timeout=10).status_code == 404
    assert "S9" not in steps(server)


@pytest.mark.parametrize("lacks", ["PatientID", "StudyInstanceUID", "ScheduledProcedureStepSequence"])
def test_an_entry_that_lacks_something_is_refused_with_its_tag_and_so_is_what_came_with_it(server, lacks):
    wrong = entry("S8")
    tag = pydicom.tag.Tag(lacks)
    del wrong[tag]
    answer = enter(server, entry("S7"), wrong)
    assert answer.status_code == 400 and f"({tag.group:04X},{tag.elem:04X})" in answer.text.upper(), answer.text
    assert "S7" not in steps(server)


def test_what_is_no_json_is_refused(server):
    answer = requests.post(f"{server.url}/api/worklist", data=b"{\"0010", timeout=10)
    assert answer.status_code == 400 and "JSON" in answer.text


def created(scheduled):
    step = Dataset()
    step.PerformedProcedureStepStatus, step.PerformedProcedureStepID = "IN PROGRESS", "PPS1"
    step.Modality, step.PerformedStationAETitle = "CT", "CT1"
    step.PerformedProcedureStepStartDate, step.PerformedProcedureStepStartTime = "20261126", "101500"
    step.PerformedSeriesSequence = []
    referenced = Dataset()
    referenced.StudyInstanceUID = scheduled.StudyInstanceUID
    referenced.ScheduledProcedureStepID = scheduled.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID
    step.ScheduledStepAttributesSequence = [referenced]
    return step


def changed(status):
    change = Dataset()
    change.PerformedProcedureStepStatus = status
    change.PerformedProcedureStepEndDate, change.PerformedProcedureStepEndTime = "20261126", "103000"
    if status == "COMPLETED":
        series = Dataset()
        series.SeriesInstanceUID, series.ProtocolName = generate_uid(), "HEAD"
        change.PerformedSeriesSequence = [series]
    return change


@pytest.fixture
def modality(server):
    association = server.associate([(MPPS, [ImplicitVRLittleEndian]), (MPPS_GET, [ExplicitVRLittleEndian])])
    yield association
    association.release()


def scheduled_status(server, step):
    (answer,) = listed(server, key(step_ScheduledProcedureStepID=step, step_ScheduledProcedureStepStatus="*D"))
    return answer.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStatus


def test_a_step_is_performed_and_leaves_the_worklist(server, modality):
    one, uid = entry("S20"), generate_uid()
    assert enter(server, one).status_code == 201 and "S20" in steps(server)
    status, _ = modality.send_n_create(created(one), MPPS, uid)
    assert status.Status == 0x0000
    assert scheduled_status(server, "S20") == "STARTED" and "S20" in steps(server)
    status, _ = modality.send_n_set(changed("COMPLETED"), MPPS, uid)
    assert status.Status == 0x0000
    assert "S20" not in steps(server), "a modality lists what is to be done"
    assert scheduled_status(server, "S20") == "COMPLETED"
    status, step = modality.send_n_get([0x00400252, 0x00400340], MPPS_GET, uid)
    assert status.Status == 0x0000 and step.PerformedProcedureStepStatus == "COMPLETED"
    assert step.PerformedSeriesSequence[0].ProtocolName == "HEAD" and "Modality" not in step
    kept = Dataset.from_json(requests.get(f"{server.url}/api/mpps/{uid}", timeout=10).text)
    assert kept.PerformedProcedureStepStartTime == "101500" and kept.PerformedProcedureStepEndTime == "103000"
    assert uid in [each["key"] for each in requests.get(f"{server.url}/api/mpps", timeout=10).json()]


def test_what_is_final_changes_no_more(server, modality):
    uid = generate_uid()
    assert modality.send_n_create(created(entry("S21")), MPPS, uid)[0].Status == 0x0000
    assert modality.send_n_set(changed("DISCONTINUED"), MPPS, uid)[0].Status == 0x0000
    status, _ = modality.send_n_set(changed("COMPLETED"), MPPS, uid)
    assert (status.Status, status.ErrorID) == (0x0110, 0xA710)


def test_wrong_steps_have_the_status_of_the_standard(server, modality):
    uid, step = generate_uid(), created(entry("S22"))
    assert modality.send_n_set(changed("COMPLETED"), MPPS, uid)[0].Status == 0x0112
    assert modality.send_n_get([0x00400252], MPPS_GET, uid)[0].Status == 0x0112
    step.PerformedProcedureStepStatus = "COMPLETED"
    assert modality.send_n_create(step, MPPS, uid)[0].Status == 0x0106
    del step.PerformedProcedureStepStatus
    assert modality.send_n_create(step, MPPS, uid)[0].Status == 0x0120
    step = created(entry("S22"))
    assert modality.send_n_create(step, MPPS, uid)[0].Status == 0x0000
    assert modality.send_n_create(step, MPPS, uid)[0].Status == 0x0000, "a repeat of the same"
    step.PerformedProcedureStepID = "OTHER"
    assert modality.send_n_create(step, MPPS, uid)[0].Status == 0x0111
    lacking = changed("COMPLETED")
    lacking.PerformedSeriesSequence = []
    assert modality.send_n_set(lacking, MPPS, uid)[0].Status == 0x0120
    assert modality.send_n_set(changed("NONSENSE"), MPPS, uid)[0].Status == 0x0106


def test_who_names_no_instance_gets_one(server, modality):
    kept = lambda: {each["key"] for each in requests.get(f"{server.url}/api/mpps", timeout=10).json()}
    before = kept()
    assert modality.send_n_create(created(entry("S23")), MPPS, None)[0].Status == 0x0000
    (uid,) = kept() - before
    assert uid.startswith("2.25.")
