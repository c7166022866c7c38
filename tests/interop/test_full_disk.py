"""A disk that fills: stores are refused and say to try later, what is held is read, and with space they go on."""
import os
import subprocess
import time

import pytest
import raw
import requests
from conftest import Server
from pydicom.uid import generate_uid
from test_large import CLASS, body, file

DISK_MIB = 192
IMAGE_BYTES = 4 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small-disk")
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: a full disk needs root, to mount a small one")
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder], capture_output=True, text=True)
    if mount.returncode != 0:
        pytest.skip("NOT TESTED: a small disk cannot be mounted here: " + mount.stderr)
    try:
        # What takes the space that is freed later.
        with open(folder / "ballast", "wb") as ballast:
            ballast.write(bytes(64 << 20))
        node = Server(folder, "--segment-mib", "16")
        yield node
        node.stop()
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def store(server, study, series, instance):
    with raw.Raw(server.dimse, timeout=60) as peer:
        kind, _ = peer.associate([(1, CLASS, [raw.IMPLICIT])])
        if kind != raw.ASSOCIATE_AC:
            return None
        status = peer.store(1, CLASS, instance, body(study, series, instance, IMAGE_BYTES))
        peer.release()
        return status


def test_a_full_disk_refuses_stores_for_now_and_nothing_else(server):
    study, series, held = generate_uid(), generate_uid(), []
    for _ in range(2 * DISK_MIB // 4):
        instance = generate_uid()
        status = store(server, study, series, instance)
        if status != 0x0000:
            break
        held.append(instance)
    assert held, "nothing was stored at all: " + server.said()
    assert status is not None and status >> 8 == 0xA7, f"status {status}: {server.said()}"

    answer = requests.post(
        server.web + "/studies",
        data=file(study, series, generate_uid(), IMAGE_BYTES),
        headers={"Content-Type": "application/dicom"},
        timeout=60,
    )
    assert answer.status_code in (503, 507), (answer.status_code, answer.text)
    assert answer.content and "Retry-After" in answer.headers

    for instance in held:
        url = f"{server.web}/studies/{study}/series/{series}/instances/{instance}?as=received"
        got = requests.get(url, headers={"Accept": "application/dicom"}, timeout=30)
        assert got.status_code == 200 and got.content.endswith(body(study, series, instance, IMAGE_BYTES))
    found = requests.get(server.web + "/instances", params={"StudyInstanceUID": study}, timeout=30)
    assert len(found.json()) == len(held), "nothing that was refused is listed"

    (server.folder / "ballast").unlink()
    deadline, again = time.monotonic() + 60, generate_uid()
    while (status := store(server, study, series, again)) != 0x0000:
        assert time.monotonic() < deadline, f"status {status:04x} though there is space: {server.said()}"
        time.sleep(0.5)
    assert server.totals()["instances"] == len(held) + 1
