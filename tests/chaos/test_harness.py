"""Schedules, content and figures of the harness, without any server."""
import json
import types

import content
import history
import pytest
import report
import schedule
import workload
from clients import parts

NAMES = ["n1", "n2", "n3"]


def test_one_seed_makes_one_schedule():
    one, again, other = (schedule.make(seed, 300, list(schedule.KINDS), NAMES) for seed in (7, 7, 8))
    assert one == again
    assert one != other


def test_a_long_schedule_has_every_fault():
    assert {step.kind for step in schedule.make(7, 300, list(schedule.KINDS), NAMES)} == set(schedule.KINDS)


def test_what_rots_is_one_disk_and_what_destroys_waits():
    steps = schedule.make(7, 2000, list(schedule.KINDS), NAMES)
    assert len({step.node for step in steps if step.kind in schedule.ROTTING}) == 1
    assert all(step.wait_whole for step in steps if step.destroys)
    assert all(step.node != step.other for step in steps)


@pytest.mark.parametrize("size_class, low, high", [(0, 1_000, 2_500), (1, 40_000, 61_000), (2, 524_288, 525_000), (3, 1_100_000, 3_501_000)])
def test_content_follows_from_its_name(size_class, low, high):
    study, instance = content.uid("s"), content.uid("i", size_class=size_class)
    assert len(instance) <= 64
    one = content.data_set(study, instance)
    assert low <= len(one) <= high
    assert content.data_set_of(content.file(study, instance)) == one
    assert content.instance_of(one) == instance
    assert content.is_right(study, instance, one)
    assert not content.is_right(study, instance, one[:-1] + bytes([one[-1] ^ 1]))
    assert not content.is_right(study, content.uid("j", size_class=size_class), one)
    assert not content.is_right(study, instance, None)


def test_multipart_is_taken_apart_and_a_cut_one_ends_early():
    body = b"--e\r\nContent-Type: a\r\n\r\none\r\n--e\r\nContent-Type: a\r\n\r\ntwo\r\n--e--\r\n"
    assert list(parts('multipart/related; boundary="e"', body)) == [b"one", b"two"]
    assert list(parts("multipart/related; boundary=e", body[:-9])) == [b"one"]
    assert list(parts("multipart/related; boundary=e", b"")) == []


def test_the_write_gap_is_that_of_the_last_writer_and_counts_all_attempts(tmp_path):
    path, lines, op = tmp_path / "history.jsonl", [{"event": "run"}], 0

    def write(worker, instance, begun, ended, outcome="ok"):
        nonlocal op
        op += 1
        invoked = {"op": op, "at_s": begun, "worker": worker, "kind": "stow", "node": "n1", "study": "s", "instance": instance}
        lines.extend([{"event": "invoke", **invoked}, {"event": outcome, "op": op, "at_s": ended}])

    write("pulse0", "a", 9.9, 10.1)  # begun before the fault: says nothing
    write("pulse0", "b", 10.2, 12.5)
    write("pulse1", "c", 10.5, 11.0, "unknown")
    write("pulse1", "c", 11.1, 12.2)  # the same write, its second attempt
    write("ingest0", "d", 10.5, 19.0)  # no constant writer
    lines.append({"event": "fault", "id": 1, "at_s": 10.0, "kind": "kill-leader", "harmed": ["n1"], "quorum": True})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, operations, events = history.read(path)
    assert report.gaps(operations, events) == {"kill-leader": [2.5]}
    only_second = [operation for operation in operations if operation.worker != "pulse0"]
    assert report.gaps(only_second, events) == {"kill-leader": [2.2]}
    assert report.quantiles([1, 2, 3, 4]) == {"count": 4, "p50_s": 3, "p99_s": 4, "max_s": 4}


@pytest.mark.parametrize("constant", [True, False])
def test_a_constant_writer_does_not_wait_for_its_budget_but_sends_the_smallest(tmp_path, constant):
    class Written(workload.Ingest):
        def store(self, kind, study, instance):
            written.append(instance)
            return False

        def wait_for_budget(self):
            waited.append(self.name)
            self.load.stop.set()

    written, waited, budget = [], [], workload.Budget(1, 1e9)
    budget.take(64 << 20)
    nodes = [types.SimpleNamespace(name="n1", address="", dimse=1, url="")]
    told = history.History(tmp_path / "history.jsonl")
    load = workload.Workload(
        cluster=types.SimpleNamespace(nodes=nodes), history=told, seed=1, budget=budget, destination="", can_delete=False, rate=0
    )  # fmt: skip
    Written(load, "ingest0", 0, weights=[0, 0, 0, 1], constant=constant).work()
    told.close()
    assert {int(instance[-1]) for instance in written} == {0 if constant else 3}
    assert bool(waited) != constant


def test_latency_is_of_unharmed_nodes_while_another_is_harmed():
    def operation(op, node, begun, ended, outcome="ok"):
        return history.Operation(op, "w", "stow", node, "s", "i", begun, ended, outcome)

    window = (10.0, 20.0, ["n1"], True, "kill")
    told = [operation(1, "n2", 11, 13), operation(2, "n1", 11, 19), operation(3, "n2", 5, 9), operation(4, "n2", 12, 18, "unknown")]
    assert report.latencies(told, [window]) == {"write": {"count": 1, "p50_s": 2, "p99_s": 2, "max_s": 2}}


def test_the_settings_that_make_the_gap_are_read_from_this_tree():
    timing = report.raft_timing()
    assert timing["heartbeat_ms"] > 0 and timing["election_max_ms"] > timing["election_min_ms"] > timing["heartbeat_ms"]
