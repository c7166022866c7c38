"""DICOM and DICOMweb clients of one worker: each call is one attempt at one node, and answers how it ended.

An outcome is `ok`, `fail` (surely without effect) or `unknown`. Only what cannot have reached the server, or what it refuses
for what it is, is a `fail`; "out of resources", a cut connection and a missing answer are `unknown`.
"""
import logging
import socket
import subprocess
import threading
import uuid
from io import BytesIO

import content
import requests
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as FIND,
    StudyRootQueryRetrieveInformationModelGet as GET,
    StudyRootQueryRetrieveInformationModelMove as MOVE,
)

logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
CALLED, MOVE_TO = "TRIPTYCH", "CHAOS"
CONNECT_S, ANSWER_S = 2, 10
RECEIVED = "application/dicom"


def _keys(level, study, instance=None):
    keys = Dataset()
    keys.QueryRetrieveLevel = level
    keys.StudyInstanceUID = study
    if level == "IMAGE":
        keys.SeriesInstanceUID = content.series_of(study)
        keys.SOPInstanceUID = instance or ""
    return keys


class Checkpoint:
    """Where pynetdicom's reactor waits while a message of ours is under way. Its own event lets the reactor slip through once
    more and swallow an answer that comes within a millisecond (seen: a C-GET without matches, one in 800); this one is closed
    only when the reactor stands still."""

    def __init__(self, association):
        self.association, self.changed, self.is_open, self.is_held = association, threading.Condition(), True, False

    def is_set(self):
        return self.is_open

    def set(self):
        with self.changed:
            self.is_open = True
            self.changed.notify_all()

    def clear(self):
        with self.changed:
            self.is_open = False
            if threading.current_thread() is self.association:
                return
            self.changed.wait_for(lambda: self.is_held or not self.association.is_alive(), timeout=1)
            if not self.is_held:
                # The connection has just ended, and the reactor has taken the news: nobody would wake who waits for an answer.
                raise RuntimeError("the association has ended")

    def wait(self):
        with self.changed:
            if not self.is_open:
                self.is_held = True
                self.changed.notify_all()
                self.changed.wait_for(lambda: self.is_open)
                self.is_held = False


