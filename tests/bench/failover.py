"""`kill -9` of one of three nodes under load, again and again.

    writers        w1 … w8, each its own study, small instances by STOW-RS to a node that lives; a refused or lost
                   request is tried again with the very same bytes until it is answered 200: that is the standstill
    one cycle      all write -> kill a node -> all have written again -> start it -> it is ready -> next cycle
    at the end     every instance that was ever answered 200 is fetched from every node and compared byte for byte

A standstill is measured per writer, from the kill until a write that it began after the kill is acknowledged; the longest of
them is the cycle's.
"""
import http.client
import threading
import time
import uuid

import data

BOUNDARY = "bench-boundary"
WRITERS = 8


def _stow(port, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/dicom-web/studies", body, {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}', "Accept": "application/dicom+json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def _fetch(port, study, instance):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        path = f"/dicom-web/studies/{study}/series/{study}.1/instances/{instance}"
        connection.request("GET", path, headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _dataset(part10):
    """The bytes behind the file meta information, whose length its first element tells."""
    at = part10.index(b"DICM") + 4
    return part10[at + 12 + int.from_bytes(part10[at + 8:at + 12], "little"):]


class Writer:
    """One study that grows."""

    def __init__(self, number, cluster):
        self.cluster, self.number = cluster, number
        self.study = f"2.25.{uuid.uuid4().int}"
        self.acknowledged, self.written = {}, 0     # instance -> its data set; count of acknowledged writes
        self.node, self.stop = number % 3, threading.Event()
        self.thread = threading.Thread(target=self.work)

    def work(self):
        pixels = bytes(8 * 8)
        while not self.stop.is_set():
            uid = f"{self.study}.1.{self.written + 1}"
            file = data.instance(data.SECONDARY_CAPTURE, self.study, self.study + ".1", uid, self.written, 8, pixels, "FAIL^OVER", f"F{self.number}",
                                 "20260101", f"F{self.number}", "OT")
            body = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + file + f"\r\n--{BOUNDARY}--\r\n".encode()
            while not self.stop.is_set():
                try:
                    if _stow(self.cluster.ports[self.node][1], body) == 200:
                        self.acknowledged[uid] = _dataset(file)
                        self.written += 1
                        break
                except (OSError, http.client.HTTPException):
                    pass            # unknown outcome: the same bytes again, at the next node
                self.node = (self.node + 1) % 3
                self.stop.wait(0.02)


def run(cluster, kills, _manifest):
    """The figures of all cycles; `failures` names what is missing or differs."""
    writers = [Writer(i, cluster) for i in range(WRITERS)]
    for writer in writers:
        writer.thread.start()
    longest = []
    try:
        for cycle in range(kills):
            _all_write(writers, "before the kill", 60)
            victim = cycle % 3
            cluster.kill(victim)
            killed = time.monotonic()
            longest.append(_all_write(writers, "after the kill", 60, killed))
            print(f"             kill {cycle + 1} of {kills} (n{victim + 1}): {longest[-1]:.2f} s", flush=True)
            cluster.launch_node(victim)
            cluster.wait_ready([victim])
    finally:
        for writer in writers:
            writer.stop.set()
        for writer in writers:
            writer.thread.join()
    wrong, checked = {}, 0
    for writer in writers:
        for uid, expected in writer.acknowledged.items():
            for i in range(3):
                found = _eventually_same(cluster.ports[i][1], writer.study, uid, expected)
                checked += 1
                if found:
                    wrong[found] = wrong.get(found, 0) + 1
    longest.sort()
    return dict(kills=kills, acknowledged=sum(len(w.acknowledged) for w in writers), comparisons=checked, failures=wrong,
                standstill_s=dict(all=[round(s, 3) for s in longest], p50=longest[len(longest) // 2], max=longest[-1]))


def _all_write(writers, when, seconds, since=None):
    """Waits until each writer has been acknowledged a write that it began after `since`, which is so with the second one
    that ended after it; gives the slowest writer's delay."""
    since = since or time.monotonic()
    counts, done = {w: w.written for w in writers}, {}
    while len(done) < len(writers):
        for writer in writers:
            if writer not in done and writer.written >= counts[writer] + 2:
                done[writer] = time.monotonic() - since
        if time.monotonic() > since + seconds:
            raise RuntimeError(f"{len(writers) - len(done)} of {len(writers)} writers stood still for {seconds} s {when}")
        time.sleep(0.002)
    return max(done.values())


def _eventually_same(port, study, uid, expected, seconds=20):
    """None when the node gives exactly these bytes, at the latest after a moment of catching up; else what is wrong."""
    until = time.monotonic() + seconds
    while True:
        try:
            status, body = _fetch(port, study, uid)
            wrong = None if status == 200 and expected in body else f"status {status}" if status != 200 else "other bytes"
        except (OSError, http.client.HTTPException) as e:
            wrong = f"no answer ({type(e).__name__})"
        if wrong is None or time.monotonic() > until:
            return wrong
        time.sleep(0.05)
