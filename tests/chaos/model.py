"""What a history allows to be seen: the oracle, without any network.

    store ok      ├────┤                 present from its end on
    unknown       ├──────────────── …    may come at any time; once seen, it stays
    delete ok              ├───┤         absent from its end on, unless a store may have come after its begin
    read                        ├──┤     of an instance whose state before it is known must tell that state

Only what is certain is demanded: two operations that overlap may have come in either order.
"""
from collections import defaultdict
from dataclasses import dataclass, field

CONTENT_READS = ("wado", "wado-study", "cget", "cmove")
READS = CONTENT_READS + ("find", "qido")
END = float("inf")
NEVER_SENT = "nobody had sent it"
# How long after a delete a replica that nobody harms may still serve the content: it lags by the time that apply takes.
DELETE_LAG_S = 2.0


@dataclass
class Span:
    """Something that happened at one moment between the two."""

    begun: float
    ended: float
    what: str = "it was deleted"


@dataclass
class Life:
    """All that the history tells about one instance."""

    study: str
    stores: list = field(default_factory=list)
    deletes: list = field(default_factory=list)
    # Proofs that it was there: acknowledged stores, and reads that found it.
    proofs: list = field(default_factory=list)
    acknowledged: int = 0
    unknown: int = 0

    def must_be_there(self, begun, ended):
        """Whether a read between these moments has to find it."""
        for proof in self.proofs:
            if proof.ended < begun:
                later = (delete for delete in self.deletes if delete.begun < ended and not delete.ended < proof.begun)
                if next(later, None) is None:
                    return True
        return False

    def must_not_be_there(self, begun, ended):
        """Why a read between these moments must not find it; None when it may."""
        stores = [store for store in self.stores if store.begun < ended]
        if not stores:
            return NEVER_SENT
        for delete in self.deletes:
            if delete.ended < begun and all(store.ended < delete.begun for store in stores):
                return delete.what
        return None

    def missed(self, begun, ended):
        """A read did not find it: one of the deletes of unknown outcome has had its effect by then, and it stays so."""
        open_deletes = [delete for delete in self.deletes if delete.ended == END and delete.begun < ended]
        if open_deletes and any(proof.ended < begun for proof in self.proofs):
            self.deletes.append(Span(min(delete.begun for delete in open_deletes), ended))


