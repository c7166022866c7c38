#!/usr/bin/env python3
"""The checker: reads history.jsonl and asks the nodes, after the load has ended and the cluster has come together.

    check.py --history target/chaos/…/history.jsonl [--settle-s 10] [--gets 30] [--out checked.json]

Shares no code with the server; content.py tells it what every byte must be. Exits with 1 if an invariant is violated:
I1 every acknowledged instance is on every node, bit-identical · I2 unknown outcomes are whole or absent, the same on every
node, and settled · I3 no phantom · I4 what was acknowledged is found at once, on any node · I8 deleted stays deleted · I9 the
same bytes again are one instance · I12 every node serves after the last heal · READ committed content is served by
nodes that nobody harmed · METRIC the nodes count no violation themselves · RUN the run itself failed."""
import argparse
import json
import sys
import time
from collections import Counter

import history
from model import END, NEVER_SENT, Model
from sweep import Sweep


def check(path, settle_s=10, gets=30, tell=lambda text: None):
    """The findings: {"violations": [[invariant, what]], counts …}."""
    run, operations, events = history.read(path)
    model = Model(operations, events)
    model.check_reads()
    failed_reads = model.failed_reads()
    for event in events:
        if event["event"] == "failure":
            model.violate("I12" if event["what"].startswith("I12") else "RUN", event["what"])
    expected = {instance: model.at_the_end(instance) for instance in model.lives}
    tell(f"{len(operations)} operations, {len(expected)} instances: {dict(Counter(expected.values()))}")

    sweep = Sweep(run["nodes"], model.violate)
    studies = sorted(model.of_study)
    held = sweep.holdings(studies, model.of_study)
    tell(f"{sweep.compared} copies compared byte for byte")
    _check_holdings(model, expected, held)
    listed = sweep.qido()
    _check_listing(model, held, listed)
    tell(f"{sum(map(len, listed.values()))} listed by QIDO-RS")
    if sweep.dimse:
        _check_cfind(model, held, *sweep.cfind(studies))
        tell(f"{len(studies)} studies asked for by C-FIND")
        _check_cget(model, held, sweep.cget(studies, gets))
        tell(f"{sweep.compared} copies compared, with those by C-GET")

    # I2: what is unknown has been decided, and stays as it is.
    time.sleep(settle_s)
    later = sweep.qido()
    for name in held:
        for instance in sorted(listed.get(name, set()) ^ later.get(name, set())):
            what = "came" if instance in later.get(name, set()) else "went"
            model.violate("I2", f"{instance} {what} at {name} between two sweeps, {settle_s} s apart, when nobody wrote")
    either = [instance for instance, state in expected.items() if state == "either"]
    counters = sweep.counters()

    by_id = Counter(invariant for invariant, _ in model.violations)
    texts = [what for _, what in model.violations]
    attempts = Counter((operation.kind, operation.outcome) for operation in operations)
    operations_told = {}
    for (kind, outcome), count in sorted(attempts.items()):
        operations_told.setdefault(kind, {})[outcome] = count
    present = [instance for instance, state in expected.items() if state == "present"]
    return {
        "violations": [list(violation) for violation in model.violations],
        "violations_by_invariant": dict(by_id),
        "operations": operations_told,
        "instances_attempted": len(model.lives),
        "instances_acknowledged": sum(1 for life in model.lives.values() if life.acknowledged),
        "instances_acknowledged_and_not_deleted": len(present),
        "instances_deleted": sum(1 for i, state in expected.items() if state == "absent" and model.lives[i].deletes),
        "lost": sum(1 for what in texts if what.startswith("LOST")),
        "altered": sum(1 for what in texts if what.startswith("ALTERED")),
        "phantoms": sum(1 for what in texts if what.startswith("PHANTOM")),
        "resurrected": sum(1 for what in texts if what.startswith("RESURRECTED")),
        "unknown_outcomes": sum(life.unknown for life in model.lives.values()),
        "unknown_instances_settled": {
            "whole": sum(1 for instance in either if any(instance in copies for copies in held.values())),
            "absent": sum(1 for instance in either if not any(instance in copies for copies in held.values())),
        },
        "failed_content_reads": failed_reads,
        "served_just_after_delete": {"count": len(model.served_after_delete), "max_s": max(model.served_after_delete, default=0)},
        "failed_queries": model.failed_queries(),
        "copies_compared": sweep.compared,
        "counters": counters,
    }


