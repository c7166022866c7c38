"""Three real processes, killed and started at will; load by C-STORE and STOW-RS with a history that knows *unknown*."""
import hashlib
import random
import shutil
import struct
import subprocess
import threading
import time
import uuid
from io import BytesIO

import requests
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from triptych import BINARY, data_set_bytes, free_port

NAMES = ["n1", "n2", "n3"]
CT = "1.2.840.10008.5.1.4.1.1.2"


class Node:
    """One process of the cluster; its folder outlives it."""

    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name
        self.dimse, self.http = free_port(), free_port()
        self.folder = cluster.folder / name
        self.process = None
        self.peers = None  # None: those of the cluster; "": a single node
        self.url = f"http://127.0.0.1:{self.http}"
        self.web = self.url + "/dicom-web"

    def start(self):
        log = open(self.cluster.folder / f"{self.name}.log", "ab")
        command = [BINARY, "serve", "--data", self.folder, "--name", self.name, "--segment-mib", "64", "--groups", "8"]
        command += ["--dimse", f"127.0.0.1:{self.dimse}", "--http", f"127.0.0.1:{self.http}"]
        peers = self.cluster.peers if self.peers is None else self.peers
        command += [*(["--peers", peers] if peers else []), *self.cluster.flags]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self):
        self.process.terminate()
        code = self.process.wait(60)
        self.process = None
        assert code == 0, self.cluster.said()

    def status(self):
        return requests.get(self.url + "/api/cluster", timeout=5).json()

    def ready(self):
        try:
            return requests.get(self.url + "/health/ready", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def lose(self):
        """The machine is lost with its disk."""
        self.kill()
        shutil.rmtree(self.folder)

    def is_whole(self):
        """A voter in every group that misses nothing."""
        if not self.ready():
            return False
        status = self.status()
        own = next(node for node in status["nodes"] if node["name"] == self.name)
        return own["missing_bytes"] is None and all(own["id"] in group["voter_ids"] for group in status["groups"])

    def sees(self, members, copies):
        """So many nodes keep so many copies of everything, and nothing is under way."""
        if not self.ready():
            return False
        status = self.status()
        stay = [node for node in status["nodes"] if node["state"] == "member"]
        whole = all(node["missing_bytes"] is None and node["health"] == "up" for node in stay)
        settled = status["moving_groups"] == 0 and status["replication_factor"] == copies
        held = [node["copies"] for node in stay]
        even = sum(held) == copies * (len(status["groups"]) - 1) and max(held) - min(held) <= 1
        return settled and whole and even and len(stay) == members

    def applied(self):
        return {group["id"]: group["applied"] for group in self.status()["groups"]}


class Cluster:
    def __init__(self, folder, flags=(), names=NAMES):
        self.folder, self.flags = folder, [str(flag) for flag in flags]
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in names}
        self.peers = ",".join(f"{name}={address}" for name, address in self.addresses.items())
        self.nodes = [Node(self, name) for name in names]

    def grow(self, *names):
        """New nodes, not started: each knows itself and the first member."""
        made = []
        for name in names:
            self.addresses[name] = f"127.0.0.1:{free_port()}"
            made.append(Node(self, name))
            first = self.nodes[0].name
            made[-1].peers = f"{first}={self.addresses[first]},{name}={self.addresses[name]}"
        return made

    def start(self):
        for node in self.nodes:
            if node.process is None:
                node.start()
        for node in self.nodes:
            self.until(node.ready, f"{node.name} is ready")

    def until(self, condition, what, seconds=60):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{self.said()}"
            time.sleep(0.05)

    def said(self):
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n" + log.read_text(errors="replace")[-3000:] for log in logs)

    def leaders(self):
        """Group → name of its leader, as some node sees it."""
        for node in self.nodes:
            if node.process is not None:
                return {group["id"]: group["leader"] for group in node.status()["groups"]}
        return {}

    def named(self, name):
        return next(node for node in self.nodes if node.name == name)

    def end(self):
        for node in self.nodes:
            if node.process is not None:
                node.kill()


def element(group, number, vr, value):
    if vr in (b"OW", b"OB"):
        return struct.pack("<HH2sHI", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def uid(*parts):
    """A UID that follows from its parts."""
    return "2.25." + str(int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:15], "big"))


def padded(text):
    return text.encode() + b"\0" * (len(text) % 2)


