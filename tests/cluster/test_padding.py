"""What tells another padding from another content goes where rows go: to a mirrored disk, into a backup and out of it."""
import copy
import struct
import subprocess

import requests
from cluster import element
from test_backup import Alone, run_json
from test_mirror import PURGE, purged, store_some
from triptych import BINARY


def padded_anew(instance):
    """The same image with Data Set Trailing Padding behind it."""
    made = copy.copy(instance)
    padding = struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, 8) + bytes(8)
    made.data_set, made.file = instance.data_set + padding, instance.file + padding
    return made


def changed(instance):
    made = copy.copy(instance)
    more = element(0x7FE1, 0x0010, b"LO", b"OTHER ")
    made.data_set, made.file = instance.data_set + more, instance.file + more
    return made


def versions(node):
    return requests.get(node.url + "/api/totals", timeout=10).json()["versions"]


def knows_padding(nodes, instances, until, before=0):
    """Padding makes no version at any node, which each decides by its own rows; what was stored first stays."""
    for number, instance in enumerate(instances):
        node = nodes[number % len(nodes)]
        assert padded_anew(instance).store(node) == "ok"
        assert instance.held(node) == instance.data_set
    for node in nodes:
        until(lambda: versions(node) == before, f"{node.name} counts {before} versions, and not {versions(node)}")


def test_a_mirrored_disk_and_a_restored_backup_know_padding(started, tmp_path):
    cluster = started(*PURGE)
    n1, n2, n3 = cluster.nodes
    instances = store_some(cluster, "padding", 24)
    # A version has its digest, too: the padding of either is known.
    other = changed(instances[0])
    other.store(n1)
    cluster.until(lambda: purged(cluster), "the log is purged")
    n2.lose()
    n2.start()
    command = [BINARY, "node", "replace", "n2", "--wait", "--http", n1.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + cluster.said()
    cluster.until(n2.is_whole, "n2 is whole", 120)
    knows_padding(cluster.nodes, instances, cluster.until, 1)
    assert padded_anew(other).store(n2) == "ok"
    cluster.until(lambda: all(node.applied() == n1.applied() for node in cluster.nodes), "all nodes have applied all")
    assert [versions(node) for node in cluster.nodes] == [1, 1, 1]
    url = (tmp_path / "backups").as_uri()
    assert run_json("backup", "create", "--to", url, "--http", n3.url)["state"] == "done"
    run_json("restore", "--from", url, "--data", tmp_path / "restored")
    cluster.end()
    alone = Alone(tmp_path, tmp_path / "restored")
    with alone as node:
        knows_padding([node], instances, alone.until, 1)
        assert padded_anew(other).store(node) == "ok" and versions(node) == 1