class Dimse:
    """Associations that stay open, one a node and service, opened again when they break."""

    def __init__(self, addresses):
        self.addresses, self.open, self.came = addresses, {}, {}

    def _association(self, node, syntax, roles=(), handlers=()):
        held = self.open.get((node, syntax))
        if held is not None and held.is_established:
            return held
        entity = AE(ae_title="MODALITY")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = ANSWER_S
        entity.connection_timeout = CONNECT_S
        entity.add_requested_context(syntax, ExplicitVRLittleEndian)
        if syntax == GET:
            entity.add_requested_context(content.CT, ExplicitVRLittleEndian)
        host, port = self.addresses[node]
        association = entity.associate(host, port, ae_title=CALLED, ext_neg=list(roles), evt_handlers=list(handlers))
        if not association.is_established:
            return None
        # pynetdicom writes a message in two pieces; the second one must not wait for the acknowledgement of the first.
        try:
            association.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, AttributeError):
            return None     # it ended as soon as it was there: its node was harmed
        association._reactor_checkpoint = Checkpoint(association)
        self.open[node, syntax] = association
        return association

    def _drop(self, node, syntax):
        association = self.open.pop((node, syntax), None)
        if association is not None and association.is_established:
            association._reactor_checkpoint.set()
            association.abort()

    def store(self, node, study, instance, file):
        association = self._association(node, content.CT)
        if association is None:
            return "fail", "no association"
        try:
            status = association.send_c_store(dcmread(BytesIO(file)))
        except (RuntimeError, ValueError, AttributeError, OSError) as error:
            self._drop(node, content.CT)
            return "unknown", type(error).__name__
        code = status.get("Status")
        if code is None:
            self._drop(node, content.CT)
            return "unknown", "no answer"
        if code == 0:
            return "ok", None
        return ("unknown" if code & 0xFF00 == 0xA700 or code == 0x0110 else "fail"), f"{code:04X}"

    def find(self, node, study, instance=None, level="IMAGE"):
        """(outcome, list of UIDs or the reason): SOP Instance UIDs, or Study Instance UIDs at that level."""
        association = self._association(node, FIND)
        if association is None:
            return "fail", "no association"
        found, last = [], None
        try:
            for status, match in association.send_c_find(_keys(level, study, instance), FIND):
                last = status.get("Status")
                if match is not None and last in (0xFF00, 0xFF01):
                    found.append(str(match.StudyInstanceUID if level == "STUDY" else match.SOPInstanceUID))
        except (RuntimeError, ValueError, AttributeError, OSError) as error:
            self._drop(node, FIND)
            return "fail", type(error).__name__
        if last != 0:
            self._drop(node, FIND) if last is None else None
            return "fail", "no answer" if last is None else f"{last:04X}"
        return "ok", found

    def get(self, node, study):
        """(outcome, {SOP Instance UID: whether its bytes are right} or the reason)."""
        self.came = {}
        role = build_role(content.CT, scp_role=True)
        association = self._association(node, GET, [role], [(evt.EVT_C_STORE, self._keep)])
        if association is None:
            return "fail", "no association"
        last = None
        try:
            for status, _ in association.send_c_get(_keys("STUDY", study), GET):
                last = status.get("Status")
        except (RuntimeError, ValueError, AttributeError, OSError) as error:
            last = type(error).__name__
        if last != 0:
            self._drop(node, GET)
            return "fail", "no answer" if last is None else last if isinstance(last, str) else f"{last:04X}"
        return "ok", self.came

    def _keep(self, event):
        """An instance of the C-GET that is going on; there is one at a time."""
        instance, held = str(event.request.AffectedSOPInstanceUID), event.request.DataSet.getvalue()
        self.came[instance] = content.is_right(str(event.dataset.StudyInstanceUID), instance, held)
        return 0x0000

    def move(self, node, study, destination):
        """(outcome, {SOP Instance UID: whether its bytes are right} or the reason); they come to `destination`."""
        association = self._association(node, MOVE)
        if association is None:
            return "fail", "no association"
        destination.expect(study)
        last = None
        try:
            for status, _ in association.send_c_move(_keys("STUDY", study), MOVE_TO, MOVE):
                last = status.get("Status")
        except (RuntimeError, ValueError, AttributeError, OSError) as error:
            last = type(error).__name__
        if last != 0:
            self._drop(node, MOVE)
            return "fail", "no answer" if last is None else last if isinstance(last, str) else f"{last:04X}"
        return "ok", destination.came(study)

    def close(self):
        for association in list(self.open.values()):
            try:
                if association.is_established:
                    association.release()
            except RuntimeError:
                pass  # ended meanwhile


class Destination:
    """Where C-MOVE sends to: remembers of each instance whether it was right."""

    def __init__(self, host, port):
        self.address, self.kept = f"{MOVE_TO}={host}:{port}", {}
        self.entity = AE(ae_title=MOVE_TO)
        self.entity.add_supported_context(content.CT, ExplicitVRLittleEndian)
        self.entity.maximum_associations = 100
        self.server = self.entity.start_server((host, port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._keep)])

    def _keep(self, event):
        held = event.request.DataSet.getvalue()
        instance = str(event.request.AffectedSOPInstanceUID)
        study = str(event.dataset.StudyInstanceUID)
        self.kept.setdefault(study, {})[instance] = content.is_right(study, instance, held)
        return 0x0000

    def expect(self, study):
        self.kept[study] = {}

    def came(self, study):
        return dict(self.kept.pop(study, {}))

    def end(self):
        self.server.shutdown()


