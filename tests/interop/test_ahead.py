"""C-MOVE and queued sends to a destination that agrees to several operations at a time: each answer counts for the object that it
names, whatever the order, and what an association took with it goes again."""
import json
import subprocess

import pydicom
import pytest
import raw
from conftest import Server
from pydicom.uid import generate_uid
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as MOVE
from triptych import BINARY, free_port
from wide import Wide

PORT = free_port()
WINDOW_OF_8 = bytes([0, 8, 0, 1])


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    node = Server(tmp_path_factory.mktemp("server"), "--remote-ae", f"WIDE=127.0.0.1:{PORT}")
    yield node
    node.stop()


def study_of(server, count):
    """Objects of one study, stored: their bytes by UID."""
    study, series, made = generate_uid(), generate_uid(), {}
    with raw.Raw(server.dimse) as peer:
        peer.associate([(1, raw.SECONDARY_CAPTURE, [raw.IMPLICIT])])
        for number in range(count):
            uid = generate_uid()
            made[uid] = raw.data_set(raw.SECONDARY_CAPTURE, uid, study, series, raw.element(0x0020, 0x4000, f"{number:04}"))
            assert peer.store(1, raw.SECONDARY_CAPTURE, uid, made[uid], number + 1) == 0x0000
        peer.release()
    return study, made


def move(server, study):
    """The final response to C-MOVE, and the list of what failed."""
    association = server.associate([(MOVE, [raw.IMPLICIT])])
    wanted = pydicom.Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", study
    final, identifier = list(association.send_c_move(wanted, "WIDE", MOVE))[-1]
    association.release()
    failed = identifier.get("FailedSOPInstanceUIDList", []) if identifier else []
    return final, {failed} if isinstance(failed, str) else set(failed)


def counts(final):
    return final.NumberOfCompletedSuboperations, final.NumberOfFailedSuboperations, final.NumberOfWarningSuboperations


@pytest.mark.parametrize("granted, at_a_time", [(8, 8), (3, 3), (0, 8), (200, 8), (1, 1), (None, 1)])
def test_as_many_are_under_way_as_both_sides_allow(server, granted, at_a_time):
    study, made = study_of(server, 20)
    with Wide(PORT, granted, holds=at_a_time) as wide:
        final, failed = move(server, study)
        assert (final.Status, counts(final), failed) == (0x0000, (20, 0, 0), set())
        assert dict(wide.came) == made, "byte for byte"
        assert (wide.asked, wide.most) == ([WINDOW_OF_8], [at_a_time])


def test_each_answer_counts_for_the_object_that_it_names(server):
    study, made = study_of(server, 30)
    bad = set(list(made)[3::7])
    with Wide(PORT, 8, status=lambda uid: 0xA700 if uid in bad else 0x0000) as wide:
        final, failed = move(server, study)
        assert (final.Status, counts(final)) == (0xB000, (30 - len(bad), len(bad), 0))
        assert failed == bad and set(dict(wide.came)) == set(made) - bad


def test_what_an_association_took_with_it_goes_again_one_at_a_time(server):
    study, made = study_of(server, 20)
    with Wide(PORT, 8, ends_after=5) as wide:
        final, failed = move(server, study)
        assert (final.Status, counts(final), failed) == (0x0000, (20, 0, 0), set())
        assert dict(wide.came) == made and len(wide.came) == 20
        assert (wide.associations, wide.most) == (2, [1])


def test_a_queued_send_goes_ahead_too(server):
    study, made = study_of(server, 20)
    with Wide(PORT, 8, ends_after=5) as wide:
        command = [BINARY, "send", "--to", "WIDE", "--study", study, "--wait", "--json", "--http", server.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr + server.said()
        (job,) = json.loads(done.stdout)
        assert (job["state"], job["sent"], job["left"], job["failed"]) == ("done", 20, 0, 0)
        assert dict(wide.came) == made and wide.asked == [WINDOW_OF_8, None], "the rest goes one at a time"


def test_a_setting_turns_it_off(server, tmp_path):
    other = Server(tmp_path, "--remote-ae", f"WIDE=127.0.0.1:{PORT}", "--send-ahead", "1")
    try:
        study, made = study_of(other, 5)
        with Wide(PORT, 8) as wide:
            final, _ = move(other, study)
            assert (final.Status, counts(final)) == (0x0000, (5, 0, 0))
            assert (wide.asked, wide.most) == ([None], [1]) and dict(wide.came) == made
    finally:
        other.stop()
