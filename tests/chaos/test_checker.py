"""The checker finds what it is there to find: a fake cluster is made to break each promise, and a sound one passes."""
import json
from types import SimpleNamespace

import content
import pytest
from check import check
from fake import FakeNode

STUDY = content.uid("test", "study")
FIRST, SECOND, LATER = (content.uid("test", number) for number in range(3))
STRANGE = content.uid("test", "strange")


class Told:
    """A made-up history."""

    def __init__(self, path, nodes):
        self.path, self.ops = path, 0
        self.lines = [{"event": "run", "nodes": {name: node.address() for name, node in nodes.items()}}]

    def operation(self, kind, begun, ended, outcome, instance=FIRST, node="n1", **facts):
        self.ops += 1
        invoked = {"op": self.ops, "at_s": begun, "worker": "w", "kind": kind, "node": node, "study": STUDY, "instance": instance}
        self.lines.append({"event": "invoke", **invoked})
        if outcome is not None:
            self.lines.append({"event": outcome, "op": self.ops, "at_s": ended, **facts})

    def store(self, begun, ended, outcome="ok", instance=FIRST, kind="cstore"):
        self.operation(kind, begun, ended, outcome, instance)

    def delete(self, begun, ended, outcome="ok", instance=FIRST, **facts):
        self.operation("delete", begun, ended, outcome, instance, **facts)

    def look(self, begun, ended, found, instance=FIRST, kind="find", **facts):
        self.operation(kind, begun, ended, "ok", instance, found=found, **{"bad": [], **facts})

    def event(self, event, **facts):
        self.lines.append({"event": event, **facts})

    def checked(self):
        self.path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return check(self.path, settle_s=0, gets=5)


@pytest.fixture
def speaks_dimse():
    """DIMSE is slow to shake hands: only the tests that are about it have it."""
    return False


with_dimse = pytest.mark.parametrize("speaks_dimse", [True])


@pytest.fixture
def world(tmp_path, speaks_dimse):
    """Three nodes that hold the first two instances, which were acknowledged."""
    nodes = {name: FakeNode(speaks_dimse) for name in ("n1", "n2", "n3")}
    told = Told(tmp_path / "history.jsonl", nodes)
    for instance in (FIRST, SECOND):
        told.store(1, 2, instance=instance)
        for node in nodes.values():
            node.hold(STUDY, instance)
    yield SimpleNamespace(told=told, nodes=nodes, n2=nodes["n2"])
    for node in nodes.values():
        node.end()


def violated(world):
    return world.told.checked()["violations"]


def only(world, invariant, *words):
    """Exactly this invariant is violated, and the text says what."""
    found = violated(world)
    assert found, f"nothing was found; {invariant} is violated"
    assert {own for own, _ in found} == {invariant}, found
    assert all(any(word in what for _, what in found) for word in words), found
    return found


@with_dimse
def test_a_sound_cluster_passes_and_everything_is_compared(world):
    world.told.store(3, 4, "unknown", instance=LATER)
    world.told.look(5, 6, [FIRST, SECOND], instance=None, kind="wado-study")
    checked = world.told.checked()
    assert checked["violations"] == []
    assert (checked["instances_acknowledged"], checked["lost"], checked["altered"], checked["phantoms"]) == (2, 0, 0, 0)
    assert checked["unknown_instances_settled"] == {"whole": 0, "absent": 1}
    # Six by WADO-RS; the study by C-GET from each node.
    assert checked["copies_compared"] == 12


def test_an_instance_lost_at_one_node(world):
    del world.n2.held[STUDY, SECOND]
    found = only(world, "I1", "LOST", SECOND, "n2")
    assert world.told.checked()["lost"] == 1, found


def test_an_instance_lost_everywhere(world):
    for node in world.nodes.values():
        del node.held[STUDY, FIRST]
    only(world, "I1", "LOST", FIRST, "n1 n2 n3")


def test_one_bit_of_one_copy(world):
    file = bytearray(world.n2.held[STUDY, FIRST])
    file[-1] ^= 1
    world.n2.held[STUDY, FIRST] = bytes(file)
    found = violated(world)
    assert ["I1", f"ALTERED: {FIRST} has other bytes at n2"] in found
    assert world.told.checked()["altered"] >= 1


def test_a_copy_that_is_cut(world):
    world.n2.held[STUDY, FIRST] = world.n2.held[STUDY, FIRST][:-2]
    assert ["I1", f"ALTERED: {FIRST} has other bytes at n2"] in violated(world)


@with_dimse
def test_other_bytes_by_c_get_alone(world):
    world.n2.altered_by_get.add(FIRST)
    only(world, "I1", "ALTERED", "C-GET", "n2")


