"""history.jsonl: what was asked and how it ended, one JSON object a line. The checker reads nothing else but the nodes.

    {"event": "run", "seed": 7, "nodes": {"n1": {"http": "http://…", "dimse": ["10.77.0.1", 11112]}}, …}       the first line
    {"event": "invoke", "op": 12, "at_s": 3.104, "worker": "c1", "kind": "cstore", "node": "n2", "study": …, "instance": …}
    {"event": "ok" | "fail" | "unknown", "op": 12, "at_s": 3.120, …}     fail: surely without effect; unknown: may yet have one
    {"event": "fault" | "heal" | "recovered", "at_s": …, "kind": "kill", "harmed": ["n2"], "quorum": true, "id": 4}
    {"event": "sample" | "converged" | "end" | …}                        measurements

Kinds that write: cstore, stow, delete (with `instance`, or of the whole `study`). Kinds that read: find, qido, wado, wado-study,
cget, cmove; their `ok` names what was `found` and, of that, what had `bad` bytes (lists of SOP Instance UIDs); `looked` is
what was looked for: one instance, or `"study"`. Times are seconds of one monotonic clock since the run began.
"""
import json
import queue
import threading
import time
from dataclasses import dataclass, field

WRITES = ("cstore", "stow", "delete")


class History:
    """The writing side: many threads, one file. A thread of its own writes: when the disk makes a write wait, which disks under
    these faults do, the load must not stand still with it, or its gaps would be measured as the archive's."""

    def __init__(self, path, **run):
        self.began, self.lock, self.next = time.monotonic(), threading.Lock(), 0
        self.file = open(path, "w", buffering=1 << 16)
        self.lines = queue.SimpleQueue()
        self.writer = threading.Thread(target=self._write, daemon=True)
        self.writer.start()
        self.counts = {}
        self.add("run", **run)

    def now(self):
        return time.monotonic() - self.began

    def add(self, event, **facts):
        at = self.now()
        self.lines.put(json.dumps({"event": event, "at_s": round(at, 6), **facts}) + "\n")
        return at

    def _write(self):
        """Writes lines; sets each event that comes between them when all before it is written; ends at None."""
        while (line := self.lines.get()) is not None:
            if isinstance(line, str):
                self.file.write(line)
            else:
                self.file.flush()
                line.set()

    def invoke(self, worker, kind, node, study, instance=None):
        with self.lock:
            self.next += 1
            op = self.next
        self.add("invoke", op=op, worker=worker, kind=kind, node=node, study=study, instance=instance)
        return op

    def end(self, op, outcome, **facts):
        with self.lock:
            self.counts[outcome] = self.counts.get(outcome, 0) + 1
        return self.add(outcome, op=op, **facts)

    def flush(self):
        written = threading.Event()
        self.lines.put(written)
        written.wait()

    def close(self):
        self.lines.put(None)
        self.writer.join()
        self.file.close()


@dataclass
class Operation:
    """One attempt at one node."""

    op: int
    worker: str
    kind: str
    node: str
    study: str
    instance: str | None
    begun: float
    ended: float = float("inf")
    outcome: str = "unknown"
    facts: dict = field(default_factory=dict)

    @property
    def effect_until(self):
        """When it has had its effect at the latest: an unknown outcome may come at any time."""
        return self.ended if self.outcome == "ok" else float("inf")


def read(path):
    """(run, operations in the order of their beginning, all other events)."""
    run, operations, events = None, {}, []
    with open(path) as lines:
        for line in lines:
            fact = json.loads(line)
            event = fact.pop("event")
            if event == "run":
                run = fact
            elif event == "invoke":
                operations[fact["op"]] = Operation(
                    fact["op"], fact["worker"], fact["kind"], fact["node"], fact["study"], fact["instance"], fact["at_s"]
                )
            elif event in ("ok", "fail", "unknown"):
                operation = operations[fact.pop("op")]
                operation.outcome, operation.ended = event, fact.pop("at_s")
                operation.facts = fact
            else:
                events.append({"event": event, **fact})
    assert run is not None, f"{path} does not begin with a run"
    return run, list(operations.values()), events
