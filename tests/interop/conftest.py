"""One server a module, on free ports; after every test it still lives and answers C-ECHO."""
import subprocess
import time
import warnings
from pathlib import Path

import pydicom
import pytest
import requests
from pydicom.data import get_testdata_files
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from triptych import BINARY, data_set_bytes, free_port


class Server:
    """A single node in a folder of its own."""

    def __init__(self, folder, *flags, name="n1", dimse=None, binary=BINARY):
        assert BINARY.exists(), f"{BINARY} is missing: run `cargo build -p archive-server` first"
        self.folder, self.dimse, self.http = folder, dimse or free_port(), free_port()
        self.log = open(folder / "log", "ab")
        command = [binary, "serve", "--data", folder / "data", "--name", name]
        command += [] if "--segment-mib" in flags else ["--segment-mib", "64"]
        command += ["--dimse", f"127.0.0.1:{self.dimse}", "--http", f"127.0.0.1:{self.http}", *flags]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        self.url = f"http://127.0.0.1:{self.http}"
        self.web = self.url + "/dicom-web"
        deadline = time.monotonic() + 30
        while not self.ready():
            assert self.process.poll() is None, "the server ended:\n" + self.said()
            assert time.monotonic() < deadline, "the server is not ready:\n" + self.said()
            time.sleep(0.05)

    def ready(self):
        try:
            return requests.get(self.url + "/health/ready", timeout=2).status_code == 200
        except requests.ConnectionError:
            return False

    def said(self):
        return (self.folder / "log").read_text(errors="replace")

    def stop(self):
        self.process.terminate()
        assert self.process.wait(40) == 0, "the server did not stop in order:\n" + self.said()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def associate(self, contexts, called="TRIPTYCH", roles=None, handlers=None, longest_pdu=None):
        """An association with these (class, [syntaxes]) contexts; fails if it is rejected."""
        ae = AE(ae_title="PYTEST")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
        ae.maximum_pdu_size = longest_pdu or ae.maximum_pdu_size
        for abstract, syntaxes in contexts:
            ae.add_requested_context(abstract, syntaxes)
        association = ae.associate(
            "127.0.0.1", self.dimse, ae_title=called, ext_neg=roles or [], evt_handlers=handlers or []
        )
        assert association.is_established, "no association"
        return association

    def echo(self):
        association = self.associate([(Verification, ["1.2.840.10008.1.2"])])
        assert association.send_c_echo().Status == 0
        association.release()

    def totals(self):
        return requests.get(self.url + "/api/totals", timeout=10).json()

    def instance_url(self, data_set):
        return (
            f"{self.web}/studies/{data_set.StudyInstanceUID}/series/{data_set.SeriesInstanceUID}"
            f"/instances/{data_set.SOPInstanceUID}"
        )

    def fetch(self, data_set):
        """The stored data set's bytes, by WADO-RS: in the encoding they came in, which without `as` may be another."""
        accept = {"Accept": "application/dicom; transfer-syntax=*"}
        answer = requests.get(self.instance_url(data_set), headers=accept, params={"as": "received"}, timeout=30)
        assert answer.status_code == 200, answer.text
        return data_set_bytes(answer.content)


SCP_PORT = free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    flags = ["--remote-ae", f"PYSCP=127.0.0.1:{SCP_PORT}", "--remote-ae", "NOBODY=127.0.0.1:9"]
    running = Server(tmp_path_factory.mktemp("server"), *flags)
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def still_alive(server):
    yield
    assert server.process.poll() is None, "the server ended:\n" + server.said()
    server.echo()


class Sample:
    """A real file: its path, its header, and the bytes of its data set."""

    def __init__(self, path):
        self.path = Path(path)
        self.header = pydicom.dcmread(path, stop_before_pixels=True)
        self.syntax = str(self.header.file_meta.TransferSyntaxUID)
        self.bytes = data_set_bytes(self.path.read_bytes())

    def __repr__(self):
        return self.path.name


# Files that are broken on purpose.
BROKEN = {"MR_truncated.dcm", "rtplan_truncated.dcm", "badVR.dcm"}


def load_samples():
    """The files inside of pydicom's wheel that can be sent: one for each UID, since some are variants of one image."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(get_testdata_files("*.dcm")):
            if Path(path).name in BROKEN or "pydicom/data/test_files" not in path or "dicomdirtests" in path:
                continue
            try:
                sample = Sample(path)
                header = sample.header
                keys = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
                usable = all(header.get(key) for key in keys)
                usable &= header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID
            except Exception:  # no meta group, or no DICOM at all: not a file that can be sent
                continue
            if usable:
                found.setdefault(str(header.SOPInstanceUID), sample)
    return list(found.values())


SAMPLES = load_samples()
