"""What is sent later: a C-MOVE to a peer that is down gets there when it comes up, with the peer's rules applied, in the form that
it takes; also when there are more than ten thousand images."""
import json
import subprocess
import threading
import time

import pydicom
import pytest
import raw
import requests
from conftest import Server
from pydicom.uid import DeflatedExplicitVRLittleEndian as DEFLATED, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as MOVE
from real import parsed
from test_coercion import STORE, associate, image
from test_peers import put, remove
from test_same_content import deflated, inflated
from triptych import BINARY, free_port
from wide import Wide

MANY = 10_050
NAMED_MAX = 10_000


@pytest.fixture
def port():
    return free_port()


@pytest.fixture(autouse=True)
def nobody_is_left(server):
    yield
    for peer in requests.get(server.url + "/api/peers", timeout=10).json()["peers"]:
        remove(server, peer["ae"])


class Receiver:
    """A destination that takes one transfer syntax: what came, by UID."""

    def __init__(self, port, syntax):
        self.came, self.arrived = {}, threading.Condition()
        entity = AE(ae_title="DEST")
        entity.add_supported_context(STORE, syntax)
        self.server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self.take)])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()

    def take(self, event):
        with self.arrived:
            self.came[str(event.request.AffectedSOPInstanceUID)] = event.request.DataSet.getvalue()
            self.arrived.notify_all()
        return 0x0000

    def wait_for(self, server, uids, seconds=60):
        with self.arrived:
            assert self.arrived.wait_for(lambda: set(self.came) == set(uids), seconds), server.said()[-3000:]


def stored(server, *made):
    association = associate(server, "SENDER", [(STORE, [one.file_meta.TransferSyntaxUID]) for one in made])
    for one in made:
        assert association.send_c_store(one).Status == 0x0000
    association.release()


def move(server, study, seconds=60):
    """The final response and its identifier."""
    association = associate(server, "PYTEST", [(MOVE, [raw.IMPLICIT])])
    association.dimse_timeout = seconds
    wanted = pydicom.Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", study
    final, identifier = list(association.send_c_move(wanted, "DEST", MOVE))[-1]
    association.release()
    return final, identifier


def jobs(server):
    return requests.get(server.url + "/api/sends", timeout=10).json()


