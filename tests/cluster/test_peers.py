"""The registry of peers on three processes: what is set at one is in force at all, and there again after all have died."""
import threading

import pytest
import requests
from cluster import Cluster
from test_backup import Alone, run_json
from pynetdicom import AE
from pynetdicom.sop_class import Verification


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path)
    made.start()
    yield made
    made.end()


def put(node, title, **entry):
    return requests.put(f"{node.url}/api/peers/{title}", json=entry, timeout=20)


def admitted(node, calling):
    """Whether an association is accepted, and answers an echo."""
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", node.dimse, ae_title="TRIPTYCH")
    if not association.is_established:
        return False
    answered = association.send_c_echo()
    association.release()
    return answered.Status == 0


def listed(node):
    answer = requests.get(node.url + "/api/peers", timeout=10)
    return {peer["ae"]: peer["rights"] for peer in answer.json()["peers"]} if answer.status_code == 200 else None


def test_a_change_at_one_node_is_in_force_at_all_and_survives_a_kill_of_all(cluster):
    n1, n2, n3 = cluster.nodes
    assert all(admitted(node, "STRANGER") for node in cluster.nodes), "until something is set"
    assert put(n2, "CT1", rights=["echo", "store"]).status_code == 201
    assert put(n3, "%2A", rights=[]).status_code == 201
    rules = {"CT1": ["echo", "store"], "*": []}
    for node in cluster.nodes:
        cluster.until(lambda node=node: listed(node) == rules, f"{node.name} knows the peers", 10)
        assert admitted(node, "CT1") and not admitted(node, "STRANGER"), node.name
    for node in cluster.nodes:
        node.kill()
    cluster.start()
    for node in cluster.nodes:
        cluster.until(lambda node=node: listed(node) == rules, f"{node.name} knows the peers", 10)
        assert admitted(node, "CT1") and not admitted(node, "STRANGER"), node.name


def test_changes_at_all_nodes_at_once_are_all_kept(cluster):
    answers = []

    def change(node, number):
        answers.append(put(node, f"AE{number}").status_code)

    work = [threading.Thread(target=change, args=(node, number)) for number, node in enumerate(cluster.nodes * 4)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join(60)
    kept = answers.count(201)
    # One that met too many others says so, and has changed nothing.
    assert kept + answers.count(503) == len(work) and kept >= 3, answers
    for node in cluster.nodes:
        cluster.until(lambda node=node: len(listed(node) or {}) == kept, f"{node.name} knows all {kept}", 10)


def test_without_a_majority_the_rules_hold_and_do_not_change(cluster):
    n1, n2, n3 = cluster.nodes
    assert put(n1, "%2A", rights=[]).status_code == 201
    assert put(n1, "CT1").status_code == 201
    cluster.until(lambda: listed(n3) == {"*": [], "CT1": ["echo", "store", "find", "move", "get", "commit"]}, "n3 knows")
    n1.kill()
    n2.kill()
    assert put(n3, "CT1", rights=["echo"]).status_code == 503
    assert admitted(n3, "CT1") and not admitted(n3, "STRANGER")


def test_who_was_shut_out_stays_out_after_a_restore_and_after_a_recovery(cluster, tmp_path):
    n1, n2, n3 = cluster.nodes
    rules = {"CT1": ["echo"], "*": []}
    assert put(n1, "CT1", rights=["echo"]).status_code == 201
    assert put(n1, "%2A", rights=[]).status_code == 201
    cluster.until(lambda: listed(n3) == rules, "n3 knows the peers", 10)
    url = (tmp_path / "backups").as_uri()
    cluster.until(lambda: listed(n2) == rules, "n2 knows the peers", 10)
    assert run_json("backup", "create", "--to", url, "--http", n2.url)["state"] == "done"
    run_json("restore", "--from", url, "--data", tmp_path / "restored")
    for node in cluster.nodes:
        node.kill()
    assert run_json("recover", "--data", n3.folder, "--name", "n1", "--yes")["done"]
    for data in (tmp_path / "restored", n3.folder):
        with Alone(tmp_path, data) as node:
            cluster.until(lambda node=node: listed(node) == rules, f"{data} knows the peers", 10)
            assert admitted(node, "CT1") and not admitted(node, "STRANGER"), data
