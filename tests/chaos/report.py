"""report.json and the same for people: what was done, what came of it, how long writes stood still, how to repeat it."""
import re
from pathlib import Path

import history
from model import Model

ROOT = Path(__file__).resolve().parents[2]
LEADER_FAULTS = ("kill", "kill-leader", "kill-all")


def raft_timing():
    """Heartbeat and election times of this tree, for they make the write gap."""
    try:
        source = (ROOT / "raft/groups/src/options.rs").read_text()
    except OSError:
        return "unknown: raft/groups/src/options.rs is not here"
    values = {}
    for name in ("heartbeat", "election_min", "election_max"):
        found = re.search(name + r": Duration::from_millis\(([\d_]+)\)", source)
        values[name + "_ms"] = int(found[1].replace("_", "")) if found else None
    return values


def _writes(operations):
    """{writer: [(begun, acknowledged)]}: a write with all its attempts is one."""
    pulses = any(operation.worker.startswith("pulse") for operation in operations)
    writers, open_writes = {}, {}
    for operation in operations:
        if operation.kind not in ("cstore", "stow") or operation.worker.startswith("pulse") != pulses:
            continue
        key = operation.worker, operation.instance
        begun = open_writes.setdefault(key, operation.begun)
        if operation.outcome == "ok":
            writers.setdefault(operation.worker, []).append((begun, operation.ended))
    return writers


def gaps(operations, events):
    """{kind of fault: [seconds]}: from the fault until the last of the constant writers had a later write acknowledged."""
    writers, found = _writes(operations), {}
    for event in events:
        if event["event"] != "fault":
            continue
        standing = []
        for writes in writers.values():
            first = next((acknowledged for begun, acknowledged in writes if begun >= event["at_s"]), None)
            if first is not None:
                standing.append(first - event["at_s"])
        if standing:
            found.setdefault(event["kind"], []).append(round(max(standing), 3))
    return found


def latencies(operations, windows):
    """What clients of nodes that nobody harms wait while another one is harmed: {write, read, query: quantiles}."""
    kinds = {"cstore": "write", "stow": "write", "delete": "write", "find": "query", "qido": "query"}
    waited = {}
    for operation in operations:
        during = [window for window in windows if window[0] <= operation.begun <= window[1]]
        if operation.outcome == "ok" and during and not any(operation.node in window[2] for window in during):
            waited.setdefault(kinds.get(operation.kind, "read"), []).append(round(operation.ended - operation.begun, 3))
    return {what: quantiles(values) for what, values in sorted(waited.items())}


def quantiles(values):
    values = sorted(values)

    def at(share):
        return values[min(len(values) - 1, int(share * len(values)))]

    return {"count": len(values), "p50_s": at(0.5), "p99_s": at(0.99), "max_s": values[-1]}


def make(path, facts):
    """`facts` of the run and of the checker, with the write gaps of the history."""
    _, operations, events = history.read(path)
    by_kind = gaps(operations, events)
    leaders = [gap for kind in LEADER_FAULTS for gap in by_kind.get(kind, [])]
    facts["write_gap"] = {
        "what": "from the fault until each constant writer had a write acknowledged that it began after the fault; the longest of them",
        "after_kills": quantiles(leaders) if leaders else None,
        "by_kind": {kind: quantiles(values) for kind, values in sorted(by_kind.items())},
        "settings": facts["raft_timing"],
    }
    facts["at_unharmed_nodes"] = latencies(operations, Model(operations, events).harm())
    return facts


def _row(name, value):
    return f"  {name:<34} {value}"


def text(facts):
    checked = facts["checked"]
    lines = ["", f"Chaos run, seed {facts['seed']}: " + ("NO VIOLATION" if facts["passed"] else "VIOLATED"), ""]
    lines.append(_row("load", f"{facts['load_s']:.0f} s, {facts['mode']}; nodes in {facts['network']}; disks: {facts['disks']}"))
    for skipped in facts["skipped"]:
        lines.append(_row("SKIPPED", skipped))
    total = sum(count for kind, count in facts["faults"].items() if " " not in kind)
    lines.append(_row("faults injected", f"{total}: " + ", ".join(f"{kind} {count}" for kind, count in sorted(facts["faults"].items()))))
    for kind, outcomes in checked["operations"].items():
        lines.append(_row(kind, ", ".join(f"{outcome} {count}" for outcome, count in outcomes.items())))
    lines.append(_row("instances acknowledged", checked["instances_acknowledged"]))
    lines.append(_row("  of these not deleted", checked["instances_acknowledged_and_not_deleted"]))
    lagging = checked["served_just_after_delete"]
    served = f"; content still served by a lagging replica {lagging['count']} times, {lagging['max_s']} s at most" if lagging["count"] else ""
    lines.append(_row("  deleted", f"{checked['instances_deleted']}{served}"))
    settled = checked["unknown_instances_settled"]
    lines.append(_row("attempts of unknown outcome", checked["unknown_outcomes"]))
    lines.append(_row("  instances only such", f"{settled['whole']} whole, {settled['absent']} absent"))
    lines.append(_row("copies compared byte for byte", checked["copies_compared"]))
    lines.append(_row("lost, altered, phantom, resurrected", f"{checked['lost']}, {checked['altered']}, {checked['phantoms']}, {checked['resurrected']}"))
    causes = ", ".join(f"{cause}: {count}" for cause, count in sorted(checked["failed_content_reads"].items()))
    lines.append(_row("reads of content that failed", causes or "none"))
    causes = ", ".join(f"{cause}: {count}" for cause, count in sorted(checked["failed_queries"].items()))
    lines.append(_row("queries that failed", causes or "none"))
    for kind, gap in facts["write_gap"]["by_kind"].items():
        lines.append(_row(f"write gap: {kind}", f"p50 {gap['p50_s']:.2f} s, p99 {gap['p99_s']:.2f} s, max {gap['max_s']:.2f} s of {gap['count']}"))
    for what, waited in facts["at_unharmed_nodes"].items():
        name = f"{what} at an unharmed node"
        lines.append(_row(name, f"p50 {waited['p50_s']:.2f} s, p99 {waited['p99_s']:.2f} s, max {waited['max_s']:.2f} s of {waited['count']}, while another is harmed"))
    lines.append(_row("  with the settings", facts["raft_timing"]))
    lines.append(_row("  and", "the longest of all constant writers; those at a stopped or cut node wait with it"))
    lines.append(_row("whole after the last heal", f"{facts['whole_after_last_heal_s']} s"))
    for name, found in (facts["scrubbed"] or {}).items():
        lines.append(_row(f"{name}: scrub at the end", ", ".join(f"{what.removeprefix('damaged_')} {count}" for what, count in found.items())))
    for name, sample in facts["resources"].items():
        before, after = sample["before"] or {}, sample["after"] or {}
        lines.append(_row(f"{name}: files, memory", f"{before.get('files')} → {after.get('files')}, {before.get('rss_mib')} → {after.get('rss_mib')} MiB, most {sample['rss_mib_max']} MiB"))
    lines += ["", *(f"VIOLATION {invariant}: {what}" for invariant, what in checked["violations"][:20])]
    if len(checked["violations"]) > 20:
        lines.append(f"… and {len(checked['violations']) - 20} more in report.json")
    lines += ["", f"REPRODUCE: {facts['reproduce']}", f"report: {facts['folder']}/report.json  history: {facts['folder']}/history.jsonl", ""]
    return "\n".join(lines)
