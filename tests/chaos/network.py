"""Where the nodes live: a network namespace each and a bridge (root), or loopback, where nothing can be cut.

    tchaosPID-sw    the bridge               tchaosPID-n1 … -n3    10.77.0.1 … .3
    tchaosPID-cl    10.77.0.254: this program and its checker enter it, so nothing of the machine's own network is touched

What a crashed run has left (namespaces, their processes, mounts, control groups) goes at the next start.
"""
import ctypes
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

PREFIX = "tchaos"
CLIENT = "cl"


def run(*command, check=True):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if check and done.returncode != 0:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def is_running(pid):
    try:
        return b"chaos" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def sweep_up(own=None):
    """Removes what runs that are dead have left, and what this one (its pid in `own`) has."""

    def is_over(pid):
        return pid == own or not is_running(pid)

    if os.geteuid() != 0:
        return
    names = [line.split()[0] for line in run("ip", "netns", "list", check=False).splitlines() if line.strip()]
    for name in names:
        tag = re.fullmatch(PREFIX + r"(\d+)-\w+", name)
        if tag and is_over(int(tag[1])):
            for pid in run("ip", "netns", "pids", name, check=False).split():
                if int(pid) != os.getpid():
                    subprocess.run(["kill", "-9", pid], capture_output=True)
            run("ip", "netns", "del", name, check=False)
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        place = line.split()[1]
        tag = re.search(f"/{PREFIX}" + r"(\d+)/", place + "/")
        if tag and is_over(int(tag[1])):
            run("umount", "-l", place, check=False)
            # With the images of the disks; the reports beside it stay.
            shutil.rmtree(place[: place.index(tag[0].rstrip("/")) + len(tag[0].rstrip("/"))], ignore_errors=True)
    for group in Path("/sys/fs/cgroup/blkio").glob(f"{PREFIX}*"):
        tag = re.match(PREFIX + r"(\d+)-", group.name)
        if tag and is_over(int(tag[1])):
            # Its processes were killed above; the kernel lets go of the group a moment later.
            deadline = time.monotonic() + 5
            while group.exists() and time.monotonic() < deadline:
                run("rmdir", group, check=False)
                time.sleep(0.05)


class Loopback:
    """All on 127.0.0.1; partitions are skipped, and the report says so."""

    can_cut = False

    def __init__(self, why):
        self.why = why

    def start(self):
        pass

    def command(self, _name):
        return []

    def address(self, _name):
        return "127.0.0.1"

    def port(self, _usual):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    def heal(self):
        pass

    def end(self):
        pass


class Namespaces:
    """A namespace a node; packets are dropped at the ear that hears them."""

    can_cut = True

    def __init__(self, names):
        self.names, self.tag, self.home = names, f"{PREFIX}{os.getpid()}", None

    def start(self):
        switch = f"{self.tag}-sw"
        run("ip", "netns", "add", switch)
        run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "br0", "up")
        for name in [*self.names, CLIENT]:
            space = f"{self.tag}-{name}"
            run("ip", "netns", "add", space)
            run("ip", "-n", space, "link", "set", "lo", "up")
            run("ip", "-n", space, "link", "add", "e0", "type", "veth", "peer", "name", f"p-{name}", "netns", switch)
            run("ip", "-n", switch, "link", "set", f"p-{name}", "master", "br0", "up")
            run("ip", "-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "e0")
            run("ip", "-n", space, "link", "set", "e0", "up")
        for name in self.names:
            self._nft(name, "add table inet f; add chain inet f in { type filter hook input priority 0; }")
        # Before any thread is started: all of them inherit it.
        self.home = open("/proc/self/ns/net")
        self._enter(open(f"/run/netns/{self.tag}-{CLIENT}"))

    def _enter(self, space):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(space.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")

    def _nft(self, name, rules):
        run("ip", "netns", "exec", f"{self.tag}-{name}", "nft", rules)

    def command(self, name):
        return ["nsenter", f"--net=/run/netns/{self.tag}-{name}", "--"]

    def address(self, name):
        return "10.77.0.254" if name == CLIENT else f"10.77.0.{self.names.index(name) + 1}"

    def port(self, usual):
        return usual

    def deafen(self, name, to, percent=100):
        """`name` no longer hears `to`, or hears only some of it."""
        some = "" if percent == 100 else f"numgen random mod 100 < {percent} "
        self._nft(name, f"add rule inet f in ip saddr {self.address(to)} {some}drop")

    def cut(self, one, other):
        self.deafen(one, other)
        self.deafen(other, one)

    def heal(self):
        for name in self.names:
            self._nft(name, "flush chain inet f in")

    def end(self):
        if self.home is not None:
            self._enter(self.home)


def choose(names, wanted="auto"):
    """Namespaces where they work; loopback with the reason where they do not."""
    why = None
    if wanted == "loopback":
        why = "loopback was asked for"
    elif os.geteuid() != 0:
        why = "not root: network namespaces need it"
    else:
        missing = [tool for tool in ("ip", "nft", "nsenter") if shutil.which(tool) is None]
        if missing:
            why = f"{', '.join(missing)} missing: apt-get install iproute2 nftables util-linux"
    if why is None:
        network = Namespaces(names)
        try:
            network.start()
            return network
        except OSError as error:
            sweep_up(os.getpid())
            why = f"network namespaces do not work here: {error}"
    if wanted == "namespaces":
        raise SystemExit(why)
    return Loopback(why)
