"""What a cluster does when a node comes back: empty (`mirror`), after minutes away (`lag`), or with many images (`restart`).

    raw copy    one file is read and another written on this same disk, past the page cache, a sync every 64 MiB: what a
                mirror on one disk could reach at most, as its sources read where it writes
    foreground  one association stores CTs one after the other; its p99 with three nodes, with the two that are left, which
                both have to write every image, and with those while the mirror runs: the last over the second is what
                mirroring costs
"""
import json
import shutil
import subprocess
import threading
import time
import urllib.request

import measure


def status(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/cluster", timeout=10) as answer:
        return json.load(answer)


def post(port, path):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", b"{}", {"Content-Type": "application/json"}, method="POST")
    with urllib.request.urlopen(request, timeout=15) as answer:
        answer.read()


def whole(port, name, before=None):
    """Whether the node of this name is a voter everywhere, misses nothing, and is another one than before."""
    try:
        state = status(port)
    except OSError:
        return False
    own = next((node for node in state["nodes"] if node["name"] == name), None)
    return bool(own and own["id"] is not None and own["id"] != before and own["missing_bytes"] is None
                and all(own["id"] in group["voter_ids"] for group in state["groups"]))


def poll(what, condition, seconds=900):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(f"{what}: not within {seconds} s")
        time.sleep(0.1)


class Foreground:
    """A sender that stores the same list again and again until it is stopped; every answer's time counts."""

    def __init__(self, bench, peer, files, associations=1, mb_s=None):
        self.command = [*bench.command(peer, "store"), "--list", files, "--assoc", str(associations)]
        self.mb_s, self.figures, self.stop = mb_s, [], threading.Event()
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        begun, sent = time.monotonic(), 0
        while not self.stop.is_set():
            done = subprocess.run(self.command, capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(done.stderr[-200:])
            self.figures.append(json.loads(done.stdout))
            sent += self.figures[-1]["mb"]
            if self.mb_s:
                self.stop.wait(max(0, sent / self.mb_s - (time.monotonic() - begun)))

    def end(self):
        self.stop.set()
        self.thread.join()
        failures = {}
        for figure in self.figures:
            for what, count in (figure.get("failures") or {}).items():
                failures[what] = failures.get(what, 0) + count
        # The median pass: each stores some seconds of images, and has its own p99.
        return dict(mb=sum(f["mb"] for f in self.figures), failures=failures, passes=len(self.figures),
                    p50_ms=sorted(f["latency_ms"]["p50"] for f in self.figures)[len(self.figures) // 2],
                    p99_ms=sorted(f["latency_ms"]["p99"] for f in self.figures)[len(self.figures) // 2])


def sender_for(seconds, bench, peer, files):
    """What a sender alone is answered in that time."""
    sender = Foreground(bench, peer, files)
    time.sleep(seconds)     # what is measured
    return sender.end()


def mirror(bench, peer, files, foreground_files):
    """n3 is lost with its disk and replaced by an empty one while a sender goes on."""
    raw = measure.copy(peer.folder)
    load = bench.dload(peer, "load", 0, "store", "--list", files, "--assoc", 4, keep=False)
    whole_cluster = sender_for(15, bench, peer, foreground_files)
    old = next(node["id"] for node in status(peer.ports[0][1])["nodes"] if node["name"] == "n3")
    peer.kill(2)
    shutil.rmtree(f"{peer.folder}/n3")
    bench.dload(peer, "load", 0, "store", "--list", foreground_files, "--assoc", 1, keep=False)     # until others lead
    two_left = sender_for(15, bench, peer, foreground_files)
    post(peer.ports[0][1], "/api/nodes/n3/replace")
    beside = Foreground(bench, peer, foreground_files)
    begun = time.monotonic()
    peer.launch_node(2)
    poll("n3 holds everything", lambda: whole(peer.ports[0][1], "n3", old))
    took = time.monotonic() - begun
    beside = beside.end()
    # The same disk gave 190 and 680 MB/s within five minutes: what it gives is asked on both sides of the mirror.
    raw = round((raw + measure.copy(peer.folder)) / 2, 1)
    failures = {**whole_cluster["failures"], **two_left["failures"], **beside["failures"]}
    # What the sender stored meanwhile the new node had to take, too: it is whole only with that.
    mb = load["mb"] + sum(sender["mb"] for sender in (whole_cluster, two_left, beside))
    return dict(mb=round(mb, 1), of_that_stored_meanwhile_mb=round(beside["mb"], 1), mirror_s=round(took, 2), mb_s=round(mb / took, 1), raw_copy_mb_s=raw, of_raw=round(mb / took / raw, 3),
                foreground_p99_ms=dict(three_nodes=whole_cluster["p99_ms"], two_left=two_left["p99_ms"], beside=beside["p99_ms"]),
                p99_over_two_left=round(beside["p99_ms"] / two_left["p99_ms"], 2),
                p99_over_three_nodes=round(beside["p99_ms"] / whole_cluster["p99_ms"], 2), failures=failures)


def lag(bench, peer, files, seconds, mb_s):
    """n3 is down while images come in for minutes; then it catches up."""
    raw = measure.copy(peer.folder)
    peer.kill(2)
    before = [measure.rss_mib(pid)[0] for pid in peer.pids()]
    sender = Foreground(bench, peer, files, associations=8, mb_s=mb_s)
    highest, until = list(before), time.monotonic() + seconds
    while time.monotonic() < until:
        highest = [max(high, measure.rss_mib(pid)[0]) for high, pid in zip(highest, peer.pids())]
        time.sleep(0.5)
    sent = sender.end()
    goal = {group["id"]: group["applied"]["index"] for group in status(peer.ports[0][1])["groups"] if group["applied"]}
    begun = time.monotonic()
    peer.launch_node(2)

    def caught_up():
        try:
            own = {group["id"]: group["applied"] for group in status(peer.ports[2][1])["groups"]}
        except OSError:
            return False
        return all(own.get(group) and own[group]["index"] >= index for group, index in goal.items()) and whole(peer.ports[0][1], "n3")

    poll("n3 has caught up", caught_up)
    took = time.monotonic() - begun
    return dict(mb=round(sent["mb"], 1), away_s=seconds, rss_before_mib=[round(x, 1) for x in before],
                rss_highest_mib=[round(x, 1) for x in highest], catch_up_s=round(took, 2), mb_s=round(sent["mb"] / took, 1),
                raw_copy_mb_s=raw, of_raw=round(sent["mb"] / took / raw, 3), failures=sent["failures"])


def restart(bench, peer, files, count):
    """`kill -9`, and how long the next process takes until it is ready."""
    bench.dload(peer, "load", 0, "store", "--list", files, "--assoc", 8, keep=False)
    took = []
    for _ in range(3):
        for i in range(peer.nodes):
            peer.kill(i)
        begun = time.monotonic()
        for i in range(peer.nodes):
            peer.launch_node(i)
        peer.wait_ready()
        took.append(time.monotonic() - begun)
    return dict(instances=count, ready_s=[round(s, 2) for s in took], longest_ready_s=round(max(took), 2))
