"""DICOMweb, the page, health and metrics, as clients use them."""
import uuid

import pytest
import requests
from conftest import SAMPLES, data_set_bytes

CT = next(s for s in SAMPLES if s.path.name == "CT_small.dcm")


def stow(server, parts, path="/studies", kind="application/dicom"):
    boundary = uuid.uuid4().hex
    body = b""
    for part in parts:
        body += f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + part + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    headers = {"Content-Type": f'multipart/related; type="{kind}"; boundary={boundary}'}
    return requests.post(server.web + path, data=body, headers=headers, timeout=30)


def test_what_is_posted_is_found_and_fetched_byte_for_byte(server):
    answer = stow(server, [sample.path.read_bytes() for sample in SAMPLES[:10]])
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["00081199"]["Value"]) == 10
    for sample in SAMPLES[:10]:
        assert server.fetch(sample.header) == sample.bytes


def test_a_broken_part_fails_alone(server):
    answer = stow(server, [CT.path.read_bytes(), CT.path.read_bytes()[:3000]])
    assert answer.status_code == 202, answer.text
    assert len(answer.json()["00081199"]["Value"]) == 1 and len(answer.json()["00081198"]["Value"]) == 1


@pytest.mark.parametrize(
    "body, kind, status",
    [
        (b"{", "application/json", 415),
        (b"not dicom", "application/dicom", 409),
        (b"", 'multipart/related; type="application/dicom"', 400),
    ],
)
def test_what_cannot_be_stored_is_refused_with_a_body(server, body, kind, status):
    answer = requests.post(server.web + "/studies", data=body, headers={"Content-Type": kind}, timeout=10)
    assert answer.status_code == status and answer.content, (answer.status_code, answer.text)


def test_another_study_in_the_path_is_409(server):
    answer = stow(server, [CT.path.read_bytes()], path="/studies/1.2.3.4")
    assert answer.status_code == 409
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [43265]


def test_metadata_frames_and_bulk_data_of_an_image(server):
    assert stow(server, [CT.path.read_bytes()]).status_code == 200
    url = server.instance_url(CT.header)
    (metadata,) = requests.get(url + "/metadata", timeout=10).json()
    assert metadata["00100010"]["Value"][0]["Alphabetic"] == str(CT.header.PatientName)
    pixels = requests.get(metadata["7FE00010"]["BulkDataURI"], timeout=10, headers={"Accept": "application/octet-stream"})
    frame = requests.get(url + "/frames/1", timeout=10, headers={"Accept": "application/octet-stream; transfer-syntax=*"})
    assert pixels.status_code == frame.status_code == 200
    assert frame.content == pixels.content and frame.content in CT.bytes and len(frame.content) == 128 * 128 * 2
    assert requests.get(url + "/frames/2", timeout=10).status_code == 404


def test_a_series_comes_as_parts(server):
    assert stow(server, [CT.path.read_bytes()]).status_code == 200
    url = f"{server.web}/studies/{CT.header.StudyInstanceUID}/series/{CT.header.SeriesInstanceUID}"
    accept = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    answer = requests.get(url, headers=accept, timeout=10)
    boundary = answer.headers["Content-Type"].split("boundary=")[1].strip('"').split(";")[0]
    parts = answer.content.split(b"--" + boundary.encode())
    files = [part.split(b"\r\n\r\n", 1)[1][:-2] for part in parts[1:-1]]
    assert CT.bytes in [data_set_bytes(file) for file in files]


@pytest.mark.parametrize(
    "path, accept, status",
    [
        ("/studies/1.2.3.4", "*/*", 404),
        ("/studies/1.2.3.4/metadata", "*/*", 404),
        ("/studies/..%2f..%2fetc", "*/*", 400),
        ("/studies?limit=5", "text/csv", 406),
    ],
)
def test_refusals_have_a_body(server, path, accept, status):
    answer = requests.get(server.web + path, headers={"Accept": accept}, timeout=10)
    assert answer.status_code == status and answer.content


def test_the_page_needs_nothing_from_elsewhere(server):
    page = requests.get(server.url + "/", timeout=10)
    assert page.status_code == 200 and "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert "//cdn" not in page.text and "http://" not in page.text.replace("http://www.w3.org", "")


def test_health_cluster_and_metrics_answer(server):
    assert requests.get(server.url + "/health/live", timeout=10).status_code == 200
    cluster = requests.get(server.url + "/api/cluster", timeout=10).json()
    assert cluster["ready"] and len(cluster["groups"]) == 65
    metrics = requests.get(server.url + "/metrics", timeout=10).text
    for name in (
        'archive_service_store_seconds_bucket{stage="receive"',
        'archive_service_store_seconds_bucket{stage="validate"',
        'archive_service_store_seconds_bucket{stage="propose"',
        "raft_lanes_fsync_seconds_bucket",
        "raft_groups_commit_seconds_bucket",
        "raft_groups_apply_seconds_bucket",
        "archive_dimse_answer_seconds_bucket",
    ):
        assert name in metrics, name
    assert str(CT.header.PatientName) not in metrics
