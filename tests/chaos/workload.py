"""Workers that behave like modalities and viewers, and write down everything in the history.

    ingest   C-STORE or STOW-RS, study after study: store (again at another node when that fails) → look for it on any node →
             sometimes store it again → read the study → sometimes delete it or one of it → look that it is gone
    pulse    a small store every now and then, each in a study of its own: how long writes stand still
    reader   acknowledged instances by WADO-RS from nodes that nobody harms
"""
import random
import threading
import time
import traceback

import content
from clients import Dimse, Web, delete_by_command

ATTEMPTS, GIVE_UP_AFTER_S = 40, 45
# Weights of the size classes of content.py.
MIXED, SMALL = [60, 25, 10, 5], [80, 17, 2, 1]


class Budget:
    """Bytes that all workers may send together, spread over the run, so that a fast machine does not fill its disk."""

    def __init__(self, total_bytes, seconds):
        self.rate, self.left, self.at, self.lock = total_bytes / seconds, 8 << 20, time.monotonic(), threading.Lock()

    def is_spent(self):
        with self.lock:
            now = time.monotonic()
            self.left = min(self.left + (now - self.at) * self.rate, 16 << 20)
            self.at = now
            return self.left <= 0

    def take(self, count):
        with self.lock:
            self.left -= count


class Workload:
    def __init__(self, *, cluster, history, seed, budget, destination, can_delete, rate):
        self.cluster, self.history, self.seed, self.budget, self.destination = cluster, history, seed, budget, destination
        self.can_delete, self.rate = can_delete, rate
        self.names = [node.name for node in cluster.nodes]
        self.dimse = {node.name: (node.address, node.dimse) for node in cluster.nodes}
        self.http = {node.name: node.url for node in cluster.nodes}
        self.stop, self.threads, self.crashed = threading.Event(), [], []
        self.lock = threading.Lock()
        self.committed, self.acknowledged = [], 0
        # Writer → when the last write that it began and got acknowledged was begun.
        self.begun_and_acknowledged = {}

    def start(self, kind, count, **options):
        for number in range(count):
            worker = {"ingest": Ingest, "pulse": Pulse, "reader": Reader}[kind](self, f"{kind}{number}", number, **options)
            thread = threading.Thread(target=self._run, args=(worker,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _run(self, worker):
        try:
            while not self.stop.is_set():
                worker.work()
        except Exception:
            self.crashed.append(f"{worker.name}: {traceback.format_exc()}")
        finally:
            worker.close()

    def waiting_writers(self, since_s):
        """None when every writer has been acknowledged a write that it began after that moment; else who has not."""
        with self.lock:
            late = [name for name, at in self.begun_and_acknowledged.items() if at < since_s]
        return f"no write of {' '.join(sorted(late))}" if late else None

    def end(self, seconds=60):
        self.stop.set()
        deadline = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self.threads):
            self.crashed.append(f"a worker did not end within {seconds} s")


class Worker:
    """What all of them can do."""

    def __init__(self, load, name, number):
        self.load, self.name, self.history = load, name, load.history
        self.chance = random.Random(f"{load.seed} {name}")
        self.dimse, self.web = Dimse(load.dimse), Web(load.http)
        self.node = load.names[number % len(load.names)]

    def close(self):
        self.dimse.close()

    def pause(self, seconds):
        self.load.stop.wait(seconds)

    def another(self):
        """The next node, as a modality with a list of them."""
        names = self.load.names
        self.node = names[(names.index(self.node) + 1) % len(names)]

    def store_once(self, kind, node, study, instance, file):
        op = self.history.invoke(self.name, kind, node, study, instance)
        call = self.dimse.store if kind == "cstore" else self.web.store
        outcome, reason = call(node, study, instance, file)
        self.history.end(op, outcome, **({"why": reason} if reason else {}))
        return outcome

    def store(self, kind, study, instance):
        """Until it is acknowledged, at one node after the other; whether it was."""
        file = content.file(study, instance)
        self.load.budget.take(len(file))
        begun = self.history.now()
        for attempt in range(ATTEMPTS):
            if self.store_once(kind, self.node, study, instance, file) == "ok":
                with self.load.lock:
                    self.load.acknowledged += 1
                    self.load.begun_and_acknowledged[self.name] = begun
                return True
            self.another()
            if self.load.stop.is_set() or self.history.now() - begun > GIVE_UP_AFTER_S:
                break
            self.pause(min(0.05 * (attempt + 1), 0.3))
        return False

    def look(self, kind, node, study, instance=None):
        """One read; {instance: right} or None when it failed."""
        op = self.history.invoke(self.name, kind, node, study, instance)
        if kind == "find":
            outcome, came = self.dimse.find(node, study, instance)
        elif kind == "qido":
            outcome, came = self.web.qido(node, study, instance)
        elif kind == "wado":
            outcome, came = self.web.instance(node, study, instance)
        elif kind == "wado-study":
            outcome, came = self.web.study(node, study)
        elif kind == "cget":
            outcome, came = self.dimse.get(node, study)
        else:
            outcome, came = self.dimse.move(node, study, self.load.destination)
        if outcome != "ok":
            self.history.end(op, "fail", why=came)
            return None
        came = came if isinstance(came, dict) else {uid: True for uid in came}
        self.history.end(op, "ok", found=sorted(came), bad=sorted(uid for uid, right in came.items() if not right))
        return came


class Ingest(Worker):
    """A `constant` one sends the smallest when the budget is spent, where others wait: the time that it does not write is
    the archive's alone, and is measured as such."""

    def __init__(self, load, name, number, by="either", weights=MIXED, checks=1.0, constant=False):
        super().__init__(load, name, number)
        self.constant = constant
        self.kind = by if by != "either" else ("cstore", "stow")[number % 2]
        self.weights, self.checks, self.studies = weights, checks, 0
        load.begun_and_acknowledged[name] = -1.0

    def work(self):
        self.studies += 1
        study, held = content.uid(self.load.seed, self.name, self.studies), []
        for number in range(self.chance.randint(4, 12)):
            if self.load.stop.is_set():
                return
            size_class = self.chance.choices(range(4), self.weights)[0]
            if self.load.budget.is_spent():
                if self.constant:
                    size_class = 0
                else:
                    self.wait_for_budget()
            instance = content.uid(self.load.seed, self.name, self.studies, number, size_class=size_class)
            if self.store(self.kind, study, instance):
                held.append(instance)
                if self.chance.random() < self.checks:
                    # Read your writes, on any node, at once.
                    self.look(self.chance.choice(["find", "qido"]), self.chance.choice(self.load.names), study, instance)
                if self.chance.random() < 0.1:
                    other = self.chance.choice(self.load.names)
                    again = self.chance.choice(["cstore", "stow"])
                    self.store_once(again, other, study, instance, content.file(study, instance))
            if self.load.rate:
                self.pause(self.chance.uniform(0, 2 / self.load.rate))
        if not held:
            return
        if self.chance.random() < self.checks:
            kind = self.chance.choice(["wado-study", "cget", "cmove"])
            self.look(kind, self.chance.choice(self.load.names), study)
        if self.load.can_delete and self.chance.random() < 0.35:
            self.delete(study, self.chance.choice(held) if self.chance.random() < 0.5 else None)
        else:
            with self.load.lock:
                self.load.committed.append((study, held))

    def wait_for_budget(self):
        while self.load.budget.is_spent() and not self.load.stop.is_set():
            self.pause(0.05)

    def delete(self, study, instance):
        for attempt in range(8):
            op = self.history.invoke(self.name, "delete", self.node, study, instance)
            by_command = self.chance.random() < 0.3
            if by_command:
                outcome, reason = delete_by_command(self.load.cluster.binary, self.load.http[self.node], study, instance)
            else:
                outcome, reason = self.web.delete(self.node, study, instance, by_series=self.chance.random() < 0.3)
            self.history.end(op, outcome, by="command" if by_command else "DELETE", **({"why": reason} if reason else {}))
            if outcome == "ok" or reason == "404" or self.load.stop.is_set():
                break
            self.another()
            self.pause(0.2 * (attempt + 1))
        kind = self.chance.choice(["find", "qido"]) if instance is None else self.chance.choice(["find", "qido", "wado"])
        self.look(kind, self.chance.choice(self.load.names), study, instance)


class Pulse(Worker):
    """Each its own study of small instances, a new one every 200: so that all groups are written to all the time."""

    def __init__(self, load, name, number, every_s=0.15):
        super().__init__(load, name, number)
        self.every_s, self.count = every_s, 0
        load.begun_and_acknowledged[name] = -1.0

    def work(self):
        study = content.uid(self.load.seed, self.name, self.count // 200)
        instance = content.uid(self.load.seed, self.name, "pulse", self.count)
        self.count += 1
        self.store("stow", study, instance)
        self.pause(self.every_s)


class Reader(Worker):
    """Reads what was acknowledged some time ago."""

    def work(self):
        self.pause(self.chance.uniform(0.05, 0.15))
        with self.load.lock:
            study, held = self.chance.choice(self.load.committed) if self.load.committed else (None, None)
        if study is not None:
            self.look("wado", self.chance.choice(self.load.names), study, self.chance.choice(held))
