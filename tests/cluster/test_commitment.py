"""Storage commitment with three nodes: the work goes on at a peer, and only what a majority of disks holds is committed."""
import subprocess
import threading

import pytest
import requests
from cluster import CT, Instance
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel as CLASS, StorageCommitmentPushModelInstance as INSTANCE
from test_damage import segments
from test_mirror import PURGE, purged, store_some
from triptych import BINARY, free_port

PORT = free_port()


@pytest.fixture
def cluster(started):
    return started("--remote-ae", f"LOAD=127.0.0.1:{PORT}")


class Listener:
    """The requester's port, where reports come."""

    def __init__(self):
        self.came, self.arrived = {}, threading.Condition()
        entity = AE(ae_title="LOAD")
        entity.add_supported_context(CLASS, scu_role=False, scp_role=True)
        self.server = entity.start_server(("127.0.0.1", PORT), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.take)])

    def take(self, event):
        report = event.event_information
        failed = {str(item.ReferencedSOPInstanceUID): item.FailureReason for item in report.get("FailedSOPSequence", [])}
        committed = [str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence", [])]
        with self.arrived:
            self.came.setdefault(str(report.TransactionUID), []).append((committed, failed))
            self.arrived.notify_all()
        return 0x0000, None

    def wait_for(self, cluster, transactions, seconds=90):
        """What each came to; a report that came twice said the same."""
        with self.arrived:
            came = self.arrived.wait_for(lambda: all(one in self.came for one in transactions), seconds)
        assert came, f"{len(self.came)} of {len(transactions)} reports came\n{cluster.said()}"
        for reports in self.came.values():
            assert all(report == reports[0] for report in reports)
        return {one: self.came[one][0] for one in transactions}

    def end(self):
        self.server.shutdown()


@pytest.fixture
def listener():
    running = Listener()
    yield running
    running.end()


def ask(node, *instances):
    """Asks for instances and hangs up; answers the transaction."""
    request = Dataset()
    request.TransactionUID = generate_uid()
    request.ReferencedSOPSequence = []
    for instance in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, instance.uid
        request.ReferencedSOPSequence.append(item)
    entity = AE(ae_title="LOAD")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    entity.add_requested_context(CLASS)
    association = entity.associate("127.0.0.1", node.dimse, ae_title="TRIPTYCH")
    assert association.is_established
    status, _ = association.send_n_action(request, 1, CLASS, INSTANCE)
    assert status.Status == 0x0000, node.cluster.said()
    association.release()
    return str(request.TransactionUID)


def test_the_node_that_was_asked_dies_and_its_peers_report(cluster):
    """Twelve transactions in eight groups: the node that is killed leads some of them, and has verified some."""
    n1, n2, n3 = cluster.nodes
    instances = [Instance("commit", number, number) for number in range(4)]
    for instance in instances:
        assert instance.store(n2) == "ok"
    transactions = [ask(n1, *instances) for _ in range(12)]
    # Nobody listens yet: no report has gone out.
    n1.kill()
    listener = Listener()
    try:
        answers = listener.wait_for(cluster, transactions)
    finally:
        listener.end()
    assert all(answer == ([instance.uid for instance in instances], {}) for answer in answers.values()), answers


def damage(node, instance):
    """Flips a bit in every copy of the instance's pixels on a node's disk."""
    pixels, found = instance.data_set[-600:-536], 0
    for path in segments(node):
        contents, at = path.read_bytes(), -1
        while (at := contents.find(pixels, at + 1)) >= 0:
            with open(path, "r+b") as file:
                file.seek(at + 100)
                byte = file.read(1)[0]
                file.seek(at + 100)
                file.write(bytes([byte ^ 1]))
            found += 1
    assert found, f"{instance.uid} is not on the disk of {node.name}"


def test_one_damaged_disk_of_three_is_no_reason_and_two_are(cluster, listener):
    n1, n2, n3 = cluster.nodes
    instances = [Instance("damage", number, number) for number in range(6)]
    for instance in instances:
        assert instance.store(n1) == "ok"
    applied = n1.applied()
    cluster.until(lambda: all(node.applied() == n1.applied() for node in (n2, n3)), f"all nodes hold all: {applied}")
    uids = [instance.uid for instance in instances]
    damage(n2, instances[0])
    answer = listener.wait_for(cluster, [one := ask(n3, *instances)])[one]
    assert answer == (uids, {}), cluster.said()
    damage(n2, instances[1])
    damage(n3, instances[1])
    answer = listener.wait_for(cluster, [one := ask(n2, *instances)])[one]
    assert answer == (uids[:1] + uids[2:], {uids[1]: 0x0110}), cluster.said()
    # The one that is left has given its bytes to the others meanwhile.
    cluster.until(
        lambda: listener.wait_for(cluster, [one := ask(n1, instances[1])])[one] == (uids[1:2], {}), "it is repaired", 30
    )
    assert instances[1].held(n2) == instances[1].data_set


def test_a_replaced_disk_knows_the_transactions(started):
    """With the rows of a snapshot: nothing of the log that made them is left."""
    cluster = started(*PURGE)
    n1, n2, _ = cluster.nodes
    instances = store_some(cluster, "before", 24)
    transactions = [ask(n1, *instances[:3]) for _ in range(8)]
    cluster.until(lambda: purged(cluster), "the log is purged")
    n2.lose()
    n2.start()
    replace = [BINARY, "node", "replace", "n2", "--wait", "--http", n1.url]
    done = subprocess.run(replace, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + cluster.said()
    for transaction in transactions:
        answer = requests.get(f"{n2.web}/commitment-requests/{transaction}", timeout=10)
        assert answer.status_code == 200, (answer.status_code, answer.text, cluster.said())
        found = Dataset.from_json(answer.json())
        committed = [str(item.ReferencedSOPInstanceUID) for item in found.ReferencedSOPSequence]
        assert committed == [instance.uid for instance in instances[:3]] and "FailedSOPSequence" not in found
