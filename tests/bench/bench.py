#!/usr/bin/env python3
"""Measures Triptych beside other archives, in one run on one machine, and prints the ratios; see README.md.
Standard library only; the driver is the crate `dload` in load/."""
import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import data
import failover
import measure
import move
import peers
import rendered
import repair
import report
import small

BASE = os.environ.get("BENCH_DIR", os.path.join(peers.ROOT, "target", "bench"))
INSTANCES = 'multipart/related; type="application/dicom"; transfer-syntax=*'


class Bench:
    """The runs; each appends its figures to `rows`."""

    def __init__(self, options, manifest):
        self.o, self.manifest, self.rows = options, manifest, []
        self.temporary = os.path.join(BASE, "tmp")
        os.makedirs(self.temporary, exist_ok=True)

    def record(self, peer, test, round_, meter=None, **figures):
        row = dict(peer=peer if isinstance(peer, str) else peer.name, test=test, round=round_, **(meter.r if meter else {}), **figures)
        if row.get("mb") and "server_cpu_s" in row:
            row["server_cpu_s_per_gb"] = round(row["server_cpu_s"] / (row["mb"] / 1000), 2)
        if row["test"] == "small" and row.get("instances"):
            row["server_cpu_ms_per_instance"] = round(row["server_cpu_s"] * 1e3 / row["instances"], 4)
        if row.get("requests") and "server_cpu_s" in row:
            row["server_cpu_ms_per_request"] = round(row["server_cpu_s"] * 1e3 / row["requests"], 3)
        self.rows.append(row)
        query = row["test"].startswith(("cfind", "qido", "pid", "rendered", "frame"))
        keys = ("req_s", "server_cpu_ms_per_request") if query else ("mb_s", "inst_s", "server_cpu_s_per_gb")
        shown = {k: row[k] for k in (*keys, "server_peak_rss_mib", "foreign_cpu_s", "kills", "acknowledged", "standstill_s",
                                                             "mirror_s", "of_raw", "raw_copy_mb_s", "p99_over_two_left", "p99_over_three_nodes", "catch_up_s", "rss_highest_mib", "longest_ready_s",
                                                             "first_over_last", "cpu_last_over_first", "server_cpu_ms_per_instance", "disk_mib") if row.get(k)}
        if "latency_ms" in row:
            shown.update(p50=round(row["latency_ms"]["p50"], 2), p99=round(row["latency_ms"]["p99"], 2))
        for wrong in ("failures", "error"):
            if row.get(wrong):
                shown[wrong] = row[wrong]
        print(f"{row['peer']:12} {test:26} #{round_} " + " ".join(f"{k}={v}" for k, v in shown.items()), flush=True)
        return row

    def write_lines(self, name, lines):
        path = os.path.join(self.temporary, name)
        with open(path, "w") as f:
            f.write("\n".join(lines) + "\n")
        return path

    def files(self, kind, first=0, last=None):
        return self.write_lines(f"{kind}-{first}-{last}.txt", [os.path.join(BASE, "data", f) for s in self.manifest[kind][first:last] for f in s["files"]])

    def command(self, peer, operation):
        return [peers.DLOAD, operation, "--addr", f"127.0.0.1:{peer.dimse}", "--called", peer.title]

    def dload(self, peer, test, round_, operation, *arguments, keep=True, judge=None):
        """One run of the driver; what it did not get done is in the row as `failures` or `error`. `judge` gives what else
        the row shall say of its figures, such as failures that the driver cannot know of."""
        command = [*self.command(peer, operation), *map(str, arguments)]
        with measure.Meter(peer.pids()) as meter:
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=self.o.timeout)
            except subprocess.TimeoutExpired:
                done = subprocess.CompletedProcess(command, 1, "", f"not done within {self.o.timeout} s")
        figures = json.loads(done.stdout) if done.returncode == 0 else dict(error=done.stderr.strip()[-200:])
        figures.pop("op", None)
        if judge and "error" not in figures:
            figures.update(judge(figures))
        if keep:
            return self.record(peer, test, round_, meter, **figures)
        if figures.get("error") or figures.get("failures"):
            print(f"{peer.name:12} {test}: {figures}", flush=True)
            raise RuntimeError(f"{test} failed")
        return figures

    # ---- the tests; each is called once a round for each peer that can take it

    def ingest(self, peer, round_):
        """CTs over 1, 4 and 16 associations, each into an empty store."""
        for associations in self.o.associations:
            subprocess.run(["sync", "-f", BASE], check=False)
            last = max(1, self.o.ct_studies // 3) if associations == 1 else -1
            peer.start()
            try:
                # The last study warms every peer up: first files, first segment, first connections are not what is asked here.
                self.dload(peer, "warm-up", round_, "store", "--list", self.files("ct", -1), "--assoc", associations, keep=False)
                self.dload(peer, f"ingest_a{associations}", round_, "store", "--list", self.files("ct", 0, last), "--assoc", associations)
            finally:
                peer.stop()
                peer.remove()

    def retrieve(self, peer, round_):
        """C-GET and WADO-RS of whole series, after the store was loaded and its server started anew (page cache warm for all)."""
        peer.start()
        try:
            # dcmqrscp's index takes one writer.
            self.dload(peer, "load", round_, "store", "--list", self.files("ct"), "--assoc", 1 if "qido" not in peer.can else 4, keep=False)
            studies = self.manifest["ct"]
            queries = self.write_lines("get.txt", [f"StudyInstanceUID={s['study']}" for s in studies])
            for clients in (1, 4):
                self.dload(peer, f"cget_a{clients}", round_, "get", "--queries", queries, "--assoc", clients)
            if "wado" in peer.can:
                paths = [f"{peer.web}/studies/{s['study']}/series/{s['series']}" for s in studies]
                for clients in (1, 4):
                    with measure.Meter(peer.pids()) as meter:
                        figures = measure.http_load(peer.http, paths, INSTANCES, clients)
                    self.record(peer, f"wado_series_c{clients}", round_, meter, **figures)
        finally:
            peer.stop()
            peer.remove()

    def move(self, peer, round_):
        """C-MOVE of whole studies to the driver's own receiver."""
        self.begun(peer, lambda: move.run(self, peer, round_))

    def rendered(self, peer, round_):
        """Pictures of frames."""
        self.begun(peer, lambda: rendered.run(self, peer, round_))

    def small(self, peer, round_):
        """Many small instances, and C-FIND over them."""
        self.begun(peer, lambda: small.run(self, peer, round_))

    def begun(self, peer, work):
        """Starts the peer, does the work, and removes it whatever happens."""
        peer.start()
        try:
            work()
        finally:
            peer.stop()
            peer.remove()

    def find(self, peer, round_):
        """C-FIND and QIDO over 1,000 studies, then over all of them."""
        if round_ > 0:
            return
        count, done = len(self.manifest["index"]), 0
        peer.start()
        try:
            for size in sorted({min(1000, count), count}):
                self.dload(peer, f"load_{size}_studies", round_, "store", "--list", self.files("index", done, size), "--assoc", 8, keep=False)
                done = size
                self.queries(peer, round_, self.manifest["index"][:size], size)
        finally:
            peer.stop()
            peer.remove()

    def queries(self, peer, round_, studies, size):
        r = random.Random(7)
        some = [r.choice(studies) for _ in range(400)]
        for name, key, field in (("uid", "StudyInstanceUID", "study"), ("patient", "PatientID", "patient"), ("accession", "AccessionNumber", "accession")):
            queries = self.write_lines(f"find-{name}.txt", [f"{key}={s[field]}" for s in some])
            for clients in (1, 8):
                self.dload(peer, f"cfind_{name}_{size}_a{clients}", round_, "find", "--queries", queries, "--assoc", clients,
                           "--repeat", 10, "--max-seconds", self.o.find_seconds)
        kinds = dict(patient=[f"{peer.web}/studies?PatientID={s['patient']}" for s in some], limit25=[f"{peer.web}/studies?limit=25"])
        for name, paths in kinds.items():
            for clients in (1, 8):
                with measure.Meter(peer.pids()) as meter:
                    figures = measure.http_load(peer.http, paths, "application/dicom+json", clients, self.o.find_seconds)
                self.record(peer, f"qido_{name}_{size}_c{clients}", round_, meter, **figures)

    def big(self, peer, round_):
        """Associations that each send one large multi-frame object at the same time: memory must not grow with it."""
        if round_ > 0:
            return
        peer.start()
        try:
            self.dload(peer, "big", round_, "big", "--assoc", self.o.big_associations, "--mib", self.o.big_mib)
        finally:
            peer.stop()
            peer.remove()

    def idle(self, peer, round_):
        """Nobody asks for anything: CPU and memory of each node, a load's worth of images on board."""
        if round_ > 0:
            return
        peer.start()
        try:
            self.dload(peer, "load", round_, "store", "--list", self.files("ct"), "--assoc", 4, keep=False)
            peer.stop()
            peer.start(fresh=False)
            time.sleep(3)       # not a synchronisation: what a start costs is not what idling costs
            before = [measure.cpu_seconds([pid]) for pid in peer.pids()]
            time.sleep(self.o.idle_seconds)
            cores = [(measure.cpu_seconds([pid]) - b) / self.o.idle_seconds for pid, b in zip(peer.pids(), before)]
            rss = [measure.rss_mib(pid) for pid in peer.pids()]
            self.record(peer, "idle", round_, cores_per_node=[round(c, 4) for c in cores],
                        rss_mib_per_node=[round(a, 1) for a, _ in rss], rss_anonymous_mib_per_node=[round(b, 1) for _, b in rss])
            print(f"             cores {cores}, resident MiB (all, anonymous) {rss}", flush=True)
        finally:
            peer.stop()
            peer.remove()

    def failover(self, peer, round_):
        """`kill -9` of a node under load: how long the writes of its groups stand still, and whether anything is missing."""
        if round_ == 0:
            peer.start()
            try:
                self.record(peer, "failover", round_, **failover.run(peer, self.o.kills, self.manifest))
            finally:
                peer.stop()
                peer.remove()


    def once(self, peer, round_, test, work):
        """Starts the peer, runs `work` once, and removes it."""
        if round_ > 0:
            return
        peer.start()
        try:
            self.record(peer, test, round_, **work())
        finally:
            peer.stop()
            peer.remove()

    def mirror(self, peer, round_):
        """A lost node is replaced: how fast it is whole again, and what that costs a sender."""
        self.once(peer, round_, "mirror", lambda: repair.mirror(self, peer, self.files("ct", 0, -1), self.files("ct", -1)))

    def lag(self, peer, round_):
        """A node is away while images come in."""
        self.once(peer, round_, "lag", lambda: repair.lag(self, peer, self.files("ct"), self.o.lag_seconds, self.o.lag_mb_s))

    def restart(self, peer, round_):
        """`kill -9` of a node that holds many instances."""
        self.once(peer, round_, "restart", lambda: repair.restart(self, peer, self.files("index"), len(self.manifest["index"])))


TESTS = dict(
    ingest=("triptych", "triptych-3", "orthanc", "storescp"),
    retrieve=("triptych", "orthanc", "dcmqrscp"),
    find=("triptych", "orthanc"),
    big=("triptych", "triptych-3"),
    idle=("triptych", "triptych-3"),
    failover=("triptych-3",),
    mirror=("triptych-3",),
    lag=("triptych-3",),
    restart=("triptych", "triptych-3"),
    move=("triptych", "dcmqrscp"),
    rendered=("triptych", "orthanc"),
    small=("triptych", "orthanc", "sink"),
)


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # These want much disk and time of their own: by name.
    usual = [test for test in TESTS if test not in ("mirror", "lag", "restart", "small")]
    a.add_argument("--tests", default=",".join(usual), help=f"of {','.join(TESTS)}")
    a.add_argument("--peers", default=",".join(peers.ALL), help=f"of {','.join(peers.ALL)}")
    a.add_argument("--rounds", type=int, default=3, help="rounds go over all peers, so that a busy spell of the machine meets them all")
    a.add_argument("--associations", type=lambda s: [int(x) for x in s.split(",")], default=[1, 4, 16])
    a.add_argument("--ct-studies", type=int, default=24, help="of 50 CT images each")
    a.add_argument("--index-studies", type=int, default=20000)
    a.add_argument("--find-seconds", type=float, default=4)
    a.add_argument("--idle-seconds", type=float, default=15)
    a.add_argument("--big-mib", type=int, default=1024)
    a.add_argument("--big-associations", type=int, default=8)
    a.add_argument("--kills", type=int, default=5, help="of the failover test; 20 for a p99 worth the name")
    a.add_argument("--lag-seconds", type=float, default=300, help="how long the node of the lag test is away")
    a.add_argument("--lag-mb-s", type=float, default=None, help="what the senders of the lag test are held to; else they send all they can")
    a.add_argument("--small-instances", type=int, default=100000, help="of the small test, five to a study")
    a.add_argument("--small-associations", type=int, default=16)
    a.add_argument("--orthanc-seconds", type=float, default=300, help="what the small test grants Orthanc; its rate is that of the first instances then")
    a.add_argument("--timeout", type=float, default=600, help="seconds that one run of the driver may take")
    a.add_argument("--quick", action="store_true", help="one small round of everything: does it work at all")
    a.add_argument("--no-install", action="store_true", help="leave out peers that are missing instead of installing them")
    a.add_argument("--out", default=os.path.join(BASE, "result.json"))
    o = a.parse_args()
    if o.quick:
        o.rounds, o.ct_studies, o.index_studies, o.find_seconds, o.idle_seconds, o.big_mib, o.kills = 1, 6, 1200, 1, 5, 64, 2
        o.small_instances, o.orthanc_seconds = 2000, 10
    for given, known in ((o.tests, TESTS), (o.peers, peers.ALL)):
        for name in given.split(","):
            if name not in known:
                a.error(f"`{name}` is none of {', '.join(known)}")
    return o


def main():
    # Being asked to stop unwinds, so that every server that was started is stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped before the end"))
    o = arguments()
    if not os.access(peers.DLOAD, os.X_OK):
        sys.exit(f"no {peers.DLOAD}: cargo build --release -p dload, or set DLOAD")
    if not o.no_install:
        peers.install()
    work = os.path.join(BASE, "run")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    there, absent = [], {}
    for name in o.peers.split(","):
        peer = peers.ALL[name](work)
        why = peer.missing()
        if why:
            absent[name] = why
            print(f"!! LEFT OUT: {name}: {why}", flush=True)
        else:
            there.append(peer)
    tests = o.tests.split(",")
    begun = time.monotonic()
    manifest = data.make(os.path.join(BASE, "data"), ct=(0 if set(tests) <= {"find", "restart", "small"} else o.ct_studies, 50),
                         index=(o.index_studies if {"find", "restart"} & set(tests) else 0, 1),
                         small=(small.studies(o) if "small" in tests else 0, small.INSTANCES_A_STUDY))
    print("data: " + ", ".join(f"{sum(len(s['files']) for s in studies)} {kind}" for kind, studies in manifest.items() if studies)
          + f" instances, {time.monotonic() - begun:.0f} s", flush=True)
    bench, stopped = Bench(o, manifest), []
    for round_ in range(o.rounds):
        raw = measure.disk(work)
        bench.rows.append(dict(peer="machine", test="raw_disk", round=round_, **raw))
        print(f"{'machine':12} {'raw_disk':26} #{round_} {raw}", flush=True)
        for test in tests:
            for peer in there:
                if peer.name not in TESTS[test]:
                    continue
                try:
                    getattr(bench, test)(peer, round_)
                except (RuntimeError, OSError, ValueError) as e:
                    stopped.append(f"{peer.name} {test} #{round_}: {e}")
                    print(f"!! STOPPED: {stopped[-1]}", flush=True)
    shutil.rmtree(work, ignore_errors=True)
    result = report.conclude(bench.rows, absent, stopped, vars(o))
    with open(o.out, "w") as f:
        json.dump(result, f, indent=1)
    report.show(result)
    print(f"\nevery figure: {o.out}")
    sys.exit(1 if result["wrong"] else 0)


if __name__ == "__main__":
    main()
