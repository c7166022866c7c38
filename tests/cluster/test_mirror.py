"""Lost disks and long absences: the others give back what is missing, while work goes on."""
import subprocess
import time

import requests
from cluster import Instance, Load, verify
from triptych import BINARY

# Whatever is a second old is purged from the log, so that only rows and bodies can bring a node up.
PURGE = ["--log-keep-mib", 1, "--log-keep-seconds", 1]


def store_some(cluster, tag, count=40):
    instances = [Instance(tag, number % 8, number) for number in range(count)]
    for number, instance in enumerate(instances):
        live = [node for node in cluster.nodes if node.process is not None]
        assert instance.store(live[number % len(live)]) == "ok"
    return instances


def purged(cluster):
    """Whether some log is purged, so that a node that was away cannot catch up by log alone."""
    live = next(node for node in cluster.nodes if node.process is not None)
    metrics = requests.get(live.url + "/metrics", timeout=5).text
    line = next(line for line in metrics.splitlines() if line.startswith("raft_groups_purged_total "))
    return float(line.split()[1]) >= 8


def holds_alone(cluster, node, instances):
    """Everything lies on this node's own disk: the others are gone."""
    for other in cluster.nodes:
        if other is not node and other.process is not None:
            other.kill()
    for instance in instances:
        assert instance.held(node) == instance.data_set, cluster.said()


def test_a_lost_disk_is_replaced_by_one_command_while_stores_go_on(started):
    cluster = started(*PURGE)
    n1, n2, n3 = cluster.nodes
    before = store_some(cluster, "before")
    cluster.until(lambda: purged(cluster), "the log is purged")
    n2.lose()
    n2.start()
    load = Load(cluster, "meanwhile")
    time.sleep(2)
    assert not n2.ready(), "an empty disk was taken for the lost one"
    command = [BINARY, "node", "replace", "n2", "--wait", "--http", n3.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + cluster.said()
    assert "survives 1 more failure" in done.stdout, done.stdout
    cluster.until(n2.is_whole, "n2 is whole", 120)
    history = load.end()
    assert verify(cluster, history + [(instance, "ok") for instance in before]) > len(before) + 5
    holds_alone(cluster, n2, before + [instance for instance, ended in history if ended == "ok"])


def test_a_lost_disk_replaces_itself_after_the_delay(started):
    cluster = started(*PURGE, "--replace-after-seconds", 5)
    before = store_some(cluster, "before")
    cluster.until(lambda: purged(cluster), "the log is purged")
    n3 = cluster.nodes[2]
    n3.lose()
    n3.start()
    cluster.until(n3.is_whole, "n3 is whole", 120)
    holds_alone(cluster, n3, before)


def test_a_node_that_was_away_for_longer_than_the_log_pulls_only_what_it_misses(started):
    cluster = started(*PURGE)
    n3 = cluster.nodes[2]
    before = store_some(cluster, "before")
    cluster.until(lambda: purged(cluster), "the log is purged")
    n3.kill()
    away = store_some(cluster, "while away", 24)
    # Away until the others have purged what it misses.
    cluster.until(lambda: all_purged(cluster.nodes[0]), "what it misses is purged")
    n3.start()
    cluster.until(n3.is_whole, "n3 is whole", 120)
    metrics = requests.get(n3.url + "/metrics", timeout=5).text
    pulled = next(line for line in metrics.splitlines() if line.startswith("raft_groups_pulled_bytes_total "))
    missed = sum(len(instance.data_set) for instance in away)
    assert float(pulled.split()[1]) <= missed * 1.1 + 1_000_000, "it pulled what it had"
    holds_alone(cluster, n3, before + away)


def all_purged(node):
    status = node.status()
    return all(group["id"] == 0 or group["purged"] == group["applied"] for group in status["groups"] if group["applied"])


def test_a_lost_catalogue_is_rebuilt_from_a_peer(started):
    import shutil

    cluster = started(*PURGE)
    n1 = cluster.nodes[0]
    before = store_some(cluster, "before")
    cluster.until(lambda: all_purged(n1), "the log is purged")
    n1.kill()
    shutil.rmtree(n1.folder / "catalog")
    n1.start()
    cluster.until(n1.is_whole, "n1 is whole", 120)
    holds_alone(cluster, n1, before)


def test_a_member_whose_log_is_gone_does_not_start_under_its_name(started):
    import shutil

    cluster = started()
    n2 = cluster.nodes[1]
    n2.kill()
    shutil.rmtree(n2.folder / "log")
    n2.start()
    assert n2.process.wait(20) == 1
    n2.process = None
    said = (cluster.folder / "n2.log").read_text()
    assert "its log/ is empty" in said and "mirrored anew" in said, said[-500:]