class Web:
    """DICOMweb over one session."""

    def __init__(self, addresses):
        self.addresses, self.session = addresses, requests.Session()

    def _ask(self, method, node, path, **more):
        """(answer, None) or (None, (outcome, reason))."""
        try:
            url = f"{self.addresses[node]}{path}"
            return self.session.request(method, url, timeout=(CONNECT_S, ANSWER_S), **more), None
        except requests.exceptions.ConnectTimeout:
            return None, ("fail", "no connection")
        except requests.ConnectionError as error:
            refused = "NewConnectionError" in str(error) or "Connection refused" in str(error)
            return None, ("fail" if refused else "unknown", "no connection" if refused else "cut")
        except requests.Timeout:
            return None, ("unknown", "no answer")
        except requests.RequestException as error:
            return None, ("unknown", type(error).__name__)

    def store(self, node, study, instance, file):
        boundary = uuid.uuid4().hex
        body = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + file + f"\r\n--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        answer, failed = self._ask("POST", node, "/dicom-web/studies", data=body, headers={"Content-Type": kind})
        if failed:
            return failed
        if answer.status_code == 200:
            return "ok", None
        # 503 covers both "nothing was written" and "nobody knows".
        surely = 400 <= answer.status_code < 500 and answer.status_code not in (408, 409)
        return ("fail" if surely else "unknown"), str(answer.status_code)

    def qido(self, node, study, instance=None):
        one = f"&SOPInstanceUID={instance}" if instance else ""
        answer, failed = self._ask("GET", node, f"/dicom-web/studies/{study}/instances?limit=1000{one}")
        if failed:
            return "fail", failed[1]
        if answer.status_code == 204:
            return "ok", []
        if answer.status_code != 200:
            return "fail", str(answer.status_code)
        try:
            return "ok", [match["00080018"]["Value"][0] for match in answer.json()]
        except ValueError:
            return "fail", "cut"

    def instance(self, node, study, instance):
        """(outcome, {instance: whether its bytes are right}, empty when it is not there)."""
        series = content.series_of(study)
        path = f"/dicom-web/studies/{study}/series/{series}/instances/{instance}?as=received"
        answer, failed = self._ask("GET", node, path, headers={"Accept": RECEIVED})
        if failed:
            return "fail", failed[1]
        if answer.status_code == 404:
            return "ok", {}
        if answer.status_code != 200:
            return "fail", str(answer.status_code)
        return "ok", {instance: content.is_right(study, instance, content.data_set_of(answer.content))}

    def study(self, node, study):
        """The same of a whole study."""
        accept = 'multipart/related; type="application/dicom"'
        answer, failed = self._ask("GET", node, f"/dicom-web/studies/{study}?as=received", headers={"Accept": accept})
        if failed:
            return "fail", failed[1]
        if answer.status_code == 404:
            return "ok", {}
        if answer.status_code != 200:
            return "fail", str(answer.status_code)
        came = {}
        for part in parts(answer.headers.get("Content-Type", ""), answer.content):
            held = content.data_set_of(part) or b""
            instance = content.instance_of(held) or "2.25.0"
            came[instance] = content.is_right(study, instance, held)
        return "ok", came

    def can_delete(self, node):
        """Whether the server knows the method: asked with a study that nobody has."""
        answer, _ = self._ask("DELETE", node, "/dicom-web/studies/2.25.1")
        return answer is not None and answer.status_code not in (405, 501)

    def delete(self, node, study, instance=None, by_series=False):
        """(outcome, reason); `404` is "there is no such thing", which is also what a repeated order answers."""
        path = f"/dicom-web/studies/{study}"
        if instance is not None or by_series:
            path += f"/series/{content.series_of(study)}"
        if instance is not None:
            path += f"/instances/{instance}"
        answer, failed = self._ask("DELETE", node, path)
        if failed:
            return failed
        if answer.status_code in (200, 204):
            return "ok", None
        surely = 400 <= answer.status_code < 500 and answer.status_code not in (408, 409)
        return ("fail" if surely else "unknown"), str(answer.status_code)


def delete_by_command(binary, url, study, instance=None):
    """`triptych delete`: the same answers."""
    command = [binary, "delete", "--study", study, "--reason", "chaos", "--yes", "--http", url]
    if instance is not None:
        command += ["--series", content.series_of(study), "--instance", instance]
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return "unknown", "no answer"
    if done.returncode == 0:
        return "ok", None
    if "no such" in done.stderr or "404" in done.stderr:
        return "fail", "404"
    return "unknown", done.stderr.strip()[:80]


def parts(content_type, body):
    """Bodies of a multipart answer; a cut one ends early."""
    marker = next((word.split("=", 1)[1].strip('" ') for word in content_type.split(";") if word.strip().startswith("boundary=")), None)
    if marker is None:
        return
    delimiter = b"--" + marker.encode()
    at = body.find(delimiter)
    while at >= 0 and body[at + len(delimiter) : at + len(delimiter) + 2] != b"--":
        following = body.find(b"\r\n" + delimiter, at)
        if following < 0:
            return
        head = body.find(b"\r\n\r\n", at)
        yield body[head + 4 : following]
        at = following + 2
