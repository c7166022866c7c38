"""Nodes come, drain and go under load: what is acknowledged stays on every node, and no read of a member fails."""
import json
import random
import subprocess
import threading

import pytest
import requests
from cluster import Cluster, Instance, Load, verify
from test_mirror import PURGE, holds_alone
from triptych import BINARY


@pytest.fixture
def made(tmp_path):
    clusters = []

    def make(*flags, names):
        clusters.append(Cluster(tmp_path, flags, names))
        clusters[0].everyone = list(clusters[0].nodes)
        return clusters[0]

    yield make
    for cluster in clusters:
        cluster.nodes = cluster.everyone
        cluster.end()


class Reader:
    """Reads acknowledged instances at random members; remembers each that was not there, whole, at once."""

    def __init__(self, load):
        self.load, self.cluster = load, load.cluster
        self.failed, self.count, self.lock, self.stop = [], 0, threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        chance = random.Random("reader")
        while not self.stop.is_set():
            with self.load.lock:
                held = [instance for instance, ended in self.load.history if ended == "ok"]
            if not held:
                self.stop.wait(0.05)
                continue
            instance = chance.choice(held[-20:] if chance.random() < 0.5 else held)
            with self.lock:
                node = chance.choice(self.cluster.nodes)
                try:
                    whole = instance.held(node) == instance.data_set
                except (AssertionError, requests.RequestException) as error:
                    self.failed.append((node.name, instance.uid, repr(error)[:300]))
                else:
                    self.count += 1
                    if not whole:
                        self.failed.append((node.name, instance.uid, "absent or altered"))

    def forget(self, node):
        """The node is no member any more: nothing is asked of it."""
        with self.lock:
            self.cluster.nodes.remove(node)

    def end(self):
        self.stop.set()
        self.thread.join(60)
        assert not self.failed, (self.failed[:5], len(self.failed), self.cluster.said())
        return self.count


def triptych(*words, good=True):
    done = subprocess.run([BINARY, *words], capture_output=True, text=True, timeout=240)
    assert (done.returncode == 0) == good, done.stdout + done.stderr
    return done.stdout + done.stderr


def stored_since(load, count):
    """Whether so many more were acknowledged: work goes on."""
    before = len(load.acknowledged_at)
    return lambda: len(load.acknowledged_at) >= before + count


def leave(cluster, load, reader, node):
    """Drains and removes a node by the command line, asking another."""
    asked = cluster.nodes[0].url
    said = triptych("node", "drain", node.name, "--wait", "--http", asked)
    assert "keeps nothing any more" in said
    listed = json.loads(triptych("node", "list", "--json", "--http", asked))
    assert next(own for own in listed if own["name"] == node.name)["state"] == "drained"
    reader.forget(node)
    triptych("node", "remove", node.name, "--http", asked)
    assert node.process.wait(60) == 70, cluster.said()
    node.process = None
    assert "was removed from the cluster" in (cluster.folder / f"{node.name}.log").read_text()
    cluster.until(stored_since(load, 5), "stores go on", 60)


@pytest.mark.parametrize("flags", [[], PURGE], ids=["log", "purged"])
def test_one_node_becomes_three_becomes_five_becomes_three_under_load(made, flags):
    cluster = made(*flags, names=["n1"])
    n1 = cluster.nodes[0]
    n1.peers = ""
    cluster.start()
    alone = [Instance("alone", number % 8, number) for number in range(30)]
    assert all(instance.store(n1) == "ok" for instance in alone)

    # The single node is started again with its peers, which are empty.
    n2, n3 = cluster.grow("n2", "n3")
    cluster.peers = ",".join(f"{name}={address}" for name, address in cluster.addresses.items())
    n1.stop()
    for node in (n1, n2, n3):
        node.peers = None
        node.start()
    cluster.everyone += [n2, n3]
    cluster.until(n1.ready, "n1 is back", 120)
    load = Load(cluster, "growing", pause=0.4)  # everything is compared on five nodes
    reader = Reader(load)
    for node in (n2, n3):
        cluster.until(node.ready, f"{node.name} has joined", 120)
        cluster.nodes.append(node)
    for node in cluster.nodes:
        cluster.until(lambda node=node: node.sees(3, 3), "three copies", 240)
    assert n2.status()["survives_failures"] == 1
    assert all(instance.held(node) == instance.data_set for instance in alone for node in cluster.nodes)

    n4, n5 = cluster.grow("n4", "n5")
    cluster.everyone += [n4, n5]
    for node in (n4, n5):
        node.start()
        cluster.until(node.ready, f"{node.name} has joined", 120)
        cluster.nodes.append(node)
    for node in cluster.nodes:
        cluster.until(lambda node=node: node.sees(5, 3), "five nodes", 240)
    copies = [node["copies"] for node in n5.status()["nodes"]]
    assert sum(copies) == 3 * 8 and max(copies) - min(copies) <= 1, copies
    cluster.until(stored_since(load, 10), "stores go on", 60)
    with load.lock:
        held = [instance for instance, ended in load.history if ended == "ok"]
    assert all(instance.held(node) == instance.data_set for instance in alone + held for node in cluster.nodes)

    leave(cluster, load, reader, n5)
    leave(cluster, load, reader, n4)
    for node in cluster.nodes:
        cluster.until(lambda node=node: node.sees(3, 3), "three nodes", 240)
    said = triptych("node", "drain", "n3", "--http", n1.url, good=False)
    assert "--reduce" in said, said
    read, history = reader.end(), load.end()
    everything = history + [(instance, "ok") for instance in alone]
    acknowledged = verify(cluster, everything)
    print(f"{acknowledged} of {len(everything)} acknowledged, whole on every node; {read} reads, none failed")
    assert acknowledged > 100 and read > 30
    holds_alone(cluster, n3, [instance for instance, ended in everything if ended == "ok"])


@pytest.mark.parametrize("seed", [1])
def test_nodes_killed_while_copies_move_lose_nothing(made, seed):
    cluster = made(*PURGE, names=["n1", "n2", "n3"])
    cluster.start()
    chance = random.Random(seed)
    load = Load(cluster, f"moving {seed}", pause=0.4)
    cluster.until(stored_since(load, 20), "stores go on", 60)
    new = cluster.grow("n4", "n5")
    cluster.everyone += new
    for node in new:
        node.start()
    for turn in range(4):
        victim = chance.choice(cluster.everyone)
        victim.kill()
        cluster.until(stored_since(load, 5), "stores go on", 60)
        victim.start()
        cluster.until(victim.ready, f"{victim.name} is back", 120)
        if turn == 1:
            triptych("node", "drain", "n2", "--http", victim.url)
    cluster.nodes = cluster.everyone
    for node in cluster.nodes:
        cluster.until(lambda node=node: node.sees(4, 3), "four nodes", 240)
    assert "drained" in triptych("node", "drain", "n2", "--wait", "--json", "--http", cluster.nodes[0].url)
    print(f"{verify(cluster, load.end())} acknowledged, whole on every node")
