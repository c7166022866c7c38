"""DICOMweb as its clients use it: dicomweb-client, pydicom's file-sets, ZIP readers, HTTP/2, browsers of other origins."""
import json
import uuid
import xml.etree.ElementTree as ElementTree
import zipfile
from io import BytesIO

import httpx
import pydicom
import pytest
import requests
from conftest import SAMPLES, Server, data_set_bytes
from dicomweb_client.api import DICOMwebClient
from pydicom.fileset import FileSet
from test_web import stow

CT = next(s for s in SAMPLES if s.path.name == "CT_small.dcm")
MULTI = type(CT)(CT.path.with_name("rtdose.dcm"))  # 15 frames, native
NATIVE = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
ANY = (("application/dicom", "*"),)


@pytest.fixture(scope="module")
def client(server):
    assert stow(server, [CT.path.read_bytes(), MULTI.path.read_bytes()]).status_code == 200
    return DICOMwebClient(url=server.web)


def uids(sample):
    return str(sample.header.StudyInstanceUID), str(sample.header.SeriesInstanceUID), str(sample.header.SOPInstanceUID)


def test_dicomweb_client_searches_at_all_levels(client):
    study, series, instance = uids(CT)
    for found in (
        client.search_for_studies(search_filters={"StudyInstanceUID": study}, fields=["StudyDescription", "all"]),
        client.search_for_studies(search_filters={"PatientName": "compressedsamples"}, fuzzymatching=True, limit=10),
        client.search_for_series(search_filters={"Modality": "CT"}),
        client.search_for_series(study),
        client.search_for_instances(search_filters={"SOPInstanceUID": f"{instance},1.2.3"}),
        client.search_for_instances(study, series),
    ):
        assert study in [row["0020000D"]["Value"][0] for row in found]
    page = [row["00080018"]["Value"][0] for offset in (0, 1) for row in client.search_for_instances(limit=1, offset=offset)]
    assert len(set(page)) == 2, "no row twice"


def test_dicomweb_client_retrieves_what_pydicom_reads(server, client):
    study, series, instance = uids(CT)
    expected = pydicom.dcmread(CT.path)
    for metadata in (
        client.retrieve_study_metadata(study)[0],
        client.retrieve_series_metadata(study, series)[0],
        client.retrieve_instance_metadata(study, series, instance),
    ):
        assert pydicom.Dataset.from_json(metadata, lambda *_: None).PatientName == expected.PatientName
    for got in (
        client.retrieve_study(study, media_types=ANY)[0],
        client.retrieve_series(study, series, media_types=ANY)[0],
        client.retrieve_instance(study, series, instance, media_types=ANY),
    ):
        assert got.PixelData == expected.PixelData
    # It leaves the port out of its Host, and so out of the addresses that it is given.
    address = server.web + metadata["7FE00010"]["BulkDataURI"].split("/dicom-web", 1)[1]
    (value,) = client.retrieve_bulkdata(address)
    assert value == expected.PixelData
    study, series, instance = uids(MULTI)
    expected = pydicom.dcmread(MULTI.path)
    length = len(expected.PixelData) // int(expected.NumberOfFrames)
    frames = client.retrieve_instance_frames(study, series, instance, [2, 1], media_types=(("application/octet-stream", "*"),))
    assert frames == [expected.PixelData[length : 2 * length], expected.PixelData[:length]]


def test_dicomweb_client_stores_and_deletes(server, client):
    data_set = pydicom.dcmread(CT.path)
    data_set.StudyInstanceUID = data_set.SeriesInstanceUID = pydicom.uid.generate_uid()
    data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    answer = client.store_instances([data_set])
    assert len(answer.ReferencedSOPSequence) == 1 and "FailedSOPSequence" not in answer
    client.delete_study(data_set.StudyInstanceUID)
    assert requests.get(f"{server.web}/studies/{data_set.StudyInstanceUID}/metadata", timeout=10).status_code == 404