def _check_holdings(model, expected, held):
    """I1, I2, I3, I8 on every node."""
    for instance, state in expected.items():
        having = sorted(name for name, copies in held.items() if instance in copies)
        lacking = sorted(name for name in held if name not in having)
        for name in having:
            if not held[name][instance]:
                model.violate("I1", f"ALTERED: {instance} has other bytes at {name}")
        if state == "present" and lacking:
            model.violate("I1", f"LOST: {instance} was acknowledged or seen and is not at {' '.join(lacking)}")
        elif state == "absent" and having:
            why = model.lives[instance].must_not_be_there(END, END)
            told = "it was refused everywhere" if why == NEVER_SENT else why
            model.violate("I3" if why == NEVER_SENT else "I8", f"RESURRECTED: {instance} is at {' '.join(having)}, but {told}")
        elif state == "either" and having and lacking:
            model.violate("I2", f"{instance}, of unknown outcome, is at {' '.join(having)} and not at {' '.join(lacking)}")
    for name, copies in held.items():
        for instance in sorted(set(copies) - set(expected)):
            model.violate("I3", f"PHANTOM: {name} serves {instance}, which nobody sent")


def _check_listing(model, held, listed):
    """What QIDO-RS lists is what WADO-RS serves."""
    for name, instances in listed.items():
        for instance in sorted(instances - set(model.lives)):
            model.violate("I3", f"PHANTOM: {name} lists {instance}, which nobody sent")
        served = set(held.get(name, {}))
        for instance in sorted(served - instances):
            model.violate("I1", f"{name} serves {instance} and does not list it (QIDO-RS)")
        for instance in sorted((instances & set(model.lives)) - served):
            model.violate("I1", f"LOST: {name} lists {instance} and does not serve it")


def _check_cfind(model, held, lists, images):
    for name, studies in lists.items():
        for study in sorted(studies - set(model.of_study)):
            model.violate("I3", f"PHANTOM: {name} lists study {study} (C-FIND), which nobody sent")
        served = {model.lives[instance].study for instance in held.get(name, {}) if instance in model.lives}
        for study in sorted(served ^ (studies & set(model.of_study))):
            model.violate("I1", f"{name}: C-FIND and WADO-RS do not agree about study {study}")
    for study, (name, found) in images.items():
        served = {instance for instance in held.get(name, {}) if instance in model.of_study[study]}
        if len(found) != len(set(found)):
            model.violate("I9", f"{name} lists an instance of {study} twice (C-FIND)")
        if set(found) != served:
            model.violate("I1", f"{name}: C-FIND lists {len(found)} instances of {study}, WADO-RS serves {len(served)}")


def _check_cget(model, held, got):
    for (name, study), came in got.items():
        for instance, right in came.items():
            if not right:
                model.violate("I1", f"ALTERED: {instance} has other bytes by C-GET at {name}")
        served = {instance for instance in held.get(name, {}) if instance in model.of_study[study]}
        if set(came) != served:
            model.violate("I1", f"{name}: C-GET sends {len(came)} instances of {study}, WADO-RS serves {len(served)}")


def main():
    arguments = argparse.ArgumentParser(description="Checks a chaos run: see the head of this file.")
    arguments.add_argument("--history", required=True)
    arguments.add_argument("--settle-s", type=float, default=10, help="between the two sweeps")
    arguments.add_argument("--gets", type=int, default=30, help="studies that each node is asked for by C-GET")
    arguments.add_argument("--out", help="write the findings as JSON")
    asked = arguments.parse_args()
    began = time.monotonic()
    found = check(
        asked.history, asked.settle_s, asked.gets, tell=lambda text: print(f"{time.monotonic() - began:+7.1f} s  check: {text}", flush=True)
    )
    if asked.out:
        with open(asked.out, "w") as out:
            json.dump(found, out, indent=1)
    for invariant, what in found["violations"][:50]:
        print(f"VIOLATION {invariant}: {what}", flush=True)
    return 1 if found["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
