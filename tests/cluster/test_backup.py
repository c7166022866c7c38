"""Backups to a folder, restored; and what is left of a cluster that lost its majority, recovered."""
import json
import subprocess
import sys
import time

import pytest
import requests
from cluster import Cluster, Instance, Node
from triptych import BINARY, free_port


class Alone:
    """A single node on a folder that was made by `restore` or `recover`."""

    def __init__(self, folder, data):
        self.folder, self.flags, self.peers = folder, [], ""
        self.node = Node(self, "n1")
        self.node.folder = data
        self.nodes = [self.node]

    said, until = Cluster.said, Cluster.until

    def __enter__(self):
        self.node.start()
        self.until(self.node.ready, "the single node is ready")
        return self.node

    def __exit__(self, *_):
        if self.node.process is not None:
            self.node.kill()


def run(*arguments, code=0):
    done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=180)
    assert done.returncode == code, (arguments, done.returncode, done.stdout[-3000:], done.stderr[-3000:])
    return done


def run_json(*arguments, code=0):
    return json.loads(run(*arguments, "--json", code=code).stdout)


def store_some(cluster, tag, count):
    """Acknowledged instances; every third one is larger than a block."""
    instances = [Instance(tag, number % 8, number) for number in range(count)]
    for number, instance in enumerate(instances):
        live = [node for node in cluster.nodes if node.process is not None]
        # A sender stores again when it was not answered: while a leader is elected, nobody is.
        cluster.until(lambda: instance.store(live[number % len(live)]) == "ok", f"{instance.uid} is acknowledged")
    return instances


def listed(node):
    """UIDs of all instances."""
    return {found["00080018"]["Value"][0] for found in requests.get(f"{node.web}/instances?limit=500", timeout=30).json()}


def holds(node, instances):
    """Just these, byte for byte."""
    for instance in instances:
        assert instance.held(node) == instance.data_set, instance.uid
    assert listed(node) == {instance.uid for instance in instances}


def body_bytes(instances):
    return sum(len(instance.data_set) for instance in instances)


def test_a_backup_sends_the_difference_and_is_restored_to_either_point(started, tmp_path):
    cluster = started()
    n1, n2, n3 = cluster.nodes
    first = store_some(cluster, "first", 30)
    url = (tmp_path / "backups").as_uri()
    one = run_json("backup", "create", "--to", url, "--http", n2.url)
    assert one["state"] == "done" and one["totals"]["body_bytes"] == body_bytes(first)
    time.sleep(1.1)  # `--at` names a second, and both points must be told apart by it
    second = store_some(cluster, "second", 12)
    gone = first[3]
    answer = requests.delete(f"{n1.web}/studies/{gone.study}/series/{gone.series}/instances/{gone.uid}?reason=asked", timeout=10)
    deleted = answer.status_code < 300
    # Another node makes it: nothing of the first one is on its disk.
    two = run_json("backup", "create", "--to", url, "--http", n3.url)
    assert two["previous"] == one["id"]
    sent, new = two["totals"]["sent_bytes"], body_bytes(second)
    assert new <= sent <= new + 200_000, "only the difference is sent"
    again = run_json("backup", "create", "--to", url, "--http", n1.url)
    assert again["totals"]["sent_bytes"] == 0, "nothing has changed"

    for at in (one["id"], two["id"]):
        report = run_json("backup", "verify", "--from", url, "--at", at)
        assert report["damage"] == [] and report["bodies"] > 0
    backups = run_json("backup", "list", "--from", url)["backups"]
    assert [backup["id"] for backup in backups] == [one["id"], two["id"], again["id"]]

    newest = tmp_path / "newest"
    restored = run_json("restore", "--from", url, "--data", newest)
    assert restored["restored"] == again["id"] and restored["cluster_id"] != restored["from_cluster_id"]
    earlier = tmp_path / "earlier"
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one["finished_unix_ms"] / 1000))
    assert run_json("restore", "--from", url, "--at", began, "--data", earlier)["restored"] == one["id"]
    cluster.end()
    left = [instance for instance in first if not (deleted and instance is gone)] + second
    for data, instances in ((newest, left), (earlier, first)):
        alone = Alone(tmp_path, data)
        with alone as node:
            holds(node, instances)
            status = node.status()
            assert status["cluster_id"] == (restored["cluster_id"] if data is newest else status["cluster_id"])
            assert len(status["groups"]) == 9 and status["survives_failures"] == 0
            more = store_some(alone, f"more {data.name}", 5)
            node.kill()
            node.start()
            alone.until(node.ready, "ready after a kill")
            holds(node, instances + more)

    # A restore replaces nothing, and a folder with a restore that was cut off is no node's.
    refused = run("restore", "--from", url, "--data", newest, code=1)
    assert "not empty" in refused.stderr

    # The oldest goes; what the newer ones need stays.
    dry = run_json("backup", "prune", "--from", url, "--keep", 1)
    assert dry["backups"] == [one["id"], two["id"]] and not dry["done"]
    assert len(run_json("backup", "list", "--from", url)["backups"]) == 3
    run("backup", "prune", "--from", url, "--keep", 1, "--yes")
    assert len(run_json("backup", "list", "--from", url)["backups"]) == 1
    assert run_json("backup", "verify", "--from", url)["damage"] == []


