"""What is sent to another application with three nodes: when the node that sends dies, its peer sends the rest."""
import json
import subprocess
import threading
import time

import pytest
import requests
from cluster import CT, Instance
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as MOVE
from triptych import BINARY, free_port

PORT = free_port()


@pytest.fixture
def cluster(started):
    return started("--remote-ae", f"DEST=127.0.0.1:{PORT}")


class Receiver:
    """A destination that takes its time for each image, and keeps what it was sent."""

    def __init__(self, seconds_each):
        self.seconds_each, self.came, self.arrived = seconds_each, {}, threading.Condition()
        entity = AE(ae_title="DEST")
        entity.add_supported_context(CT, ExplicitVRLittleEndian)
        self.server = entity.start_server(("127.0.0.1", PORT), block=False, evt_handlers=[(evt.EVT_C_STORE, self.take)])

    def take(self, event):
        time.sleep(self.seconds_each)
        with self.arrived:
            self.came.setdefault(str(event.request.AffectedSOPInstanceUID), []).append(event.request.DataSet.getvalue())
            self.arrived.notify_all()
        return 0x0000

    def wait_for(self, cluster, count, seconds=120):
        """Until so many different images have come."""
        with self.arrived:
            came = self.arrived.wait_for(lambda: len(self.came) >= count, seconds)
        assert came, f"{len(self.came)} of {count} images came\n{cluster.said()}"

    def end(self):
        self.server.shutdown()


@pytest.fixture
def receiver(request):
    running = Receiver(getattr(request, "param", 0))
    yield running
    running.end()


def study_of(cluster, count):
    """Images of one study, stored."""
    instances = [Instance("send", 1, number) for number in range(count)]
    for instance in instances:
        assert instance.store(cluster.nodes[1]) == "ok", cluster.said()
    return instances


class Move(threading.Thread):
    """A C-MOVE of a study at a node; `statuses` is what came, and ends early when the node dies."""

    def __init__(self, node, study):
        super().__init__(daemon=True)
        self.statuses = []
        entity = AE(ae_title="LOAD")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 60
        entity.add_requested_context(MOVE)
        self.association = entity.associate("127.0.0.1", node.dimse, ae_title="TRIPTYCH")
        assert self.association.is_established
        self.wanted = Dataset()
        self.wanted.QueryRetrieveLevel, self.wanted.StudyInstanceUID = "STUDY", study
        self.start()

    def run(self):
        for status, _ in self.association.send_c_move(self.wanted, "DEST", MOVE):
            self.statuses.append(status.get("Status"))


def sends(node):
    answer = requests.get(node.url + "/api/sends", timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ended(node, state):
    try:
        jobs = sends(node)
    except (requests.RequestException, AssertionError):
        return False
    return jobs and all(job["state"] == state for job in jobs)


def assert_whole(receiver, instances, cluster):
    """Every image came, and each time as it was stored."""
    assert set(receiver.came) == {instance.uid for instance in instances}, cluster.said()
    for instance in instances:
        assert all(data_set == instance.data_set for data_set in receiver.came[instance.uid]), instance.uid


@pytest.mark.parametrize("receiver", [0.5], indirect=True)
def test_the_node_of_a_c_move_is_killed_and_the_destination_gets_the_rest_from_a_peer(cluster, receiver):
    """Fifteen seconds in, progress was written once: what that says is not sent again."""
    n1, n2, n3 = cluster.nodes
    instances = study_of(cluster, 40)
    move = Move(n1, instances[0].study)
    receiver.wait_for(cluster, 30)
    job = sends(n2)
    assert len(job) == 1 and (job[0]["state"], job[0]["node"], job[0]["asked_by"]) == ("running", "n1", "LOAD"), job
    n1.kill()
    move.join(60)
    assert 0x0000 not in move.statuses, "its asker was not told that all is well"
    receiver.wait_for(cluster, 40)
    cluster.until(lambda: ended(n3, "done"), "the job is done")
    assert_whole(receiver, instances, cluster)
    job = sends(n3)[0]
    assert (job["instances"], job["sent"], job["left"], job["failed"]) == (40, 40, 0, 0)
    again = [uid for uid, came in receiver.came.items() if len(came) > 1]
    assert max(len(came) for came in receiver.came.values()) <= 2 and len(again) <= 25, (len(again), cluster.said())
    # The node comes back, and nothing is sent once more.
    count = sum(len(came) for came in receiver.came.values())
    n1.start()
    cluster.until(n1.ready, "n1 is ready")
    assert ended(n1, "done") and sum(len(came) for came in receiver.came.values()) == count


def test_a_c_move_that_is_answered_leaves_no_job(cluster, receiver):
    n1, n2, _ = cluster.nodes
    instances = study_of(cluster, 3)
    move = Move(n1, instances[0].study)
    move.join(60)
    assert move.statuses[-1] == 0x0000, (move.statuses, cluster.said())
    cluster.until(lambda: sends(n2) == [], "the job is gone", 10)
    assert_whole(receiver, instances, cluster)
    assert all(len(came) == 1 for came in receiver.came.values())


def run_json(node, *arguments):
    done = subprocess.run([BINARY, *arguments, "--json", "--http", node.url], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + node.cluster.said()
    return json.loads(done.stdout)


def test_a_send_is_queued_survives_all_nodes_and_arrives_when_its_destination_is_back(cluster):
    n1, n2, n3 = cluster.nodes
    instances = study_of(cluster, 5)
    queued = run_json(n1, "send", "--to", "DEST", "--study", instances[0].study)
    assert queued["instances"] == 5 and len(queued["ids"]) == 1
    cluster.until(lambda: sends(n2)[0]["why"], "an attempt has failed")
    assert f"127.0.0.1:{PORT}" in sends(n3)[0]["why"]
    for node in cluster.nodes:
        node.kill()
    cluster.start()
    receiver = Receiver(0)
    try:
        cluster.until(lambda: ended(n3, "done"), "it is sent", 90)
        assert_whole(receiver, instances, cluster)
        done = run_json(n2, "sends", queued["ids"][0])
        assert (done["state"], done["sent"], done["why"]) == ("done", 5, None)
        one = run_json(n2, "send", "--to", "DEST", "--study", instances[0].study, "--instance", instances[0].uid, "--wait")
        assert [job["state"] for job in one] == ["done"] and len(receiver.came[instances[0].uid]) == 2
    finally:
        receiver.end()
    unknown = requests.post(n1.url + "/api/sends", json={"to": "NOBODY", "study": instances[0].study}, timeout=10)
    assert unknown.status_code == 409 and "peer set NOBODY" in unknown.text
