"""Rejection notes (IHE IOCM, RAD-66) sent by pynetdicom: what they name is in no answer any more, and comes back by the verb."""
import json
import subprocess

import pytest
import raw
import requests
from conftest import Server
from pydicom import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import build_role
from pynetdicom.sop_class import (
    KeyObjectSelectionDocumentStorage as KOS,
    SecondaryCaptureImageStorage as SC,
    StudyRootQueryRetrieveInformationModelFind as FIND,
    StudyRootQueryRetrieveInformationModelGet as GET,
)
from triptych import BINARY

EXPLICIT = [ExplicitVRLittleEndian]
QUALITY, SAFETY, WORKLIST, RETENTION = "113001", "113037", "113038", "113039"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    node = Server(tmp_path_factory.mktemp("server"))
    yield node
    node.stop()


def image(study, series, number=1):
    set_ = Dataset()
    set_.file_meta = FileMetaDataset()
    set_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    set_.SOPClassUID, set_.SOPInstanceUID = SC, generate_uid()
    set_.StudyInstanceUID, set_.SeriesInstanceUID = study, series
    set_.PatientID, set_.Modality, set_.InstanceNumber = "REJ", "OT", number
    return set_


def note(code, *images):
    """A rejection note in the study of the first image."""
    set_ = Dataset()
    set_.file_meta = FileMetaDataset()
    set_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    set_.SOPClassUID, set_.SOPInstanceUID = KOS, generate_uid()
    set_.StudyInstanceUID, set_.SeriesInstanceUID = images[0].StudyInstanceUID, generate_uid()
    set_.PatientID, set_.Modality = "REJ", "KO"
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = code, "DCM", "Rejected"
    set_.ValueType, set_.ConceptNameCodeSequence = "CONTAINER", Sequence([title])
    set_.CurrentRequestedProcedureEvidenceSequence = Sequence()
    for one in images:
        sop, series, study = Dataset(), Dataset(), Dataset()
        sop.ReferencedSOPClassUID, sop.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
        series.SeriesInstanceUID, series.ReferencedSOPSequence = one.SeriesInstanceUID, Sequence([sop])
        study.StudyInstanceUID, study.ReferencedSeriesSequence = one.StudyInstanceUID, Sequence([series])
        set_.CurrentRequestedProcedureEvidenceSequence.append(study)
    return set_


def store(server, *sets):
    """The statuses of C-STORE."""
    association = server.associate([(SC, EXPLICIT), (KOS, EXPLICIT)])
    statuses = [association.send_c_store(one).Status for one in sets]
    association.release()
    return statuses


def found(server, study):
    """SOP Instance UIDs by C-FIND, and Number of Study Related Instances."""
    association = server.associate([(FIND, EXPLICIT)])
    keys = Dataset()
    keys.QueryRetrieveLevel, keys.StudyInstanceUID, keys.SeriesInstanceUID, keys.SOPInstanceUID = "STUDY", study, "", ""
    keys.NumberOfStudyRelatedInstances = ""
    del keys.SeriesInstanceUID, keys.SOPInstanceUID
    counts = [int(one.NumberOfStudyRelatedInstances) for _, one in association.send_c_find(keys, FIND) if one]
    association.release()
    answer = requests.get(f"{server.web}/studies/{study}/instances", timeout=10)
    instances = answer.json() if answer.status_code == 200 else []
    return sorted(one["00080018"]["Value"][0] for one in instances), sum(counts)


def got(server, study):
    """SOP Instance UIDs by C-GET."""
    from pynetdicom import evt

    came = []

    def take(event):
        came.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    roles = [build_role(SC, scp_role=True), build_role(KOS, scp_role=True)]
    contexts = [(GET, EXPLICIT), (SC, EXPLICIT), (KOS, EXPLICIT)]
    association = server.associate(contexts, roles=roles, handlers=[(evt.EVT_C_STORE, take)])
    keys = Dataset()
    keys.QueryRetrieveLevel, keys.StudyInstanceUID = "STUDY", study
    for _ in association.send_c_get(keys, GET):
        pass
    association.release()
    return sorted(came)


def uids(*sets):
    return sorted(str(one.SOPInstanceUID) for one in sets)


def rejections(server, study):
    answer = requests.get(f"{server.url}/api/rejections", params={"study": study}, timeout=10)
    assert answer.status_code == 200, answer.text
    return {one["instance"]: one for one in answer.json()}