def test_a_flipped_byte_is_found_and_named_and_a_restore_of_it_is_no_node(started, tmp_path):
    cluster = started()
    instances = store_some(cluster, "flip", 24)
    folder = tmp_path / "backups"
    made = run_json("backup", "create", "--to", folder.as_uri(), "--http", cluster.nodes[0].url)
    cluster.end()
    pack = max(folder.glob("*/packs/*/*"), key=lambda file: file.stat().st_size)
    sound = pack.read_bytes()
    flipped = bytearray(sound)
    flipped[len(flipped) // 2] ^= 1
    pack.write_bytes(flipped)
    report = run_json("backup", "verify", "--from", folder.as_uri(), code=1)
    named = "\n".join(damage["object"] for damage in report["damage"])
    assert pack.name in named, report
    human = run("backup", "verify", "--from", folder.as_uri(), code=1)
    assert "DAMAGED" in human.stdout and pack.name in human.stdout

    data = tmp_path / "restored"
    failed = run("restore", "--from", folder.as_uri(), "--data", data, code=1)
    assert pack.name in failed.stderr and "not usable" in failed.stderr, failed.stderr
    refused = run("serve", "--data", data, "--dimse", "127.0.0.1:0", "--http", "127.0.0.1:0", code=1)
    assert "not done" in refused.stderr and "triptych restore" in refused.stderr, refused.stderr

    # With the pack mended the same command goes on where it was.
    pack.write_bytes(sound)
    assert run_json("restore", "--from", folder.as_uri(), "--data", data)["restored"] == made["id"]
    with Alone(tmp_path, data) as node:
        holds(node, instances)

    manifest = next(folder.glob("*/backups/*.json"))
    manifest.write_bytes(manifest.read_bytes().replace(b'"bodies":', b'"bodiez":', 1))
    report = run_json("backup", "verify", "--from", folder.as_uri(), code=1)
    assert manifest.name in report["damage"][0]["object"]


def test_the_survivor_of_three_goes_on_alone_with_everything_acknowledged(started, tmp_path):
    cluster = started()
    n1, n2, n3 = cluster.nodes
    instances = store_some(cluster, "kept", 40)
    old_id = n1.status()["cluster_id"]
    cluster.until(lambda: n1.applied() == n3.applied() == n2.applied(), "all have applied everything")
    busy = run("recover", "--data", n3.folder, "--yes", code=1)
    assert "another process uses this folder" in busy.stderr
    n1.lose()
    n2.lose()
    n3.kill()

    plan = run_json("recover", "--data", n3.folder)
    assert plan["cluster_id"] == old_id and not plan["done"] and sorted(plan["plan"]["absent"]) == ["n1", "n2"]
    said = subprocess.run([BINARY, "recover", "--data", n3.folder], input="no\n", capture_output=True, text=True)
    assert said.returncode == 1 and "nothing was changed" in said.stdout and "at risk" in said.stdout
    done = run_json("recover", "--data", n3.folder, "--name", "n1", "--yes")
    assert done["done"] and done["recovered"]["lost"] == [] and done["new_cluster_id"] != old_id
    alone = Alone(tmp_path, n3.folder)
    with alone as node:
        holds(node, instances)
        assert node.status()["cluster_id"] == done["new_cluster_id"]
        more = store_some(alone, "more", 10)
        node.kill()
        node.start()
        alone.until(node.ready, "ready after a kill")
        holds(node, instances + more)


def test_two_folders_that_are_left_give_together_what_each_misses(started, tmp_path):
    """n3 was away while the others went on and purged: its own log and rows are old. Recovered from n3 with n2 beside it."""
    cluster = started("--log-keep-mib", 1, "--log-keep-seconds", 1)
    n1, n2, n3 = cluster.nodes
    instances = store_some(cluster, "before", 24)
    n3.kill()
    instances += store_some(cluster, "while n3 was away", 24)

    def purged():
        groups = [group for group in n2.status()["groups"] if group["id"] != 0 and group["applied"]]
        return all(group["purged"] == group["applied"] for group in groups)

    cluster.until(purged, "n2 has purged what n3 misses")
    n2.kill()
    n1.lose()
    before = {file: file.stat().st_mtime_ns for file in n2.folder.rglob("*") if file.is_file() and file.name != "LOCK"}
    done = run_json("recover", "--data", n3.folder, "--also", n2.folder, "--name", "n1", "--yes")
    assert done["recovered"]["lost"] == [] and done["recovered"]["copied"]["count"] > 0, done
    after = {file: file.stat().st_mtime_ns for file in n2.folder.rglob("*") if file.is_file() and file.name != "LOCK"}
    assert before == after, "the other folder is only read"
    with Alone(tmp_path, n3.folder) as node:
        holds(node, instances)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """An S3 server in a process of its own, and a bucket in it."""
    port = free_port()
    log = open(tmp_path / "s3.log", "wb")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180  # it imports much
        while True:
            try:
                requests.put(f"{url}/images", timeout=2)
                break
            except requests.RequestException:
                assert time.monotonic() < deadline and server.poll() is None, (tmp_path / "s3.log").read_text()
                time.sleep(0.1)
        environment = {
            "AWS_ENDPOINT": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield "s3://images/some/prefix"
    finally:
        server.kill()
        server.wait()


def test_a_bucket_is_a_store_as_a_folder_is(bucket, started, tmp_path):
    cluster = started()
    instances = store_some(cluster, "s3", 24)
    made = run_json("backup", "create", "--to", bucket, "--http", cluster.nodes[0].url)
    assert made["state"] == "done"
    again = run_json("backup", "create", "--to", bucket, "--http", cluster.nodes[1].url)
    assert again["totals"]["sent_bytes"] == 0
    assert run_json("backup", "verify", "--from", bucket)["damage"] == []
    cluster.end()
    assert run_json("backup", "prune", "--from", bucket, "--keep", 1, "--yes")["backups"] == [made["id"]]
    data = tmp_path / "restored"
    assert run_json("restore", "--from", bucket, "--data", data)["restored"] == again["id"]
    with Alone(tmp_path, data) as node:
        holds(node, instances)