def test_a_study_is_a_zip_and_a_file_set(server, client, tmp_path):
    study, _, instance = uids(CT)
    answer = requests.get(f"{server.web}/studies/{study}", headers={"Accept": "application/zip"}, timeout=30)
    assert answer.status_code == 200, answer.text
    archive = zipfile.ZipFile(BytesIO(answer.content))
    assert archive.testzip() is None
    files = [name for name in archive.namelist() if name != "DICOMDIR"]
    assert CT.bytes in [data_set_bytes(archive.read(name)) for name in files]
    archive.extractall(tmp_path)
    file_set = FileSet(tmp_path / "DICOMDIR")
    assert instance in [str(one.SOPInstanceUID) for one in file_set]
    assert [str(one.load().SOPInstanceUID) for one in file_set] == [str(one.SOPInstanceUID) for one in file_set]
    assert file_set.find_values("StudyInstanceUID") == [study] and file_set.find_values("PatientID") == [CT.header.PatientID]


def test_metadata_and_lists_are_xml_that_others_read(server, client):
    study, series, instance = uids(CT)
    accept = {"Accept": 'multipart/related; type="application/dicom+xml"'}
    for path in (f"/studies/{study}/metadata", f"/studies?StudyInstanceUID={study}&includefield=all"):
        answer = requests.get(server.web + path, headers=accept, timeout=10)
        assert answer.status_code == 200, answer.text
        boundary = answer.headers["Content-Type"].split("boundary=")[1]
        part = answer.content.split(b"--" + boundary.encode())[1].split(b"\r\n\r\n", 1)[1]
        root = ElementTree.fromstring(part.strip())
        assert root.tag == NATIVE + "NativeDicomModel"
        found = {one.get("tag"): one for one in root}
        assert found["0020000D"].findtext(NATIVE + "Value") == study
        family = found["00100010"].findtext(f"{NATIVE}PersonName/{NATIVE}Alphabetic/{NATIVE}FamilyName")
        assert family == CT.header.PatientName.family_name


def test_metadata_with_bulk_values_is_stored_as_pydicom_wrote_it(server):
    data_set = pydicom.dcmread(CT.path)
    data_set.SOPInstanceUID = pydicom.uid.generate_uid()
    pixels, boundary = data_set.PixelData, uuid.uuid4().hex
    bulk = lambda element: f"http://client/{element.tag:08x}"
    model = data_set.to_json_dict(bulk_data_threshold=1024, bulk_data_element_handler=bulk)
    assert model["7FE00010"]["BulkDataURI"] == "http://client/7fe00010"
    body = f"--{boundary}\r\nContent-Type: application/dicom+json\r\n\r\n{json.dumps([model])}\r\n".encode()
    for key in [key for key, value in model.items() if "BulkDataURI" in value]:
        head = f"Content-Type: application/octet-stream\r\nContent-Location: {model[key]['BulkDataURI']}"
        body += f"--{boundary}\r\n{head}\r\n\r\n".encode() + bytes(data_set[int(key, 16)].value) + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    kind = {"Content-Type": f'multipart/related; type="application/dicom+json"; boundary={boundary}'}
    answer = requests.post(server.web + "/studies", data=body, headers=kind, timeout=30)
    assert answer.status_code == 200, answer.text
    accept = {"Accept": "application/dicom; transfer-syntax=*"}
    got = pydicom.dcmread(BytesIO(requests.get(server.instance_url(data_set), headers=accept, timeout=30).content))
    assert got.PixelData == pixels and (got.pixel_array == data_set.pixel_array).all()
    del got.PixelData, data_set.PixelData
    # JSON has numbers where DS has digits (PS3.18 F.2.3.1).
    told = lambda e: [float(v) for v in ([e.value] if e.VM == 1 else e.value)] if e.VR == "DS" and e.VM else str(e.value)
    assert {e.tag: told(e) for e in got} == {e.tag: told(e) for e in data_set}


def test_a_large_object_is_resumed_where_it_was_cut_off(server, client):
    url = server.instance_url(CT.header)
    accept = {"Accept": "application/dicom; transfer-syntax=*"}
    whole = requests.get(url, headers=accept, timeout=10)
    rest = {"Range": "bytes=1000-", "If-Range": whole.headers["ETag"], **accept}
    answer = requests.get(url, headers=rest, timeout=10)
    assert answer.status_code == 206 and whole.content[:1000] + answer.content == whole.content
    assert answer.headers["Content-Range"] == f"bytes 1000-{len(whole.content) - 1}/{len(whole.content)}"
    assert requests.get(url, headers={"If-None-Match": whole.headers["ETag"], **accept}, timeout=10).status_code == 304


