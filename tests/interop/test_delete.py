"""Deletes as a user orders them: by DICOMweb and by the command line; and what DIMSE shows afterwards."""
import shutil
import subprocess

import pydicom
import pytest
import requests
from pynetdicom.sop_class import CTImageStorage, StudyRootQueryRetrieveInformationModelFind

from conftest import Server
from triptych import BINARY

EXPLICIT = "1.2.840.10008.1.2.1"


def make(study, count):
    """Small images of one series."""
    images = []
    for number in range(1, count + 1):
        image = pydicom.Dataset()
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, f"{study}.1.{number}"
        image.StudyInstanceUID, image.SeriesInstanceUID = study, f"{study}.1"
        image.PatientID, image.Modality, image.InstanceNumber = "D1", "CT", number
        image.file_meta = pydicom.dataset.FileMetaDataset()
        image.file_meta.TransferSyntaxUID = EXPLICIT
        images.append(image)
    return images


def store_all(server, images):
    association = server.associate([(CTImageStorage, [EXPLICIT])])
    for image in images:
        assert association.send_c_store(image).Status == 0
    association.release()


def found(server, study):
    """How many studies C-FIND answers."""
    association = server.associate([(StudyRootQueryRetrieveInformationModelFind, ["1.2.840.10008.1.2"])])
    query = pydicom.Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", study
    answers = [status.Status for status, _ in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)]
    association.release()
    assert answers[-1] == 0
    return len(answers) - 1


def cli(server, *arguments):
    return subprocess.run([BINARY, *arguments, "--http", server.url], capture_output=True, text=True, timeout=30)


def test_a_deleted_study_is_found_by_nobody_and_may_be_sent_anew(server):
    images = make("1.2.826.77.1", count=3)
    store_all(server, images)
    before = server.totals()
    assert found(server, images[0].StudyInstanceUID) == 1
    url = f"{server.web}/studies/{images[0].StudyInstanceUID}"
    answer = requests.delete(url, params={"reason": "test"}, timeout=10)
    assert answer.status_code == 200 and answer.json()["instances"] == 3, answer.text
    assert found(server, images[0].StudyInstanceUID) == 0
    assert requests.get(url, timeout=10).status_code == 404
    assert requests.delete(url, timeout=10).status_code == 404
    assert server.totals()["instances"] == before["instances"] - 3
    store_all(server, images[:1])
    assert found(server, images[0].StudyInstanceUID) == 1
    assert server.fetch(images[0])


def test_the_command_line_asks_first_and_lists_the_reason(server):
    images = make("1.2.826.77.2", count=2)
    store_all(server, images)
    one = ["--study", images[0].StudyInstanceUID, "--series", images[0].SeriesInstanceUID,
           "--instance", images[0].SOPInstanceUID, "--reason", "double"]
    asked = cli(server, "delete", *one)
    assert asked.returncode != 0 and "--yes" in asked.stderr
    done = cli(server, "delete", *one, "--yes", "--json")
    assert done.returncode == 0 and '"instances":1' in done.stdout, done
    gone = cli(server, "delete", *one, "--yes")
    assert gone.returncode != 0 and "no such instance" in gone.stderr
    listed = cli(server, "deletions", "--study", images[0].StudyInstanceUID)
    assert "double" in listed.stdout and images[0].SOPInstanceUID in listed.stdout
    assert requests.get(server.instance_url(images[1]), timeout=10).status_code == 200


@pytest.mark.parametrize("lost", [[], ["catalog"]], ids=["killed", "and its index lost"])
def test_deleted_stays_deleted_when_the_node_starts_again(tmp_path, lost):
    first, images = Server(tmp_path), make("1.2.826.77.3", count=2)
    store_all(first, images)
    path = f"/studies/{images[0].StudyInstanceUID}"
    assert requests.delete(first.web + path, timeout=10).status_code == 200
    first.kill()
    for folder in lost:
        shutil.rmtree(tmp_path / "data" / folder)
    second = Server(tmp_path)
    assert requests.get(second.web + path, timeout=10).status_code == 404
    assert len(requests.get(second.url + "/api/deletions", timeout=10).json()) == 1
    second.stop()
