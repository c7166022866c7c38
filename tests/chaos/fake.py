"""A small archive in this process that can be told to lose, alter, invent and bring back: for the tests of the checker."""
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import content
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as FIND,
    StudyRootQueryRetrieveInformationModelGet as GET,
)


class FakeNode:
    """Serves what `held` says; the doors can be made to disagree."""

    def __init__(self, speaks_dimse):
        # (study, instance) → PS3.10 file
        self.held = {}
        # What only one door shows.
        self.listed_only, self.found_only, self.listed_twice = [], [], False
        self.altered_by_get, self.refuses, self.metrics, self.versions = set(), False, "", 0
        self.listings, self.from_second_listing = 0, []
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                status, kind, body = node.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        self.dimse = self._dimse() if speaks_dimse else None

    def _dimse(self):
        entity = AE(ae_title="FAKE")
        entity.add_supported_context(FIND, ExplicitVRLittleEndian)
        entity.add_supported_context(GET, ExplicitVRLittleEndian)
        entity.add_supported_context(content.CT, ExplicitVRLittleEndian, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_C_FIND, self.find), (evt.EVT_C_GET, self.get)]
        return entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)

    def address(self):
        dimse = ["127.0.0.1", self.dimse.server_address[1]] if self.dimse else None
        return {"http": f"http://127.0.0.1:{self.server.server_port}", "dimse": dimse}

    def hold(self, study, instance):
        self.held[study, instance] = content.file(study, instance)

    def answer(self, path):
        path, _, query = path.partition("?")
        words = path.strip("/").split("/")
        if path == "/metrics":
            return 200, "text/plain", self.metrics.encode()
        if path == "/api/totals":
            return 200, "application/json", json.dumps({"versions": self.versions}).encode()
        if self.refuses:
            return 503, "text/plain", b"no"
        if path == "/dicom-web/instances":
            return 200, "application/dicom+json", json.dumps(self.list(query)).encode()
        study = words[2]
        mine = [file for (own, _), file in self.held.items() if own == study]
        if len(words) == 3:
            if not mine:
                return 404, "text/plain", b"no"
            body = b"".join(b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in mine)
            return 200, 'multipart/related; type="application/dicom"; boundary=edge', body + b"--edge--\r\n"
        file = self.held.get((study, words[6]))
        return (200, "application/dicom", file) if file else (404, "text/plain", b"no")

    def list(self, query):
        asked = dict(word.split("=") for word in query.split("&"))
        offset, limit = int(asked["offset"]), int(asked["limit"])
        if offset == 0:
            self.listings += 1
        if self.listings == 2:
            for study, instance in self.from_second_listing:
                self.hold(study, instance)
        listed = [instance for _, instance in self.held] * (2 if self.listed_twice else 1) + self.listed_only
        return [{"00080018": {"vr": "UI", "Value": [instance]}} for instance in listed[offset : offset + limit]]

    def find(self, event):
        level = event.identifier.QueryRetrieveLevel
        study = event.identifier.StudyInstanceUID
        if level == "STUDY":
            for found in sorted({own for own, _ in self.held} | set(self.found_only)):
                match = Dataset()
                match.QueryRetrieveLevel, match.StudyInstanceUID = "STUDY", found
                yield 0xFF00, match
            return
        for own, instance in self.held:
            if own == study:
                match = Dataset()
                match.QueryRetrieveLevel, match.StudyInstanceUID, match.SOPInstanceUID = "IMAGE", own, instance
                yield 0xFF00, match

    def get(self, event):
        study = event.identifier.StudyInstanceUID
        mine = [(instance, file) for (own, instance), file in self.held.items() if own == study]
        yield len(mine)
        for instance, file in mine:
            slice_ = dcmread(BytesIO(file))
            if instance in self.altered_by_get:
                slice_.PixelData = slice_.PixelData[:-1] + bytes([slice_.PixelData[-1] ^ 1])
            yield 0xFF00, slice_

    def end(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
        if self.dimse:
            self.dimse.shutdown()