def until(server, condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{server.said()[-3000:]}"
        time.sleep(0.1)


def test_a_c_move_to_a_peer_that_is_down_gets_there_when_it_comes_up(tmp_path, port, server):
    """Also when the node is started anew meanwhile. And not at all without a policy."""
    own = Server(tmp_path)
    try:
        study = generate_uid()
        made = [image(raw.EXPLICIT, study, 640) for _ in range(3)]
        stored(own, *made)
        put(own, "DEST", address=f"127.0.0.1:{port}")
        final, _ = move(own, study)
        assert (final.Status, final.NumberOfFailedSuboperations) == (0xA702, 3)
        assert jobs(own) == [], "nobody asked for that"
        put(own, "DEST", address=f"127.0.0.1:{port}", retry_days=1)
        final, failed = move(own, study)
        assert (final.Status, final.NumberOfFailedSuboperations) == (0xA702, 3)
        assert len(failed.FailedSOPInstanceUIDList) == 3
        (job,) = jobs(own)
        assert (job["state"], job["left"], job["sent"]) == ("waiting", 3, 0) and str(port) in job["why"]
        own.kill()
        own = Server(tmp_path, dimse=own.dimse)
        with Receiver(port, raw.EXPLICIT) as receiver:
            receiver.wait_for(own, [one.SOPInstanceUID for one in made])
            until(own, lambda: [job["state"] for job in jobs(own)] == ["done"], "the job is done")
        assert all(receiver.came[one.SOPInstanceUID] == own.fetch(one) for one in made)
    finally:
        own.kill()


RULES = ["retrieve PatientID set Q77", "retrieve InstitutionName remove"]


def sent(server, study):
    command = [BINARY, "send", "--to", "DEST", "--study", study, "--wait", "--json", "--http", server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + server.said()[-3000:]
    return json.loads(done.stdout)


def test_rules_are_applied_to_what_is_queued_when_it_is_sent(server, port):
    """The rules of then: they came after the order."""
    study = generate_uid()
    made = image(raw.EXPLICIT, study)
    stored(server, made)
    put(server, "DEST", address=f"127.0.0.1:{port}")
    order = [BINARY, "send", "--to", "DEST", "--study", study, "--http", server.url]
    assert subprocess.run(order, timeout=60, capture_output=True).returncode == 0
    until(server, lambda: any(job["state"] == "waiting" and job["why"] for job in jobs(server)), "an attempt has failed")
    put(server, "DEST", address=f"127.0.0.1:{port}", coerce=RULES)
    with Receiver(port, raw.EXPLICIT) as receiver:
        receiver.wait_for(server, [made.SOPInstanceUID])
    shown = parsed(receiver.came[made.SOPInstanceUID], raw.EXPLICIT)
    assert (shown.PatientID, "InstitutionName" in shown) == ("Q77", False)
    (former,) = shown.OriginalAttributesSequence[-1].ModifiedAttributesSequence
    assert (former.PatientID, former.InstitutionName) == ("P1", "Röntgen")
    assert shown.PixelData == made.PixelData
    assert parsed(server.fetch(made), raw.EXPLICIT).PatientID == "P1", "what is stored stays"


@pytest.mark.parametrize("way", ["C-MOVE", "triptych send"])
def test_a_deflated_object_that_rules_change_goes_to_who_takes_only_deflated(server, port, way):
    study = generate_uid()
    made = image(DEFLATED, study)
    stored(server, made)
    kept = server.fetch(made)
    put(server, "DEST", address=f"127.0.0.1:{port}", coerce=RULES)
    with Receiver(port, DEFLATED) as receiver:
        if way == "C-MOVE":
            assert move(server, study)[0].Status == 0x0000, server.said()[-3000:]
        else:
            assert [job["state"] for job in sent(server, study)] == ["done"]
    came = receiver.came[made.SOPInstanceUID]
    assert len(came) % 2 == 0 and came != kept
    shown = parsed(came, DEFLATED)
    assert (shown.PatientID, "InstitutionName" in shown, shown.PixelData) == ("Q77", False, made.PixelData)
    (former,) = shown.OriginalAttributesSequence[-1].ModifiedAttributesSequence
    assert (former.PatientID, former.InstitutionName) == ("P1", "Röntgen")
    tail = inflated(kept)[-len(made.PixelData) - 12 :]
    assert inflated(came).endswith(tail) and inflated(deflated(inflated(came))) == inflated(came)
    assert server.fetch(made) == kept
    # Without rules every byte as it is stored.
    put(server, "DEST", address=f"127.0.0.1:{port}")
    with Receiver(port, DEFLATED) as receiver:
        assert move(server, study)[0].Status == 0x0000
    assert receiver.came[made.SOPInstanceUID] == kept


def store_many(server, study, uids):
    """Over eight associations at a time."""
    def part(own):
        with raw.Raw(server.dimse, timeout=60) as peer:
            peer.associate([(1, STORE, [raw.IMPLICIT])])
            for number, uid in enumerate(own):
                body = raw.data_set(STORE, uid, study, f"{study}.1", raw.element(0x0020, 0x0013, f"{number} "))
                done.append(peer.store(1, STORE, uid, body, number % 60_000 + 1))
            peer.release()

    done = []
    threads = [threading.Thread(target=part, args=(uids[at::8],)) for at in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert done == [0x0000] * len(uids), server.said()[-3000:]


def test_more_than_ten_thousand_images_go_and_are_queued_and_counted_each(server, port):
    """They are two jobs, and more than a final response names."""
    study = f"2.25.{time.time_ns()}"
    uids = [f"{study}.1.{number}" for number in range(MANY)]
    store_many(server, study, uids)
    put(server, "DEST", address=f"127.0.0.1:{port}", retry_days=1)
    final, identifier = move(server, study, 120)
    assert (final.Status, final.NumberOfFailedSuboperations, final.NumberOfCompletedSuboperations) == (0xA702, MANY, 0)
    named = set(identifier.FailedSOPInstanceUIDList)
    assert len(named) == NAMED_MAX and named < set(uids)
    waiting = [job for job in jobs(server) if job["state"] == "waiting"]
    assert sorted(job["left"] for job in waiting) == [MANY - NAMED_MAX, NAMED_MAX]
    with Wide(port, 8) as wide:
        wide.wait_for(MANY, 240)
        ids = {job["id"] for job in waiting}
        until(server, lambda: {job["state"] for job in jobs(server) if job["id"] in ids} == {"done"}, "both are done")
        assert sorted(uid for uid, _ in wide.came) == sorted(uids), "each once"
        wide.came.clear()
        final, _ = move(server, study, 120)
        assert (final.Status, final.NumberOfCompletedSuboperations, final.NumberOfFailedSuboperations) == (0x0000, MANY, 0)
        assert sorted(uid for uid, _ in wide.came) == sorted(uids)
