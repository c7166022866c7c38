"""The servers that are measured: each starts on free ports of this machine, in a folder of its own, and is stopped by its
process id. A peer whose program is missing says so; the bench leaves it out loudly and never guesses its figures."""
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
DLOAD = os.environ.get("DLOAD", os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", "dload"))
# The title of the receiver of C-MOVE, which the driver is at the same time.
RECEIVER = "DSINK"


def free_ports(count):
    """Ports nobody holds now; all are held until all are known, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_until(what, ready, processes, seconds=90):
    """Polls `ready` with a deadline; a process that ended is the answer at once."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for process in processes:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args[0]} ended with {process.returncode} before {what}")
        if ready():
            return
        time.sleep(0.05)
    raise RuntimeError(f"{what}: not within {seconds} s")


def accepts(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def ok(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


class Peer:
    """One server, or several that act as one."""
    name, program, package, title, web, note = "", "", "", "ANY", None, ""
    can = ("store",)
    most_studies = None
    # Debian's DCMTK leaves Nagle's algorithm on and writes each response in two pieces: about 40 ms a message against the
    # sender's delayed ACK. This variable of DCMTK cures it, so every peer that is built on it gets it.
    environment = {"TCP_NODELAY": "1"}

    def __init__(self, work):
        self.folder, self.processes = os.path.join(work, self.name), []

    def missing(self):
        """Why this peer cannot run here, or None."""
        return None if shutil.which(self.program) else f"no `{self.program}`: apt-get install {self.package}"

    def start(self, fresh=True):
        if fresh:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder, exist_ok=True)
        self.dimse, self.http, self.receiver = free_ports(3)
        self.launch()
        wait_until(f"{self.name} accepts associations", lambda: accepts(self.dimse), self.processes)
        if self.web:
            wait_until(f"{self.name} answers HTTP", lambda: accepts(self.http), self.processes)

    def launch(self):
        raise NotImplementedError

    def spawn(self, command, name="log"):
        with open(os.path.join(self.folder, f"{name}.txt"), "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                                       env=dict(os.environ, **self.environment))
        self.processes.append(process)
        return process

    def pids(self):
        return [p.pid for p in self.processes if p.poll() is None]

    def stop(self):
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes = []

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class Sink(Peer):
    """The driver's own receiver, which counts and discards: as fast as the driver can go at all."""
    name, program, title = "sink", DLOAD, RECEIVER
    note = "the driver's discarding receiver: parses the command, keeps nothing"

    def launch(self):
        self.spawn([DLOAD, "sink", "--listen", f"127.0.0.1:{self.dimse}"])


class StoreScp(Peer):
    """DCMTK storescp writes files: no fsync, no index, no queries. The floor of what DIMSE costs."""
    name, program, package, title = "storescp", "storescp", "dcmtk", "STORESCP"
    note = "DCMTK storescp --fork, bit preserving; syncs and indexes nothing"

    def launch(self):
        self.spawn(["storescp", "--fork", "-od", self.folder, "-aet", self.title, "--max-pdu", "131072", "-uf", "+B", str(self.dimse)])


class DcmQrScp(Peer):
    """DCMTK dcmqrscp; its flat index takes one writer at a time and at most 500 studies (it deletes older ones)."""
    name, program, package, title = "dcmqrscp", "dcmqrscp", "dcmtk", "QRSCP"
    note = "DCMTK dcmqrscp with MaxPDUSize 131072; a process per association, flat index file, no fsync"
    can, most_studies = ("store", "find", "get", "move"), 500

    def launch(self):
        os.makedirs(f"{self.folder}/db", exist_ok=True)
        settings = f"{self.folder}/qr.cfg"
        with open(settings, "w") as f:
            f.write(f"NetworkTCPPort = {self.dimse}\nMaxPDUSize = 131072\nMaxAssociations = 64\n"
                    f"HostTable BEGIN\nreceiver = ({RECEIVER}, 127.0.0.1, {self.receiver})\nHostTable END\n"
                    f"VendorTable BEGIN\nVendorTable END\nAETable BEGIN\n{self.title} {self.folder}/db RW (500, 1024mb) ANY\nAETable END\n")
        self.spawn(["dcmqrscp", "-c", settings])


class Orthanc(Peer):
    """Orthanc as Debian ships it: SQLite, SyncStorageArea on."""
    name, program, package, title, web = "orthanc", "Orthanc", "orthanc orthanc-dicomweb", "ORTHANC", "/dicom-web"
    note = "Orthanc, default configuration (SQLite, SyncStorageArea true), DICOMweb plug-in"
    can = ("store", "find", "get", "qido", "wado")
    plugin = os.environ.get("ORTHANC_DICOMWEB", "/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

    def missing(self):
        if os.path.exists(self.plugin):
            return super().missing()
        return super().missing() or f"no {self.plugin}: apt-get install orthanc-dicomweb, or set ORTHANC_DICOMWEB"

    def launch(self):
        settings = f"{self.folder}/orthanc.json"
        with open(settings, "w") as f:
            json.dump({
                "Name": "bench", "StorageDirectory": f"{self.folder}/db", "IndexDirectory": f"{self.folder}/db",
                "DicomPort": self.dimse, "HttpPort": self.http, "DicomAet": self.title, "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False, "DicomAlwaysAllowStore": True, "DicomAlwaysAllowFind": True,
                "DicomAlwaysAllowGet": True, "DicomCheckCalledAet": False, "Plugins": [self.plugin],
                "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
            }, f)
        self.spawn(["Orthanc", settings])


class Triptych(Peer):
    """Ours. One node; or three on this machine, all clients at the first."""
    name, program, title, web, nodes = "triptych", "triptych", "TRIPTYCH", "/dicom-web", 1
    note = "one node, every answer after fdatasync"
    can = ("store", "find", "get", "move", "qido", "wado")
    environment = {}
    binary = os.environ.get("TRIPTYCH_BIN", os.path.join(ROOT, "target", "release", "triptych"))

    def missing(self):
        return None if os.access(self.binary, os.X_OK) else f"no {self.binary}: cargo build --release -p archive-server, or set TRIPTYCH_BIN"

    def start(self, fresh=True):
        if fresh:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder, exist_ok=True)
        # A cluster keeps its addresses over a restart, as its nodes know each other by them.
        if fresh or not hasattr(self, "ports"):
            *ports, self.receiver = free_ports(3 * self.nodes + 1)
            self.ports = [ports[i:i + 3] for i in range(0, len(ports), 3)]
        self.dimse, self.http = self.ports[0][:2]
        self.by_node = [None] * self.nodes
        for i in range(self.nodes):
            self.launch_node(i)
        self.wait_ready()

    def launch_node(self, i):
        dimse, http, peer = self.ports[i]
        command = [self.binary, "serve", "--data", f"{self.folder}/n{i + 1}", "--name", f"n{i + 1}", "--dimse", f"127.0.0.1:{dimse}",
                   "--http", f"127.0.0.1:{http}", "--peer", f"127.0.0.1:{peer}", "--remote-ae", f"{RECEIVER}=127.0.0.1:{self.receiver}"]
        if self.nodes > 1:
            command += ["--peers", ",".join(f"n{k + 1}=127.0.0.1:{p[2]}" for k, p in enumerate(self.ports))]
        self.by_node[i] = self.spawn(command, f"n{i + 1}")

    def wait_ready(self, nodes=None):
        for i in range(self.nodes) if nodes is None else nodes:
            wait_until(f"{self.name} n{i + 1} is ready", lambda: ok(f"http://127.0.0.1:{self.ports[i][1]}/health/ready"), [self.by_node[i]])

    def kill(self, i):
        """`kill -9`, waited for."""
        self.by_node[i].kill()
        self.by_node[i].wait()
        self.processes.remove(self.by_node[i])


class TriptychThree(Triptych):
    name, nodes, note = "triptych-3", 3, "three nodes on this machine's one disk, all clients at the first"


ALL = {peer.name: peer for peer in (Triptych, TriptychThree, Orthanc, DcmQrScp, StoreScp, Sink)}


def install():
    """Debian packages of the peers that are missing; as root or with sudo, else the bench says what to install."""
    packages = sorted({p for peer in ALL.values() if peer.package
                       for p in peer.package.split() if peer("/nonexistent").missing()})
    if not packages or not shutil.which("apt-get"):
        return
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    print(f"installing: {' '.join(packages)}", flush=True)
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"))
    try:
        subprocess.run([*sudo, "apt-get", "update"], **quiet)
        subprocess.run([*sudo, "apt-get", "install", "-y", "--no-install-recommends", *packages], **quiet)
    except OSError as e:
        print(f"could not install: {e}", flush=True)