def test_other_bytes_read_while_the_load_went_on(world):
    world.told.look(3, 4, [FIRST], kind="wado", bad=[FIRST])
    only(world, "I1", "ALTERED", "wado at n1")


def test_an_instance_that_nobody_sent(world):
    world.n2.hold(STUDY, STRANGE)
    found = violated(world)
    assert ["I3", f"PHANTOM: n2 serves {STRANGE}, which nobody sent"] in found
    assert ["I3", f"PHANTOM: n2 lists {STRANGE}, which nobody sent"] in found


@with_dimse
def test_an_instance_of_a_study_that_nobody_sent(world):
    world.n2.hold(content.uid("other study"), STRANGE)
    found = violated(world)
    assert ["I3", f"PHANTOM: n2 lists {STRANGE}, which nobody sent"] in found
    assert any("C-FIND" in what and what.startswith("PHANTOM") for _, what in found)


def test_a_phantom_that_is_only_listed(world):
    world.n2.listed_only.append(STRANGE)
    only(world, "I3", "PHANTOM", STRANGE)


@with_dimse
def test_a_phantom_that_is_only_found_by_c_find(world):
    world.n2.found_only.append(content.uid("other study"))
    only(world, "I3", "PHANTOM", "C-FIND")


def test_a_phantom_that_a_reader_saw(world):
    world.told.look(3, 4, [FIRST, STRANGE], instance=None, kind="qido")
    found = violated(world)
    assert ["I3"] == sorted({own for own, what in found if STRANGE in what}), found


def test_an_instance_found_before_anybody_sent_it(world):
    world.told.look(0.1, 0.5, [FIRST])
    only(world, "I3", "nobody had sent it")


def test_a_refused_instance_that_is_there(world):
    world.told.store(3, 4, "fail", instance=LATER)
    for node in world.nodes.values():
        node.hold(STUDY, LATER)
    only(world, "I3", "refused everywhere", LATER)


def test_an_unknown_outcome_that_is_whole_everywhere_is_fine(world):
    world.told.store(3, 4, "unknown", instance=LATER)
    for node in world.nodes.values():
        node.hold(STUDY, LATER)
    checked = world.told.checked()
    assert checked["violations"] == []
    assert checked["unknown_instances_settled"] == {"whole": 1, "absent": 0}


def test_a_store_without_any_end_is_an_unknown_outcome(world):
    world.told.store(3, None, None, instance=LATER)
    assert violated(world) == []


def test_an_unknown_outcome_that_differs_between_nodes(world):
    world.told.store(3, 4, "unknown", instance=LATER)
    world.n2.hold(STUDY, LATER)
    only(world, "I2", "at n2 and not at n1 n3")


def test_an_unknown_outcome_that_comes_between_two_sweeps(world):
    world.told.store(3, 4, "unknown", instance=LATER)
    world.n2.from_second_listing = [(STUDY, LATER)]
    only(world, "I2", "came at n2 between two sweeps")


def test_an_unknown_outcome_that_was_seen_stays(world):
    world.told.store(3, 4, "unknown", instance=LATER)
    world.told.look(5, 6, [LATER], instance=LATER)
    only(world, "I1", "LOST", LATER)


def test_an_acknowledged_instance_that_a_query_does_not_find(world):
    world.told.look(2.001, 2.1, [])
    only(world, "I4", FIRST, "find at n1")


def test_an_instance_missing_in_its_study(world):
    world.told.look(3, 4, [SECOND], instance=None, kind="cget")
    only(world, "I4", FIRST)


def test_a_query_that_overlaps_the_store_may_miss_it(world):
    world.told.look(1.9, 2.1, [])
    assert violated(world) == []


def test_a_query_that_goes_back_behind_another(world):
    world.told.store(3, 9, "ok", instance=LATER)
    for node in world.nodes.values():
        node.hold(STUDY, LATER)
    world.told.look(4, 5, [LATER], instance=LATER)
    world.told.look(6, 7, [], instance=LATER)
    only(world, "I4", LATER)


def test_the_deleted_comes_back_on_one_node(world):
    world.told.delete(3, 4)
    for node in world.nodes.values():
        del node.held[STUDY, FIRST]
    assert violated(world) == []
    world.n2.hold(STUDY, FIRST)
    only(world, "I8", "RESURRECTED", FIRST, "n2")
    assert world.told.checked()["resurrected"] == 1


def test_a_deleted_study_that_is_still_there(world):
    world.told.delete(3, 4, instance=None)
    found = only(world, "I8", FIRST, SECOND)
    assert len(found) == 2