def test_http_2_without_tls(server, client):
    study = uids(CT)[0]
    with httpx.Client(http1=False, http2=True, timeout=30) as two:
        for path in (f"/studies/{study}/metadata", "/studies?limit=5", f"/studies/{study}"):
            answer = two.get(server.web + path)
            assert answer.status_code == 200 and answer.http_version == "HTTP/2", answer.text
            assert answer.content


def test_wado_uri_gives_the_object(server, client):
    study, series, instance = uids(CT)
    query = {"requestType": "WADO", "studyUID": study, "seriesUID": series, "objectUID": instance}
    answer = requests.get(server.url + "/wado", params=query | {"contentType": "application/dicom"}, timeout=10)
    assert answer.status_code == 200 and data_set_bytes(answer.content) == CT.bytes


@pytest.mark.parametrize("by_uri,by_path", [
    ({}, {}),
    ({"contentType": "image/png"}, {}),
    ({"contentType": "image/jpeg,image/png", "imageQuality": "40"}, {"quality": "40"}),
    ({"contentType": "image/png", "columns": "50"}, {"viewport": "50,9999"}),
    ({"contentType": "image/png", "rows": "30", "columns": "90"}, {"viewport": "90,30"}),
    ({"contentType": "image/png", "windowCenter": "40", "windowWidth": "400"}, {"window": "40,400,linear"}),
    ({"contentType": "image/png", "frameNumber": "1"}, {}),
])
def test_wado_uri_gives_the_picture_that_wado_rs_gives(server, client, by_uri, by_path):
    study, series, instance = uids(CT)
    query = {"requestType": "WADO", "studyUID": study, "seriesUID": series, "objectUID": instance}
    answer = requests.get(server.url + "/wado", params=query | by_uri, timeout=30)
    kind = "image/png" if by_uri.get("contentType") == "image/png" else "image/jpeg"
    same = requests.get(server.instance_url(CT.header) + "/rendered", params=by_path, headers={"Accept": kind}, timeout=30)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind), answer.text
    assert answer.content == same.content


@pytest.mark.parametrize("asked,status", [
    ({"region": "0,0,0.5,0.5"}, 406), ({"presentationUID": "1.2"}, 406), ({"windowCenter": "40"}, 400), ({"rows": "many"}, 400),
    ({"frameNumber": "first"}, 400), ({"frameNumber": "2"}, 404), ({"contentType": "image/gif"}, 406),
])
def test_wado_uri_leaves_nothing_out_in_silence(server, client, asked, status):
    study, series, instance = uids(CT)
    query = {"requestType": "WADO", "studyUID": study, "seriesUID": series, "objectUID": instance}
    answer = requests.get(server.url + "/wado", params=query | asked, timeout=30)
    assert answer.status_code == status and len(answer.text) > 20, answer.text


def test_the_service_says_what_it_can(server):
    wadl = requests.options(server.web + "/", timeout=10)
    assert wadl.headers["Content-Type"] == "application/vnd.sun.wadl+xml"
    assert ElementTree.fromstring(wadl.content).tag.endswith("application")
    paths = requests.get(server.web + "/", headers={"Accept": "application/json"}, timeout=10).json()["paths"]
    assert "/studies/{study}/series/{series}/instances/{instance}/frames/{list}" in paths


def test_a_viewer_of_another_origin_works_once_it_is_named(tmp_path):
    """What a browser does before OHIF on https://viewer.example gets a frame."""
    server = Server(tmp_path, "--cors-origin", "https://viewer.example")
    try:
        assert stow(server, [CT.path.read_bytes()]).status_code == 200
        url = server.instance_url(CT.header) + "/frames/1"
        for origin, allowed in (("https://viewer.example", "https://viewer.example"), ("https://other.example", None)):
            asked = {"Origin": origin, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "accept"}
            preflight = requests.options(url, headers=asked, timeout=10)
            assert preflight.ok and preflight.headers.get("Access-Control-Allow-Origin") == allowed
            accept = "multipart/related; type=application/octet-stream; transfer-syntax=*"
            answer = requests.get(url, headers={"Origin": origin, "Accept": accept}, timeout=10)
            assert answer.headers.get("Access-Control-Allow-Origin") == allowed
    finally:
        server.stop()
