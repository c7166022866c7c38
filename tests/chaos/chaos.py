#!/usr/bin/env python3
"""make chaos: three processes, a workload, faults after a schedule that comes from the seed, and a checker at the end.

    chaos.py --binary target/debug/triptych --seed 7 --seconds 120 --report target/chaos/7
    chaos.py … --faults kill-leader,pause,isolate          only these (all of them: --list)
    chaos.py … --kills 200 | --allkills 50                 kill -9 again and again under 8 associations

Exits with 1 if anything was violated. The faults are described in nemesis.py, the invariants in check.py."""
import argparse
import ctypes.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import content
import history
import network as networks
import report
import schedule
from clients import Destination, Web
from nemesis import Nemesis
from nodes import NAMES, Cluster
from workload import SMALL, Budget, Workload

SERVES_WITHIN_S = 30
GIB = 1 << 30


def arguments():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = asked.add_argument
    add("--binary", type=Path, default=Path("target/debug/triptych"), help="the server")
    add("--seed", type=int, default=1)
    add("--seconds", type=float, default=120, help="how long faults begin")
    add("--report", type=Path, help="folder for report.json, history.jsonl and the logs; default target/chaos/SEED")
    add("--faults", default="", help="only these kinds, separated by commas")
    add("--kills", type=int, default=0, help="this many kills of one node instead of a schedule")
    add("--allkills", type=int, default=0, help="this many kills of all nodes at once instead of a schedule")
    add("--network", choices=["auto", "namespaces", "loopback"], default="auto")
    add("--rate", type=float, default=8, help="instances a second that each of the 8 associations sends, in the kill modes")
    add("--send-mib", type=int, default=1024, help="what the workload may send in all, so that no disk gets full by itself")
    add("--groups", type=int, default=8)
    add("--settle-s", type=float, default=10, help="between the two sweeps of the checker; `reliability` says 60 for a release")
    add("--gets", type=int, default=30, help="studies that the checker asks each node for by C-GET")
    add("--flag", action="append", default=[], help="one more flag of `triptych serve`; may be given several times")
    add("--json", action="store_true", help="print report.json at the end instead of the text")
    add("--cheat", action="store_true", help="behind the history's back delete one instance and send another: the run has to fail")
    add("--list", action="store_true", help="name the kinds of faults, and end")
    return asked.parse_args()


def faketime_library():
    for place in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"):
        return str(place)
    return ctypes.util.find_library("faketimeMT")


def real_disks_work(folder):
    """None, or why the nodes cannot have file systems of their own."""
    if os.geteuid() != 0:
        return "not root: mounting needs it"
    probe = folder / "probe"
    probe.mkdir()
    try:
        image = folder / "probe.img"
        networks.run("truncate", "-s", "16M", image)
        networks.run("mkfs.ext4", "-qF", image)
        networks.run("mount", "-o", "loop", image, probe)
        networks.run("umount", probe)
        return None
    except (OSError, FileNotFoundError) as error:
        return f"a loop mount does not work: {error}"
    finally:
        (folder / "probe.img").unlink(missing_ok=True)
        probe.rmdir()