class Instance:
    """Everything about it follows from its study and number."""

    def __init__(self, seed, study, number):
        self.study, self.series, self.uid = uid(seed, study), uid(seed, study, "s"), uid(seed, study, number)
        chance = random.Random(self.uid)
        pixels = chance.randbytes(2 * chance.choice([500, 20_000, 260_000, 1_500_000]))
        self.data_set = b"".join(
            [
                element(0x0008, 0x0016, b"UI", padded(CT)),
                element(0x0008, 0x0018, b"UI", padded(self.uid)),
                element(0x0008, 0x0060, b"CS", b"CT"),
                element(0x0010, 0x0020, b"LO", b"P1"),
                element(0x0020, 0x000D, b"UI", padded(self.study)),
                element(0x0020, 0x000E, b"UI", padded(self.series)),
                element(0x7FE0, 0x0010, b"OW", pixels),
            ]
        )
        meta = b"".join(
            [
                element(0x0002, 0x0001, b"OB", b"\0\1"),
                element(0x0002, 0x0002, b"UI", padded(CT)),
                element(0x0002, 0x0003, b"UI", padded(self.uid)),
                element(0x0002, 0x0010, b"UI", padded("1.2.840.10008.1.2.1")),
            ]
        )
        self.file = bytes(128) + b"DICM" + element(0x0002, 0x0000, b"UL", struct.pack("<I", len(meta))) + meta + self.data_set

    def store(self, node):
        """`ok`, `failed` or `unknown`."""
        boundary = uuid.uuid4().hex
        body = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + self.file + f"\r\n--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        try:
            answer = requests.post(node.web + "/studies", data=body, headers={"Content-Type": kind}, timeout=20)
        except requests.ConnectionError:
            return "unknown"
        except requests.RequestException:
            return "unknown"
        if answer.status_code == 200:
            return "ok"
        # 503 covers both "nothing was written" and "nobody knows".
        return "unknown" if answer.status_code in (202, 409, 503) else "failed"

    def store_by_dimse(self, node):
        """The same by C-STORE."""
        entity = AE(ae_title="LOAD")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
        entity.add_requested_context(CT, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", node.dimse, ae_title="TRIPTYCH")
        if not association.is_established:
            return "failed"  # nothing was sent
        try:
            status = association.send_c_store(dcmread(BytesIO(self.file)))
        except (RuntimeError, ValueError):
            return "unknown"
        finally:
            if association.is_established:
                association.release()
        code = status.Status if "Status" in status else None
        # No answer, or out of resources: nobody knows.
        return "ok" if code == 0 else "unknown" if code is None or code & 0xFF00 == 0xA700 else "failed"

    def held(self, node):
        """Its bytes at `node`; None when it is not there."""
        url = f"{node.web}/studies/{self.study}/series/{self.series}/instances/{self.uid}"
        answer = requests.get(url, headers={"Accept": "application/dicom; transfer-syntax=*"}, timeout=20)
        if answer.status_code == 404:
            return None
        assert answer.status_code == 200, (answer.status_code, answer.text, node.cluster.said())
        return data_set_bytes(answer.content)


class Load:
    """Workers that store at random live nodes, by C-STORE and by STOW-RS in turn, and remember how each store ended."""

    def __init__(self, cluster, seed, workers=3, pause=0):
        self.cluster, self.seed, self.pause = cluster, seed, pause
        self.history, self.lock, self.stop = [], threading.Lock(), threading.Event()
        self.acknowledged_at = []
        self.workers = [threading.Thread(target=self.work, args=(number,), daemon=True) for number in range(workers)]
        for worker in self.workers:
            worker.start()

    def work(self, worker):
        chance, number = random.Random((self.seed, worker).__repr__()), 0
        while not self.stop.is_set():
            live = [node for node in self.cluster.nodes if node.process is not None]
            if not live:
                time.sleep(0.05)
                continue
            instance = Instance(self.seed, f"{worker}-{number // 5}", number)
            number += 1
            store = instance.store if number % 2 else instance.store_by_dimse
            ended = store(chance.choice(live))
            with self.lock:
                self.history.append((instance, ended))
                if ended == "ok":
                    self.acknowledged_at.append(time.monotonic())
            self.stop.wait(self.pause)

    def end(self):
        self.stop.set()
        for worker in self.workers:
            worker.join()
        return self.history


def verify(cluster, history):
    """I1, I2, I3: acknowledged ones are whole everywhere; unknown ones whole or absent, the same everywhere; no others."""
    for instance, ended in history:
        copies = [instance.held(node) for node in cluster.nodes]
        if ended == "ok":
            assert all(copy == instance.data_set for copy in copies), f"I1: {instance.uid} was acknowledged\n{cluster.said()}"
        elif ended == "failed":
            assert copies == [None] * len(copies), f"I2: {instance.uid} was refused and is there"
        else:
            same = ([None] * len(copies), [instance.data_set] * len(copies))
            assert copies in same, f"I2: {instance.uid} is neither whole nor absent"
    attempted = {instance.uid for instance, _ in history}
    for node in cluster.nodes:
        offset = 0
        while page := requests.get(f"{node.web}/instances?limit=500&offset={offset}", timeout=30).json():
            phantoms = {found["00080018"]["Value"][0] for found in page} - attempted
            assert not phantoms, f"I3: {node.name} lists {phantoms}"
            offset += len(page)
    return sum(1 for _, ended in history if ended == "ok")
