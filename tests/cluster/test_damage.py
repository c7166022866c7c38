"""Rot on one of three nodes: a thousand flipped bits, mended by one ordered scrub, nothing cut and nothing lost."""
import json
import random
import subprocess

import requests
from test_mirror import holds_alone, store_some
from triptych import BINARY

FLIPS = 1_000


def segments(node):
    return sorted((node.folder / "log").glob("segment-*.lane"))


def written(path):
    """Bytes up to the last one that is not zero: behind it lies only space that is reserved."""
    return len(path.read_bytes().rstrip(b"\0"))


def rot(node, seed):
    """Flips bits at random places of all segments; answers the bytes that there are."""
    chance = random.Random(seed)
    lengths = [(path, written(path)) for path in segments(node)]
    for _ in range(FLIPS):
        path, length = chance.choices(lengths, [length for _, length in lengths])[0]
        at = chance.randrange(length)
        with open(path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << chance.randrange(8)]))
    return sum(length for _, length in lengths)


def scrub(node):
    done = subprocess.run([BINARY, "scrub", "--wait", "--json", "--http", node.url], capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr + node.cluster.said()
    return done.returncode, json.loads(done.stdout)


def repaired(node):
    """Bodies that were replaced by a peer's copy since the process began."""
    metrics = requests.get(node.url + "/metrics", timeout=5).text
    return float(next(line for line in metrics.splitlines() if line.startswith("raft_groups_repaired_total ")).split()[1])


def mended_by_one_scrub(cluster, node, instances):
    for instance in instances:
        assert instance.held(node) == instance.data_set, cluster.said()
    # What the reads found is being replaced while they go on: how much of it before the scrub, is a matter of time.
    by_reads = repaired(node)
    code, first = scrub(node)
    assert code == 0 and first["damaged_left"] == 0, (first, cluster.said())
    assert by_reads + first["damaged_found"] > 100, (by_reads, first)  # many flips fall into one body
    assert first["damaged_repaired"] == first["damaged_found"], first
    code, second = scrub(node)
    assert code == 0 and second["damaged_found"] == first["damaged_found"], second
    holds_alone(cluster, node, instances)


def test_a_thousand_flips_on_a_running_node(started):
    cluster = started()
    node = cluster.nodes[1]
    instances = store_some(cluster, "before", 120)
    rot(node, 1)
    mended_by_one_scrub(cluster, node, instances)


def test_a_thousand_flips_on_a_stopped_node(started):
    cluster = started()
    node = cluster.nodes[1]
    instances = store_some(cluster, "before", 120)
    node.stop()
    rot(node, 2)
    node.start()
    cluster.until(node.is_whole, "the node is whole", 120)
    mended_by_one_scrub(cluster, node, instances)


def test_compaction_gives_back_what_was_stored_twice(started):
    cluster = started("--log-keep-mib", 1, "--log-keep-seconds", 1)
    instances = store_some(cluster, "once", 30)
    store_some(cluster, "once", 30)
    node = cluster.nodes[0]

    def purged():
        groups = [group for group in node.status()["groups"] if group["id"] and group["applied"]]
        return all(group["purged"] and group["purged"]["index"] + 2 >= group["applied"]["index"] for group in groups)

    cluster.until(purged, "the log is purged")
    scrub(node)  # ends the open segment
    done = subprocess.run([BINARY, "compact", "--wait", "--json", "--http", node.url], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + cluster.said()
    status = json.loads(done.stdout)
    once = sum(len(instance.data_set) for instance in instances)
    assert status["reclaimed_bytes"] > once * 0.7, (json.dumps(status), once)
    holds_alone(cluster, node, instances)