def test_a_query_that_finds_the_deleted(world):
    world.told.delete(3, 4)
    for node in world.nodes.values():
        del node.held[STUDY, FIRST]
    world.told.look(5, 6, [FIRST])
    assert ["I8"] == sorted({own for own, _ in violated(world)})


def test_a_delete_of_unknown_outcome_allows_both(world):
    world.told.delete(3, 4, "unknown")
    assert violated(world) == []
    for node in world.nodes.values():
        del node.held[STUDY, FIRST]
    assert violated(world) == []


def test_a_delete_of_unknown_outcome_that_was_seen_to_have_come_stays(world):
    world.told.delete(3, 4, "unknown")
    world.told.look(5, 6, [])
    only(world, "I8", "RESURRECTED", FIRST)


def test_what_a_delete_said_is_not_there_is_not_there(world):
    world.told.delete(3, 4, "fail", why="404")
    only(world, "I8", "RESURRECTED", FIRST)


def test_a_refused_delete_deletes_nothing(world):
    world.told.delete(3, 4, "fail", why="400")
    assert violated(world) == []
    del world.n2.held[STUDY, FIRST]
    only(world, "I1", "LOST", FIRST)


def test_a_replica_that_lags_may_serve_the_deleted_for_a_moment_only(world):
    world.told.delete(3, 4)
    for node in world.nodes.values():
        del node.held[STUDY, FIRST]
    world.told.look(4.5, 4.6, [FIRST], kind="wado")
    checked = world.told.checked()
    assert (checked["violations"], checked["served_just_after_delete"]) == ([], {"count": 1, "max_s": 0.5})
    world.told.look(8, 9, [FIRST], kind="wado")
    only(world, "I8", "it was deleted", FIRST)


def test_an_instance_stored_again_after_its_deletion_is_there(world):
    world.told.delete(3, 4)
    world.told.store(5, 6)
    assert violated(world) == []
    del world.n2.held[STUDY, FIRST]
    only(world, "I1", "LOST", FIRST)


def test_an_instance_that_is_listed_twice(world):
    world.n2.listed_twice = True
    only(world, "I9", "n2 lists")


def test_a_version_although_nobody_sent_other_bytes(world):
    world.n2.versions = 1
    only(world, "I9", "other contents")


def test_a_failed_read_of_committed_content(world):
    world.told.operation("wado", 5, 6, "fail", why="503")
    only(world, "READ", "which nobody harmed", "503")


def test_a_failed_read_while_another_node_is_down(world):
    world.told.event("fault", id=1, at_s=4, kind="kill", harmed=["n3"], quorum=True)
    world.told.event("recovered", id=1, at_s=9, kind="kill", harmed=["n3"])
    world.told.operation("wado", 5, 6, "fail", why="503")
    only(world, "READ", "during kill")


def test_a_failed_read_at_a_harmed_node_is_counted(world):
    world.told.event("fault", id=1, at_s=4, kind="kill", harmed=["n1"], quorum=True)
    world.told.event("recovered", id=1, at_s=9, kind="kill", harmed=["n1"])
    world.told.operation("wado", 5, 6, "fail", why="no connection")
    checked = world.told.checked()
    assert (checked["violations"], checked["failed_content_reads"]) == ([], {"the node itself was harmed": 1})


def test_a_failed_read_after_the_node_is_well_again(world):
    world.told.event("fault", id=1, at_s=4, kind="kill", harmed=["n1"], quorum=True)
    world.told.event("recovered", id=1, at_s=5, kind="kill", harmed=["n1"])
    world.told.operation("wado", 6, 7, "fail", why="503")
    only(world, "READ", "no fault")


@with_dimse
def test_a_node_that_does_not_serve_after_the_last_heal(world):
    world.n2.refuses = True
    found = [what for own, what in violated(world) if own == "I12"]
    assert any(what.startswith(f"n2 does not serve study {STUDY}") for what in found), found


def test_a_failure_of_the_run_is_a_violation(world):
    world.told.event("failure", what="I12: not within 60 s: whole again")
    world.told.event("failure", what="n2 ended by itself")
    assert sorted(own for own, _ in violated(world)) == ["I12", "RUN"]


def test_a_violation_that_a_node_counts_itself(world):
    world.n2.metrics = 'raft_groups_invariant_violations_total{id="I10"} 2\n'
    only(world, "METRIC", "n2", "I10")


def test_a_node_that_counts_none_is_fine(world):
    world.n2.metrics = 'raft_groups_invariant_violations_total{id="I10"} 0\n'
    assert violated(world) == []
