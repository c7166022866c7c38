"""Three processes of the server, each with a disk of its own that can be filled, cut off and lost."""
import errno
import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import requests
from network import run

NAMES = ["n1", "n2", "n3"]
# _IOR('X', 125, __u32) of ext4; 2: not even its journal is written out.
EXT4_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2


class Disk:
    """A small ext4 in a file, or just a folder where that cannot be had."""

    def __init__(self, folder, mib, is_real):
        self.image, self.folder, self.mib, self.is_real = folder.with_suffix(".img"), folder, mib, is_real
        folder.mkdir(parents=True)
        if is_real:
            run("truncate", "-s", f"{mib}M", self.image)
            run("mkfs.ext4", "-qF", "-m", "0", "-E", "nodiscard", self.image)
            self.mount()

    def mount(self):
        run("mount", "-o", "loop", self.image, self.folder)

    def device(self):
        """MAJOR:MINOR of its block device."""
        number = os.stat(self.folder).st_dev
        return f"{os.major(number)}:{os.minor(number)}"

    def lose_power(self):
        """From now on nothing reaches the medium; what was not synced never will."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, EXT4_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(handle)

    def power_up(self):
        """Its page cache is gone; the journal is replayed."""
        deadline = time.monotonic() + 10
        while subprocess.run(["umount", self.folder], capture_output=True).returncode != 0:
            if time.monotonic() > deadline:
                raise OSError(f"umount {self.folder} goes on failing")
            time.sleep(0.05)
        self.mount()

    def fill(self, left_percent):
        """Others take the space: all but so much of it."""
        room = os.statvfs(self.folder)
        left = room.f_blocks * room.f_frsize * left_percent // 100
        ballast = self.folder / "ballast"
        handle = os.open(ballast, os.O_CREAT | os.O_WRONLY)
        try:
            piece, at = 1 << 30, 0
            while piece >= 1 << 16:
                now = os.statvfs(self.folder)
                try:
                    if now.f_bavail * now.f_frsize - piece < left:
                        raise OSError(errno.ENOSPC, "as much as is wanted")
                    os.posix_fallocate(handle, at, piece)
                    at += piece
                except OSError:
                    piece //= 2
        finally:
            os.close(handle)

    def free(self):
        (self.folder / "ballast").unlink(missing_ok=True)

    def end(self):
        if self.is_real:
            run("umount", "-l", self.folder, check=False)
            self.image.unlink(missing_ok=True)


class Node:
    """One process; its disk outlives it."""

    def __init__(self, cluster, name):
        self.cluster, self.name, self.network = cluster, name, cluster.network
        self.address = self.network.address(name)
        port = self.network.port
        self.dimse, self.http, self.peer = port(11112), port(8080), port(7400)
        self.url = f"http://{self.address}:{self.http}"
        self.web = self.url + "/dicom-web"
        self.disk = Disk(cluster.folder / name, cluster.disk_mib, cluster.real_disks)
        self.data = self.disk.folder / "data"
        self.log = cluster.report / f"{name}.log"
        self.clock = cluster.folder / f"{name}.clock"
        self.process, self.starts = None, 0

    def start(self):
        """From the main thread only: the process dies with the thread that started it."""
        self.clock.write_text("+0\n")
        env = dict(os.environ)
        if self.cluster.faketime:
            env.update(LD_PRELOAD=self.cluster.faketime, FAKETIME_TIMESTAMP_FILE=str(self.clock), FAKETIME_CACHE_DURATION="1",
                       FAKETIME_DONT_FAKE_MONOTONIC="1", NO_FAKE_STAT="1")
        command = ["setpriv", "--pdeathsig", "KILL", *self.network.command(self.name)]
        command += [self.cluster.binary, "serve", "--data", self.data, "--name", self.name, "--peers", self.cluster.peers()]
        command += ["--dimse", f"{self.address}:{self.dimse}", "--http", f"{self.address}:{self.http}"]
        command += [*self.cluster.flags]
        with open(self.log, "ab") as log:
            log.write(f"--- start {self.starts} at {self.cluster.clock():.3f} s\n".encode())
            log.flush()
            self.process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, env=env, start_new_session=True)
        self.starts += 1

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process is not None:
            self.process.kill()

    def reap(self):
        """After `kill`: until it is really gone."""
        if self.process is not None:
            self.process.wait()
            self.process = None

    def stop(self, seconds=60):
        """SIGTERM; the exit code, or None when it did not end in time."""
        self.process.terminate()
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            self.reap()
            return None
        self.process = None
        return code

    def has_ended(self):
        """Whether the process ended by itself."""
        return self.process is not None and self.process.poll() is not None

    def is_ready(self):
        try:
            return requests.get(self.url + "/health/ready", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def status(self):
        return requests.get(self.url + "/api/cluster", timeout=3).json()

    def metrics(self):
        """Names (with labels) and values."""
        text = requests.get(self.url + "/metrics", timeout=5).text
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    def sample(self):
        """Open files and resident memory of the process."""
        if self.process is None:
            return None
        try:
            files = len(os.listdir(f"/proc/{self.process.pid}/fd"))
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        except OSError:
            return None
        resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
        return {"files": files, "rss_mib": round(resident / 1024, 1)}

    def said(self, lines=15):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Cluster:
    def __init__(self, *, binary, folder, report, network, clock, flags=(), disk_mib=4096, real_disks=False, faketime=None):
        self.binary, self.folder, self.report, self.network, self.clock = binary, folder, report, network, clock
        self.flags, self.disk_mib, self.real_disks, self.faketime = [str(flag) for flag in flags], disk_mib, real_disks, faketime
        self.nodes = [Node(self, name) for name in NAMES]

    def peers(self):
        return ",".join(f"{node.name}={node.address}:{node.peer}" for node in self.nodes)

    def named(self, name):
        return next(node for node in self.nodes if node.name == name)

    def leader_of_most(self):
        """The node that leads most groups, as some node sees it; the first one when none can tell."""
        for node in self.nodes:
            try:
                leaders = [group["leader"] for group in node.status()["groups"]]
                return self.named(max(NAMES, key=leaders.count))
            except (requests.RequestException, ValueError, KeyError):
                continue
        return self.nodes[0]

    def why_not_whole(self):
        """None when every node is ready, misses nothing and votes, and every group has one leader; else the reason."""
        leaders = {}
        for node in self.nodes:
            if node.process is None or node.has_ended():
                return f"{node.name} does not run"
            if not node.is_ready():
                return f"{node.name} is not ready"
            try:
                status = node.status()
            except (requests.RequestException, ValueError) as error:
                return f"{node.name} does not answer: {type(error).__name__}"
            for peer in status["nodes"]:
                if peer["missing_bytes"]:
                    return f"{peer['name']} misses {peer['missing_bytes']} bytes, says {node.name}"
                if peer["health"] != "up":
                    return f"{peer['name']} is {peer['health']}, says {node.name}"
            for group in status["groups"]:
                if sorted(group["voters"]) != NAMES or group["learners"]:
                    return f"group {group['id']} has the voters {group['voters']}, says {node.name}"
                if group["leader"] is None:
                    return f"group {group['id']} has no leader, says {node.name}"
                if leaders.setdefault(group["id"], (group["leader"], group["term"]))[0] != group["leader"]:
                    return f"group {group['id']} has two leaders: {leaders[group['id']]} and {group['leader']}"
        return None

    def positions(self):
        """What each node has applied; the same on all once they have come together."""
        return [{group["id"]: group["applied"] for group in node.status()["groups"]} for node in self.nodes]

    def command(self, *words, seconds=60):
        """`triptych WORDS`, the verb of an operator: (exit code, what it said)."""
        try:
            done = subprocess.run([self.binary, *map(str, words)], capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return None, f"no answer within {seconds} s"
        return done.returncode, (done.stdout + done.stderr).strip()

    def operator_status(self, node):
        """`triptych cluster status --json`."""
        code, said = self.command("cluster", "status", "--json", "--http", node.url, seconds=10)
        return json.loads(said) if code == 0 else None

    def end(self):
        for node in self.nodes:
            if node.process is not None:
                node.signal(signal.SIGCONT)
                node.kill()
                node.reap()
        for node in self.nodes:
            node.disk.end()
        shutil.rmtree(self.folder, ignore_errors=True)
