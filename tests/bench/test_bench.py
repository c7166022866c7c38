"""The bench itself, without any server: what it makes, what it calls wrong, and how it reckons."""
import os
import struct

import data
import move
import pytest
import rendered
import report
import small

OPTIONS = dict(associations=[], big_associations=8, big_mib=1024)


def elements(part10):
    """Tag -> value of the outermost elements behind the meta information, explicit VR little endian."""
    at, found = 144 + struct.unpack_from("<I", part10, 140)[0], {}
    while at < len(part10):
        group, number, vr = struct.unpack_from("<HH2s", part10, at)
        long = vr.decode() in data.LONG
        length = struct.unpack_from("<I" if long else "<H", part10, at + (8 if long else 6))[0]
        at += 12 if long else 8
        found[group, number] = part10[at:at + length].rstrip(b"\0 ")
        at += length
    return found


def test_small_instances_are_five_to_a_study_and_three_studies_to_a_patient(tmp_path):
    made = data.make(tmp_path, small=(7, small.INSTANCES_A_STUDY))["small"]
    seen, patients = set(), {}
    for study in made:
        assert len(study["files"]) == small.INSTANCES_A_STUDY
        for name in study["files"]:
            found = elements(data.read(tmp_path, name))
            assert found[0x20, 0x0D].decode() == study["study"]
            assert found[0x10, 0x20].decode() == study["patient"]
            seen.add(found[8, 0x18])
        patients.setdefault(study["patient"], []).append(study["study"])
    assert len(seen) == 7 * small.INSTANCES_A_STUDY
    assert [len(studies) for studies in patients.values()] == [small.STUDIES_A_PATIENT, small.STUDIES_A_PATIENT, 1]


def test_an_object_of_many_frames_says_how_many(monkeypatch):
    monkeypatch.setattr(rendered, "FRAMES", 3)
    found = elements(rendered.many_frames())
    assert (found[0x28, 8], found[0x28, 0x100]) == (b"3", struct.pack("<H", 16).rstrip(b"\0"))
    assert found[0x7FE0, 0x10] == rendered.many_frames()[-3 * 512 * 512 * 2:].rstrip(b"\0 ")
    assert list(found) == sorted(found)


def test_a_kind_is_made_again_only_when_its_own_numbers_change_or_it_is_unfinished(tmp_path):
    data.make(tmp_path, ct=(1, 1), small=(1001, 1))
    assert len(list((tmp_path / "small").iterdir())) == 2
    data.make(tmp_path, ct=(1, 1), small=(4, 5))

    def touched(**wanted):
        kinds = {"ct": tmp_path / "ct/00000/00000.dcm", "small": tmp_path / "small/000.pack"}
        for path in kinds.values():
            os.utime(path, (1, 1))
        data.make(tmp_path, **wanted)
        return {kind for kind, path in kinds.items() if path.stat().st_mtime > 1}

    assert touched(ct=(1, 1), small=(4, 5)) == set()
    assert touched(ct=(0, 1), small=(2, 5)) == {"small"}
    assert len(list((tmp_path / "small").iterdir())) == 1, "nothing is left of the larger set"
    os.unlink(tmp_path / "small.json")
    assert touched(ct=(1, 1), small=(2, 5)) == {"small"}


def rows(**rates):
    return [dict(peer=peer, test="small", round=i, inst_s=rate) for peer, all_ in rates.items() for i, rate in enumerate(all_)]


def target(result, what):
    return next(t for t in result["targets"] if what in t["what"])


def test_a_ratio_is_of_one_round_and_the_median_and_all_of_them_are_given():
    result = report.conclude(rows(triptych=[1000, 3000, 2000], orthanc=[100, 100, 250]), {}, [], OPTIONS)
    found = target(result, "small instances: rate over Orthanc's")
    assert (found["figure"], found["rounds"], found["met"]) == (10, [10, 30, 8], True)
    assert target(result, "first tenth")["met"] is None, "what was not measured is not met"


def test_a_round_without_the_peer_gives_no_ratio():
    result = report.conclude(rows(triptych=[1000, 3000], orthanc=[0, 100]), {}, [], OPTIONS)
    assert target(result, "small instances: rate over Orthanc's")["rounds"] == [30]


STORED = dict(instances=1000, seconds=10.0, tenths_inst_s=[120.0, 110, 110, 110, 110, 110, 110, 110, 110, 100],
              tenths_server_cpu_ms=[0.25] * 9 + [0.3], failures={})


class Peer:
    def __init__(self, name, folder):
        self.name, self.folder = name, folder


def test_a_whole_run_tells_its_slow_down(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * (3 << 20))
    assert "cpu_last_over_first" not in small._filled(Peer("triptych", tmp_path), STORED, 1000), "a tenth of 25 ms of CPU"
    found = small._filled(Peer("triptych", tmp_path), dict(STORED, instances=100000), 100000)
    assert found["first_over_last"] == 1.2 and found["cpu_last_over_first"] == 1.2 and "failures" not in found and "note" not in found
    assert 3 <= found["disk_mib"] <= 4


def test_orthanc_may_be_cut_short_and_says_so_while_ours_may_not(tmp_path):
    cut = dict(STORED, instances=400, tenths_inst_s=STORED["tenths_inst_s"][:4])
    orthanc = small._filled(Peer("orthanc", tmp_path), cut, 1000)
    assert "400 of 1000" in orthanc["note"] and "failures" not in orthanc and "first_over_last" not in orthanc
    ours = small._filled(Peer("triptych", tmp_path), cut, 1000)
    row = dict(peer="triptych", test="small", round=0, **{**cut, **ours})
    assert report.conclude([row], {}, [], OPTIONS)["wrong"] == ["triptych small #0: {'instances not stored': 600}"]


@pytest.mark.parametrize("matches, wrong", [(30, False), (29, True), (31, True)])
def test_each_query_has_to_find_the_three_studies(matches, wrong):
    assert bool(small._found(dict(requests=10, matches=matches, failures={})).get("failures")) == wrong


def test_all_that_was_asked_for_has_to_come_by_c_move():
    whole = dict(instances=300, mb=157.4, failures={})
    assert move._came(whole, 300, 157.5) == {}
    assert move._came(dict(whole, instances=299), 300, 157.5)["failures"]
    assert move._came(dict(whole, mb=100.0), 300, 157.5)["failures"], "the server's count alone is not believed"