class Run:
    def __init__(self, asked):
        self.asked, self.began = asked, time.monotonic()
        self.report = (asked.report or Path("target/chaos") / str(asked.seed)).resolve()
        self.folder = self.report / f"{networks.PREFIX}{os.getpid()}"
        self.cluster = self.network = self.load = self.destination = self.history = None
        self.skipped, self.most = [], dict.fromkeys(NAMES, 0.0)
        self.next_sample = 0.0

    def tell(self, text):
        print(f"{time.monotonic() - self.began:7.1f} s  {text}", flush=True)

    def prepare(self):
        asked = self.asked
        self.report.mkdir(parents=True, exist_ok=True)
        for old in ("history.jsonl", "report.json", "report.txt", "checked.json", *(f"{name}.log" for name in NAMES)):
            (self.report / old).unlink(missing_ok=True)
        networks.sweep_up()
        for left in self.report.glob(f"{networks.PREFIX}*"):
            if not networks.is_running(left.name.removeprefix(networks.PREFIX)):
                shutil.rmtree(left, ignore_errors=True)
        self.folder.mkdir()
        self.network = networks.choose(NAMES, asked.network)
        no_disks = real_disks_work(self.folder)
        helped = subprocess.run([asked.binary.resolve(), "scrub", "--help"], capture_output=True)
        self.has_upkeep = helped.returncode == 0
        blkio = Path("/sys/fs/cgroup/blkio/cgroup.procs").exists() and not no_disks
        library = faketime_library()
        lacks = {
            "cut": None if self.network.can_cut else self.network.why,
            "disk": no_disks,
            "blkio": None if blkio else "no blkio control group (v1) here",
            "faketime": None if library else "libfaketime is missing: apt-get install faketime",
            "upkeep": None if self.has_upkeep else "this server has no `triptych compact`",
            None: None,
        }
        wanted = [kind for kind in asked.faults.split(",") if kind] or list(schedule.KINDS)
        if unknown := [kind for kind in wanted if kind not in schedule.KINDS]:
            raise SystemExit(f"no such fault: {', '.join(unknown)}; there are {', '.join(schedule.KINDS)}")
        if asked.kills or asked.allkills:
            wanted = []
        self.kinds = [kind for kind in wanted if lacks[schedule.KINDS[kind][0]] is None]
        for need, why in lacks.items():
            without = [kind for kind in wanted if schedule.KINDS[kind][0] == need]
            if why is not None and without:
                self.skipped.append(f"{', '.join(without)}: {why}")
                self.tell(f"SKIPPED   {self.skipped[-1]}")
        self.steps = schedule.make(asked.seed, asked.seconds, self.kinds, NAMES)
        self.disks = "ext4 on a loop device a node" if not no_disks else f"folders of one file system ({no_disks})"
        self.destination = Destination(self.network.address(networks.CLIENT), self.network.port(11119))
        flags = ["--groups", asked.groups, "--segment-mib", 16, "--remote-ae", self.destination.address]
        flags += ["--log-keep-mib", 16, "--associations-per-peer", 512, "--connections-per-peer", 512, *asked.flag]
        self.cluster = Cluster(
            binary=asked.binary.resolve(), folder=self.folder, report=self.report, network=self.network,
            clock=lambda: time.monotonic() - self.began, flags=flags, disk_mib=self.disk_mib(), real_disks=not no_disks,
            faketime=library if "clock" in self.kinds else None,
        )  # fmt: skip
        nodes = {n.name: {"http": n.url, "dimse": [n.address, n.dimse]} for n in self.cluster.nodes}
        self.history = history.History(
            self.report / "history.jsonl", seed=asked.seed, nodes=nodes, mode=self.mode(), flags=self.cluster.flags,
            schedule=[step.told() for step in self.steps],
        )  # fmt: skip
        self.nemesis = Nemesis(self.cluster, self.history, self.tell, asked.seed)
        self.nemesis.watch = self.watch

    def disk_mib(self):
        """Everything that is sent, repeats and block copies, and room to spare."""
        return 2048 + 2 * self.asked.send_mib

    def mode(self):
        if self.asked.kills:
            return f"{self.asked.kills} kills of one node"
        if self.asked.allkills:
            return f"{self.asked.allkills} kills of all nodes at once"
        return f"a schedule of {len(self.steps)} faults"

    def watch(self):
        self.nemesis.guard()
        if time.monotonic() > self.next_sample:
            self.next_sample = time.monotonic() + 2
            for node in self.cluster.nodes:
                sample = node.sample()
                if sample:
                    self.most[node.name] = max(self.most[node.name], sample["rss_mib"])

    def samples(self):
        return {node.name: node.sample() for node in self.cluster.nodes}

    def start_load(self, seconds):
        asked = self.asked
        can_delete = all(Web({n.name: n.url}).can_delete(n.name) for n in self.cluster.nodes)
        if not can_delete:
            self.skipped.append("deletes: this server answers 405 to DELETE /dicom-web/studies/…")
            self.tell(f"SKIPPED   {self.skipped[-1]}")
        budget = Budget(asked.send_mib << 20, seconds)
        self.load = Workload(
            cluster=self.cluster, history=self.history, seed=asked.seed, budget=budget, destination=self.destination,
            can_delete=can_delete, rate=asked.rate if asked.kills or asked.allkills else 0,
        )  # fmt: skip
        if asked.kills or asked.allkills:
            self.load.start("ingest", 8, by="cstore", weights=SMALL, checks=0.05, constant=True)
            self.load.start("reader", 2)
        else:
            self.load.start("ingest", 6)
            self.load.start("pulse", 6)
            self.load.start("reader", 2)

    def run(self):
        for node in self.cluster.nodes:
            node.start()
        if not self.nemesis.until(self.cluster.why_not_whole, "the cluster forms", 60):
            raise SystemExit("the cluster did not form:\n" + "\n".join(node.said() for node in self.cluster.nodes))
        self.tell(f"three nodes in {'network namespaces' if self.network.can_cut else 'loopback'}; {self.mode()}")
        for step in self.steps:
            self.tell(f"planned   {step.at_s:6.1f} s {step.kind} {step.node}, {step.hold_s} s")
        asked = self.asked
        seconds = 5.0 * asked.kills or 8.0 * asked.allkills or asked.seconds
        self.start_load(seconds)
        load_began = time.monotonic()
        self.nemesis.sleep(3)
        before = self.samples()
        if asked.kills or asked.allkills:
            came_back = self.nemesis.kills(asked.kills or asked.allkills, self.load.waiting_writers, bool(asked.allkills))
        else:
            came_back = self.follow_schedule(load_began)
        self.whole_s = self.converge() if came_back else None
        self.load_s = time.monotonic() - load_began
        self.load.end()
        if self.asked.cheat:
            self.cheat()
        for crashed in self.load.crashed:
            self.nemesis.fail(f"the harness: {crashed}")
        self.nemesis.until(self.why_not_together, "all nodes have applied the same", 60)
        self.scrubbed = self.nemesis.scrub() if self.has_upkeep else None
        self.nemesis.sleep(3)
        after = self.samples()
        self.resources = {
            name: {"before": before[name], "after": after[name], "rss_mib_max": self.most[name]} for name in NAMES
        }
        for node in self.cluster.nodes:
            text = node.log.read_text(errors="replace")
            if "panicked at" in text:
                at = text.index("panicked at")
                self.nemesis.fail(f"{node.name} panicked: {text[max(0, at - 200):at + 400]}")
        self.history.add("end", resources=self.resources)
        self.history.close()

    def cheat(self):
        """What the checker has to find: one acknowledged instance less, one more that nobody sent."""
        web, name = Web({node.name: node.url for node in self.cluster.nodes}), NAMES[0]
        study, held = self.load.committed[0]
        stranger = content.uid("cheat", self.asked.seed)
        self.tell(f"cheat     {held[0]} is deleted, {stranger} is sent; the history does not know")
        assert web.delete(name, study, held[0])[0] == "ok"
        assert web.store(name, study, stranger, content.file(study, stranger))[0] == "ok"

    def follow_schedule(self, load_began):
        for step in self.steps:
            due = load_began + step.at_s
            self.nemesis.sleep(max(0, due - time.monotonic()))
            if time.monotonic() - load_began > self.asked.seconds:
                self.tell(f"          the time is over: {len(self.steps) - step.number + 1} faults of the schedule are left out")
                break
            if not self.nemesis.step(step):
                return False
            counts = self.history.counts
            self.tell(f"          well; {self.load.acknowledged} stores acknowledged, {counts.get('unknown', 0)} unknown")
        return True

    def converge(self):
        """I12: after the last heal every node is whole and every writer is acknowledged again, within the time."""
        began, now = time.monotonic(), self.history.now()
        self.nemesis.until(self.cluster.why_not_whole, "whole after the last heal", SERVES_WITHIN_S)
        self.nemesis.until(lambda: self.load.waiting_writers(now), "every writer writes after the last heal", SERVES_WITHIN_S)
        took = round(time.monotonic() - began, 2)
        self.history.add("converged", took_s=took)
        self.tell(f"whole     {took} s after the last fault was over")
        return took

    def why_not_together(self):
        try:
            positions = self.cluster.positions()
        except Exception as error:
            return f"no status: {type(error).__name__}"
        return None if all(position == positions[0] for position in positions) else "they have not applied the same"

    def check(self):
        self.tell("checking every instance on every node")
        here = Path(__file__).resolve().parent
        out = self.report / "checked.json"
        command = [sys.executable, here / "check.py", "--history", self.report / "history.jsonl", "--out", out]
        command += ["--settle-s", self.asked.settle_s, "--gets", self.asked.gets]
        code = subprocess.run([str(word) for word in command]).returncode
        if not out.exists():
            raise SystemExit(f"the checker failed with {code}")
        return json.loads(out.read_text())

    def reproduce(self):
        asked = self.asked
        words = ["make", "chaos", f"SEED={asked.seed}"]
        if asked.kills:
            words.append(f"KILLS={asked.kills}")
        elif asked.allkills:
            words.append(f"ALLKILLS={asked.allkills}")
        else:
            words.append(f"SECONDS={asked.seconds:g}")
            words += [f"FAULTS={asked.faults}"] if asked.faults else []
        return " ".join(words)

    def told(self, checked):
        facts = {
            "seed": self.asked.seed, "mode": self.mode(), "passed": not checked["violations"], "load_s": round(self.load_s, 1),
            "network": "network namespaces" if self.network.can_cut else f"loopback ({self.network.why})", "disks": self.disks,
            "skipped": self.skipped, "schedule": [step.told() for step in self.steps], "faults": self.nemesis.done,
            "server_flags": self.cluster.flags, "raft_timing": report.raft_timing(), "whole_after_last_heal_s": self.whole_s,
            "resources": self.resources, "scrubbed": self.scrubbed, "checked": checked, "reproduce": self.reproduce(), "folder": str(self.report),
        }  # fmt: skip
        return report.make(self.report / "history.jsonl", facts)

    def end(self):
        """Whatever happened: nothing of ours is left."""
        if self.load is not None:
            self.load.stop.set()
        if self.cluster is not None:
            self.cluster.end()
        if self.destination is not None:
            self.destination.end()
        if self.network is not None:
            self.network.end()
        networks.sweep_up(os.getpid())


def main():
    asked = arguments()
    if asked.list:
        print("\n".join(schedule.KINDS))
        return 0
    if not asked.binary.exists():
        raise SystemExit(f"{asked.binary} is missing: run `cargo build -p archive-server` first")
    # SIGTERM cleans up like Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run = Run(asked)
    try:
        run.prepare()
        run.run()
        facts = run.told(run.check())
    finally:
        run.end()
    (run.report / "report.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    text = report.text(facts)
    (run.report / "report.txt").write_text(text)
    print(json.dumps(facts, indent=1, ensure_ascii=False) if asked.json else text, flush=True)
    return 0 if facts["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
