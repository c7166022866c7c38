"""Indexes on three processes: what is added at one is filled on all, and is there again after kills and without a catalogue."""
import shutil

import pytest
import requests
from cluster import Instance, element
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as FIND
from test_backup import run_json

STUDIES, EACH = 40, 3


@pytest.fixture
def cluster(started):
    return started("--query-headers", 20)


def words(value):
    return (value + " " * (len(value) % 2)).encode()


class Tagged(Instance):
    """An image with a private attribute and a KVP, which no index knows by itself."""

    def __init__(self, study, number, private, kvp):
        super().__init__("index", study, number)
        before = element(0x0010, 0x0020, b"LO", b"P1")
        after = element(0x0020, 0x000D, b"UI", self.study.encode() + b"\0" * (len(self.study) % 2))
        tagged = element(0x0009, 0x0010, b"LO", words("ACME 1.0")) + element(0x0009, 0x1001, b"LO", words(private)) + before
        tagged = self.data_set.replace(before, tagged, 1).replace(after, element(0x0018, 0x0060, b"DS", words(kvp)) + after, 1)
        self.file = self.file.replace(self.data_set, tagged)
        self.data_set = tagged


def found(node, level="studies", **keys):
    """UIDs of what QIDO finds; None if it would have to look into too many headers."""
    answer = requests.get(f"{node.web}/{level}", params=keys, timeout=30)
    if answer.status_code == 413:
        return None
    assert answer.status_code == 200, answer.text
    tag = {"studies": "0020000D", "instances": "00080018"}[level]
    return sorted(row[tag]["Value"][0] for row in answer.json())


def private(value):
    return {"00090010": "ACME 1.0", "00091001": value}


def found_by_dimse(node, value):
    keys = Dataset()
    keys.QueryRetrieveLevel, keys.StudyInstanceUID = "STUDY", ""
    keys.private_block(0x0009, "ACME 1.0", create=True).add_new(0x01, "LO", value)
    entity = AE()
    entity.add_requested_context(FIND)  # Implicit VR Little Endian is the first: the key goes without its VR
    association = entity.associate("127.0.0.1", node.dimse, ae_title="TRIPTYCH")
    assert association.is_established
    answers = [answer.StudyInstanceUID for status, answer in association.send_c_find(keys, FIND) if answer is not None]
    association.release()
    return sorted(answers)


def states(node):
    answer = requests.get(node.url + "/api/indexes", timeout=10)
    return {index["attribute"]: index["state"] for index in answer.json()["indexes"]} if answer.status_code == 200 else None


def test_an_index_is_filled_on_every_node_and_outlives_kills_and_catalogues(cluster):
    n1, n2, n3 = cluster.nodes
    images = [Tagged(study, number, f"case {study % 8}", str(80 + study % 4)) for study in range(STUDIES) for number in range(EACH)]
    for at, image in enumerate(images):
        assert image.store(cluster.nodes[at % 3]) == "ok"
    cases = {f"case {case}": sorted({image.study for image in images if f"case {case}".encode() in image.data_set}) for case in range(8)}
    assert all(len(studies) == STUDIES // 8 for studies in cases.values())
    assert all(found(node, **private("case 3")) is None for node in cluster.nodes), "120 headers are more than 20"

    name = '(0009,"ACME 1.0",01)'
    added = run_json("index", "add", name, "--vr", "LO", "--level", "study", "--wait", "--http", n1.url)
    assert (added["state"], added["instances_left"]) == ("ready", 0)
    for node in cluster.nodes:
        cluster.until(lambda node=node: states(node) == {name: "ready"}, f"{node.name} has filled its index", 30)
        assert found(node, **private("case 3")) == cases["case 3"], node.name
        assert found(node, **private("case 9")) == []
        assert found_by_dimse(node, "case 3") == cases["case 3"], node.name
    few = found(n1, "instances", **private("case 3"))
    assert few == sorted(image.uid for image in images if image.study in cases["case 3"])

    # Killed while it fills another one, and while the rest goes on: stores, replaces nothing, deletes.
    assert requests.put(n1.url + "/api/indexes/KVP", json={"level": "series"}, timeout=20).status_code == 201
    n2.kill()
    new = Tagged(100, 1, "case 3", "83")
    assert new.store(n3) == "ok"
    gone = cases["case 3"][0]
    assert requests.delete(f"{n1.web}/studies/{gone}", timeout=20).ok
    n2.start()
    left = sorted([*cases["case 3"][1:], new.study])
    by_kvp = sorted({image.study for image in images if b"DS\x02\x0083" in image.data_set} - {gone} | {new.study})
    both = {name: "ready", "KVP": "ready"}
    for node in cluster.nodes:
        cluster.until(node.ready, f"{node.name} is ready")
        cluster.until(lambda node=node: states(node) == both, f"{node.name} has filled its indexes", 30)
        assert found(node, **private("case 3")) == left, node.name
        assert found(node, KVP="83.0") == by_kvp, node.name

    # Without its catalogue a node takes the rows from its log, and fills its indexes again.
    n3.stop()
    shutil.rmtree(n3.folder / "catalog")
    n3.start()
    cluster.until(n3.ready, "n3 is ready")
    cluster.until(lambda: states(n3) == both, "n3 has filled its indexes", 30)
    assert (found(n3, **private("case 3")), found(n3, KVP="83")) == (left, by_kvp)

    for node in cluster.nodes:
        node.kill()
    cluster.start()
    assert requests.delete(n2.url + "/api/indexes/KVP", timeout=20).status_code == 204
    for node in cluster.nodes:
        cluster.until(lambda node=node: states(node) == {name: "ready"}, f"{node.name} knows the list", 30)
        assert found(node, **private("case 3")) == left
        assert found(node, KVP="83") is None, "its index is gone"