def triptych(server, *arguments):
    command = [BINARY, "rejection", *arguments, "--http", server.url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("code", [QUALITY, SAFETY, WORKLIST])
def test_what_a_note_names_is_in_no_answer_and_comes_back(server, code):
    study, series = generate_uid(), generate_uid()
    kept, bad, worse = image(study, series, 1), image(study, series, 2), image(study, series, 3)
    rejected = note(code, bad, worse)
    assert store(server, kept, bad, worse, rejected) == [0, 0, 0, 0]
    assert found(server, study) == (uids(kept, rejected), 2)
    assert got(server, study) == uids(kept, rejected)
    assert requests.get(server.instance_url(bad), headers={"Accept": "application/dicom"}, timeout=10).status_code == 404
    metadata = requests.get(f"{server.web}/studies/{study}/metadata", timeout=10).json()
    assert sorted(one["00080018"]["Value"][0] for one in metadata) == uids(kept, rejected)

    listed = rejections(server, study)
    assert sorted(listed) == uids(bad, worse)
    one = listed[bad.SOPInstanceUID]
    assert (one["state"], one["code"], one["source"]) == ("hidden", code, "PYTEST")
    assert one["note"]["instance"] == rejected.SOPInstanceUID
    said = triptych(server, "list", "--study", study)
    assert said.returncode == 0 and bad.SOPInstanceUID in said.stdout and code in said.stdout, said

    # Sent again: success, and still out of sight; the study has what it had.
    assert store(server, bad) == [0]
    assert found(server, study) == (uids(kept, rejected), 2)

    place = ["--study", study, "--series", series, "--instance", bad.SOPInstanceUID]
    back = triptych(server, "restore", *place, "--yes", "--json")
    assert json.loads(back.stdout) == {"instances": 1, "lifted": 0}, back
    assert found(server, study) == (uids(kept, bad, rejected), 3)
    assert server.fetch(bad) == raw_bytes(bad)
    nothing = triptych(server, "restore", *place, "--yes")
    assert nothing.returncode != 0 and "rejection list" in nothing.stderr, nothing
    # The same note again does not overrule who restored it.
    assert store(server, rejected) == [0]
    assert found(server, study) == (uids(kept, bad, rejected), 3)


def raw_bytes(set_):
    """The data set as pynetdicom sends it."""
    from pynetdicom.dsutils import encode

    return encode(set_, False, True)


def test_a_whole_study_that_is_rejected_is_not_found_and_expired_data_goes(server):
    study, other, series = generate_uid(), generate_uid(), generate_uid()
    gone = [image(study, series, number) for number in range(3)]
    before = server.totals()
    assert store(server, *gone) == [0, 0, 0]
    # The note lies in another study, as that of a study that was moved.
    expired = note(RETENTION, *gone)
    expired.StudyInstanceUID = other
    assert store(server, expired) == [0]
    assert found(server, study) == ([], 0)
    assert found(server, other) == (uids(expired), 1)
    assert server.totals()["instances"] == before["instances"] + 1
    listed = rejections(server, study)
    assert {one["state"] for one in listed.values()} == {"deleted"}
    # Brought back later: wanted again.
    assert store(server, gone[0]) == [0]
    assert found(server, study) == (uids(gone[0]), 1)


def test_a_note_counts_for_what_comes_after_it(server):
    study, series = generate_uid(), generate_uid()
    late, fine = image(study, series, 1), image(study, series, 2)
    early = note(SAFETY, late)
    assert store(server, early) == [0]
    assert rejections(server, study)[late.SOPInstanceUID]["state"] == "awaited"
    assert store(server, late, fine) == [0, 0]
    assert found(server, study) == (uids(early, fine), 2)
    assert rejections(server, study)[late.SOPInstanceUID]["state"] == "hidden"


def test_a_policy_that_refuses_answers_0124_and_one_that_shows_does_nothing(tmp_path_factory):
    flags = ["--reject-patient-safety", "hide:refuse", "--reject-quality", "show"]
    node = Server(tmp_path_factory.mktemp("policy"), *flags)
    try:
        study, series = generate_uid(), generate_uid()
        unsafe, poor = image(study, series, 1), image(study, series, 2)
        safety, quality = note(SAFETY, unsafe), note(QUALITY, poor)
        assert store(node, unsafe, poor, safety, quality) == [0, 0, 0, 0]
        assert found(node, study) == (uids(poor, safety, quality), 3)
        # The same object again is a store of its own: it is refused, and says so by STOW-RS too.
        assert store(node, unsafe) == [0x0124]
        # What was decided outlives the process.
        node.stop()
        again = Server(node.folder, *flags[:2])
        assert found(again, study) == (uids(poor, safety, quality), 3)
        assert set(rejections(again, study)) == {unsafe.SOPInstanceUID}
        node = again
    finally:
        node.stop()


def test_a_study_that_is_deleted_takes_what_is_hidden_along(server):
    study, series = generate_uid(), generate_uid()
    kept, bad = image(study, series, 1), image(study, series, 2)
    assert store(server, kept, bad, note(QUALITY, bad)) == [0, 0, 0]
    answer = requests.delete(f"{server.web}/studies/{study}", params={"reason": "a test"}, timeout=10)
    assert answer.json()["instances"] == 3
    assert rejections(server, study)[bad.SOPInstanceUID]["state"] == "deleted"


def test_a_request_that_is_wrong_says_what_would_be_right(server):
    for path, query, word in [
        ("/api/rejections", {"studie": "1.2"}, "study=UID"),
        ("/api/rejections", {"limit": "many"}, "limit"),
    ]:
        answer = requests.get(server.url + path, params=query, timeout=10)
        assert answer.status_code == 400 and word in answer.text
    for query, word in [({}, "study=UID"), ({"study": "1.2", "instance": "1.3"}, "series=UID")]:
        answer = requests.post(server.url + "/api/rejections/restore", params=query, timeout=10)
        assert answer.status_code == 400 and word in answer.text


def test_the_verb_deletes_a_study_of_which_everything_is_hidden(server):
    study, other, series = generate_uid(), generate_uid(), generate_uid()
    bad = image(study, series)
    rejected = note(QUALITY, bad)
    rejected.StudyInstanceUID = other
    assert store(server, bad, rejected) == [0, 0]
    assert found(server, study) == ([], 0)
    command = [BINARY, "delete", "--study", study, "--reason", "a test", "--yes", "--json", "--http", server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and json.loads(done.stdout)["instances"] == 1, done
    assert rejections(server, study)[bad.SOPInstanceUID]["state"] == "deleted"