class Model:
    def __init__(self, operations, events):
        self.operations, self.events = operations, events
        self.lives, self.of_study = {}, defaultdict(set)
        self.violations, self.served_after_delete = [], []
        for operation in operations:
            if operation.kind in ("cstore", "stow"):
                self._add_store(operation)
        for operation in operations:
            # Told that there is no such thing: it is gone by then, by this order (which a server may repeat) or another.
            is_gone = operation.outcome == "fail" and operation.facts.get("why") == "404"
            if operation.kind == "delete" and (is_gone or operation.outcome != "fail"):
                until = operation.ended if is_gone else operation.effect_until
                what = f"a DELETE at {operation.node} was answered that there is no such thing" if is_gone else "it was deleted"
                for instance in self._named(operation):
                    self.lives[instance].deletes.append(Span(operation.begun, until, what))
        self.reads = sorted((o for o in operations if o.kind in READS and o.outcome == "ok"), key=lambda o: o.ended)
        for read in self.reads:
            self._learn(read)

    def _learn(self, read):
        """What a read proves for those after it; one that contradicts what is certain proves nothing."""
        found = set(read.facts.get("found", []))
        for instance in found & self.lives.keys():
            if self.lives[instance].must_not_be_there(read.begun, read.ended) is None:
                self.lives[instance].proofs.append(Span(read.begun, read.ended))
        for instance in self._named(read):
            if instance not in found and not self.lives[instance].must_be_there(read.begun, read.ended):
                self.lives[instance].missed(read.begun, read.ended)

    def _add_store(self, operation):
        life = self.lives.setdefault(operation.instance, Life(operation.study))
        self.of_study[operation.study].add(operation.instance)
        if operation.outcome == "ok":
            life.acknowledged += 1
            life.proofs.append(Span(operation.begun, operation.ended))
        if operation.outcome == "unknown":
            life.unknown += 1
        if operation.outcome != "fail":
            life.stores.append(Span(operation.begun, operation.effect_until))

    def _named(self, operation):
        """The instances that an operation is about."""
        if operation.instance is not None:
            return [operation.instance] if operation.instance in self.lives else []
        return sorted(self.of_study.get(operation.study, ()))

    def violate(self, invariant, what):
        self.violations.append((invariant, what))

    def check_reads(self):
        """I1, I3, I4, I8 while the load went on."""
        for read in self.reads:
            where = f"{read.kind} at {read.node}, {read.begun:.3f}–{read.ended:.3f} s, op {read.op}"
            found = set(read.facts.get("found", []))
            for instance in read.facts.get("bad", []):
                self.violate("I1", f"ALTERED: {instance} has other bytes: {where}")
            for instance in found:
                if instance not in self.lives:
                    self.violate("I3", f"PHANTOM: {instance} was never sent: {where}")
                elif why := self.lives[instance].must_not_be_there(read.begun, read.ended):
                    if self.lives[instance].deletes and self._may_lag(read, instance):
                        continue
                    self.violate("I3" if why == NEVER_SENT else "I8", f"{instance} was found, but {why}: {where}")
            for instance in self._named(read):
                if instance not in found and self.lives[instance].must_be_there(read.begun, read.ended):
                    self.violate("I4", f"{instance} was acknowledged or seen, and is not found: {where}")

    def _may_lag(self, read, instance):
        """A replica that has not applied the delete yet may serve the content for a moment, but no query may find it."""
        if read.kind not in CONTENT_READS:
            return False
        deleted = min((d.ended for d in self.lives[instance].deletes if d.ended < read.begun), default=-END)
        lag = read.begun - deleted
        harmed = any(
            window[0] <= read.ended and deleted <= window[1] and read.node in window[2] for window in self.harm()
        )
        if lag > DELETE_LAG_S and not harmed:
            return False
        self.served_after_delete.append(round(lag, 3))
        return True

    def harm(self):
        """[(from, to, nodes, quorum is left, kind)] of every fault, until its nodes were well again."""
        open_faults, windows = {}, []
        for event in self.events:
            if event["event"] == "fault":
                open_faults[event["id"]] = event
            elif event["event"] == "recovered" and event["id"] in open_faults:
                fault = open_faults.pop(event["id"])
                windows.append((fault["at_s"], event["at_s"], fault["harmed"], fault.get("quorum", True), fault["kind"]))
        windows += [(f["at_s"], END, f["harmed"], f.get("quorum", True), f["kind"]) for f in open_faults.values()]
        return windows

    def failed_reads(self):
        """Reads of committed content that failed, counted by cause; at a node that nobody harmed it is a violation."""
        windows, causes = self.harm(), defaultdict(int)
        for read in self.operations:
            if read.kind not in CONTENT_READS or read.outcome == "ok":
                continue
            if read.ended == END:
                causes["the run ended before"] += 1
                continue
            if not any(self.lives[instance].must_be_there(read.begun, read.ended) for instance in self._named(read)):
                causes["nothing was committed there"] += 1
                continue
            during = [window for window in windows if window[0] <= read.ended and read.begun <= window[1]]
            if any(read.node in window[2] for window in during):
                causes["the node itself was harmed"] += 1
            elif any(not window[3] for window in during):
                causes["no quorum"] += 1
            else:
                causes["a node that nobody harmed"] += 1
                why, kinds = read.facts.get("why"), ", ".join(window[4] for window in during) or "no fault"
                self.violate(
                    "READ",
                    f"{read.kind} of committed {read.instance or read.study} failed at {read.node}, which nobody harmed: {why}, "
                    f"{read.begun:.3f}–{read.ended:.3f} s, during {kinds}, op {read.op}",
                )
        return dict(causes)

    def failed_queries(self):
        """C-FIND and QIDO need a quorum, so they may fail: counted by cause."""
        windows, causes = self.harm(), defaultdict(int)
        for query in self.operations:
            if query.kind in ("find", "qido") and query.outcome != "ok":
                during = [window for window in windows if window[0] <= query.ended and query.begun <= window[1]]
                harmed = any(query.node in window[2] for window in during)
                causes["the node itself was harmed" if harmed else "another node was harmed" if during else "no fault"] += 1
        return dict(causes)

    def at_the_end(self, instance):
        """`present`, `absent` or `either`."""
        life = self.lives[instance]
        if life.must_be_there(END, END):
            return "present"
        return "absent" if life.must_not_be_there(END, END) else "either"
