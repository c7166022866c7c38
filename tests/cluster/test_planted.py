"""The tests of real processes see the bugs that they are for: each is planted in a cluster that is built with it.

`cargo build -p archive-server --features planted-bugs` makes such a program; with another one these are skipped.
"""
import pytest
from test_commitment import PORT, Listener, ask, damage
from cluster import Instance


@pytest.fixture
def listener():
    running = Listener()
    yield running
    running.end()


def store_some(cluster, count):
    instances = [Instance("planted", number, number) for number in range(count)]
    for instance in instances:
        assert instance.store(cluster.nodes[0]) == "ok"
    n1, n2, n3 = cluster.nodes
    cluster.until(lambda: all(node.applied() == n1.applied() for node in (n2, n3)), "all nodes hold all")
    return instances


def committed(cluster, listener, node, instance):
    """What is reported of one instance: none, or the reason why not."""
    done, failed = listener.wait_for(cluster, [one := ask(node, instance)])[one]
    assert done == [instance.uid] or instance.uid in failed
    return failed.get(instance.uid)


def damaged_twice(cluster, listener):
    """What is reported of an image that is damaged on two of three disks, and of it once it is repaired."""
    _, n2, n3 = cluster.nodes
    (instance,) = store_some(cluster, 1)
    assert committed(cluster, listener, n2, instance) is None
    damage(n2, instance)
    damage(n3, instance)
    return instance, committed(cluster, listener, n3, instance)


def test_what_is_damaged_on_two_of_three_disks_is_not_committed_until_it_is_repaired(started, listener):
    cluster = started("--remote-ae", f"LOAD=127.0.0.1:{PORT}")
    instance, why = damaged_twice(cluster, listener)
    assert why == 0x0110, cluster.said()
    repaired = lambda: committed(cluster, listener, cluster.nodes[1], instance) is None
    cluster.until(repaired, "the third has given its bytes to the others", 60)
    for node in cluster.nodes:
        assert instance.held(node) == instance.data_set


def test_replicas_that_say_they_have_verified_what_they_did_not_read_are_seen(started, listener, monkeypatch):
    monkeypatch.setenv("TRIPTYCH_PLANTED_BUG", "verified-unread")
    cluster = started("--remote-ae", f"LOAD=127.0.0.1:{PORT}")
    if "a bug is planted" not in cluster.said():
        pytest.skip("built without --features planted-bugs")
    _, why = damaged_twice(cluster, listener)
    assert why is None, "the planted bug commits what is damaged: the test above would see it"
