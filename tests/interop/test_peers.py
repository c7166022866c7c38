"""What the registry of peers allows, as pynetdicom sees it: every change is made while the server runs."""
import json
import subprocess
import threading

import pydicom
import pynetdicom
import pytest
import raw
import requests
from conftest import SCP_PORT, Server
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as FIND,
    StudyRootQueryRetrieveInformationModelGet as GET,
    StudyRootQueryRetrieveInformationModelMove as MOVE,
    Verification as ECHO,
)
from triptych import BINARY, free_port

STORE = raw.SECONDARY_CAPTURE
CLASSES = {"echo": ECHO, "store": STORE, "find": FIND, "move": MOVE, "get": GET}
RIGHTS = [*CLASSES, "commit"]


def put(server, title, **entry):
    answer = requests.put(f"{server.url}/api/peers/{requests.utils.quote(title, safe='')}", json=entry, timeout=10)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def remove(server, title):
    requests.delete(f"{server.url}/api/peers/{requests.utils.quote(title, safe='')}", timeout=10)


@pytest.fixture(autouse=True)
def nobody_is_left(server):
    yield
    for peer in requests.get(server.url + "/api/peers", timeout=10).json()["peers"]:
        remove(server, peer["ae"])


def ask(server, calling, classes, address=("127.0.0.1", 0)):
    """An association, accepted or not."""
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
    for abstract in classes:
        ae.add_requested_context(abstract, [raw.IMPLICIT])
    return ae.associate("127.0.0.1", server.dimse, ae_title="TRIPTYCH", bind_address=address)


def rejection(server, calling, address="127.0.0.1"):
    """Result, source and reason of A-ASSOCIATE-RJ."""
    with raw.Raw(server.dimse, source=address) as peer:
        kind, body = peer.associate([(1, str(ECHO), [raw.IMPLICIT])], calling=calling)
        assert kind == raw.ASSOCIATE_RJ, kind
        return tuple(body[1:4])


def keys(level="STUDY", **more):
    asked = pydicom.Dataset()
    asked.QueryRetrieveLevel = level
    for key, value in more.items():
        setattr(asked, key, value)
    return asked


def image(study=None, instance=None, comment="one"):
    """An object that pynetdicom can send."""
    made = pydicom.Dataset()
    made.SOPClassUID, made.SOPInstanceUID = STORE, instance or generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = study or generate_uid(), "1.2.3.4.5"
    made.PatientID, made.ImageComments = "P1", comment
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = raw.IMPLICIT
    return made


@pytest.mark.parametrize("right", CLASSES)
def test_each_right_that_is_missing_refuses_its_context_alone(server, right):
    put(server, "RULED", rights=[other for other in RIGHTS if other != right])
    association = ask(server, "RULED", CLASSES.values())
    assert association.is_established
    refused = {context.abstract_syntax: context.result for context in association.rejected_contexts}
    association.release()
    assert refused == {CLASSES[right]: 1}, "user rejection, and of this class only"


def test_a_right_that_is_taken_away_is_missed_at_once_without_restart(server):
    association = ask(server, "RULED", CLASSES.values())
    assert association.send_c_echo().Status == 0x0000
    assert association.send_c_store(image()).Status == 0x0000
    put(server, "RULED", rights=["find"])
    assert association.send_c_echo().Status == 0x0124
    refused = association.send_c_store(image())
    assert (refused.Status, bool(refused.ErrorComment)) == (0x0124, True)
    assert [status.Status for status, _ in association.send_c_get(keys(StudyInstanceUID="1.2"), GET)] == [0x0124]
    moved = association.send_c_move(keys(StudyInstanceUID="1.2"), "PYSCP", MOVE)
    assert [status.Status for status, _ in moved] == [0x0124]
    found = association.send_c_find(keys(StudyInstanceUID="1.2"), FIND)
    assert [status.Status for status, _ in found] == [0x0000]
    put(server, "RULED", rights=["store"])
    assert [status.Status for status, _ in association.send_c_find(keys(StudyInstanceUID="1.2"), FIND)] == [0x0124]
    assert association.send_c_store(image()).Status == 0x0000
    association.release()


def test_who_is_not_listed_is_rejected_once_that_is_closed(server):
    put(server, "PYTEST")  # the test that follows every test
    association = ask(server, "STRANGER", [ECHO])
    association.release()
    put(server, "*", rights=[])
    assert rejection(server, "STRANGER") == (1, 1, 3)
    association = ask(server, "PYTEST", [ECHO])
    assert association.is_established and association.send_c_echo().Status == 0x0000
    association.release()
    remove(server, "*")
    association = ask(server, "STRANGER", [ECHO])
    assert association.is_established
    association.release()


def test_who_comes_from_another_address_is_rejected(server):
    put(server, "RULED", networks=["127.0.0.2"])
    assert rejection(server, "RULED") == (1, 1, 3)
    association = ask(server, "RULED", [ECHO], address=("127.0.0.2", 0))
    assert association.is_established
    association.release()
    put(server, "RULED", networks=["127.0.0.0/30", "192.0.2.0/24"])
    association = ask(server, "RULED", [ECHO])
    assert association.is_established
    association.release()
    assert rejection(server, "RULED", "127.0.0.9") == (1, 1, 3)


def test_who_has_too_many_associations_is_put_off_and_others_are_not(server):
    put(server, "RULED", associations_max=2)
    held = [ask(server, "RULED", [ECHO]) for _ in range(2)]
    assert all(association.is_established for association in held)
    assert rejection(server, "RULED") == (2, 3, 2)
    other = ask(server, "OTHER", [ECHO])
    assert other.is_established
    for association in [*held, other]:
        association.release()


def test_other_content_is_rejected_and_nothing_of_it_kept_where_that_is_the_policy(server):
    put(server, "RULED", other_content="reject")
    first = image()
    other = image(first.StudyInstanceUID, first.SOPInstanceUID, "two")
    association = ask(server, "RULED", [STORE])
    assert association.send_c_store(first).Status == 0x0000
    before = server.totals()
    refused = association.send_c_store(other)
    assert (refused.Status, refused.ErrorComment) == (0x0111, "other content is stored under this SOP Instance UID")
    assert association.send_c_store(first).Status == 0x0000, "the same again is normal"
    association.release()
    assert server.totals() == before
    assert comment_of(server, first) == "one"


def file_of(server, data_set, **more):
    accept = {"Accept": "application/dicom; transfer-syntax=*"}
    parameters = {"as": "received", **more}
    answer = requests.get(server.instance_url(data_set), headers=accept, params=parameters, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.content


def comment_of(server, data_set, **more):
    return pydicom.dcmread(pydicom.filebase.DicomBytesIO(file_of(server, data_set, **more))).ImageComments


def test_other_content_replaces_and_the_first_is_kept_where_that_is_the_policy(server):
    put(server, "RULED", other_content="replace")
    first = image()
    other = image(first.StudyInstanceUID, first.SOPInstanceUID, "two")
    association = ask(server, "RULED", [STORE])
    before = server.totals()["versions"]
    for sent in (first, other, other, first):
        assert association.send_c_store(sent).Status == 0x0000
    association.release()
    assert server.totals()["versions"] == before + 1
    assert comment_of(server, first) == "two"
    assert comment_of(server, first, version=1) == "one"
    metadata = requests.get(server.instance_url(first) + "/metadata", timeout=10).json()
    assert metadata[0]["00204000"]["Value"] == ["two"], "the metadata is that of the bytes"
    listed = requests.get(server.url + "/api/versions", params={"study": first.StudyInstanceUID}, timeout=10).json()
    assert [(one["number"], one["calling_ae"]) for one in listed] == [(1, "RULED")]
    accept = {"Accept": "application/dicom; transfer-syntax=*"}
    assert requests.get(server.url + listed[0]["url"], headers=accept, timeout=10).status_code == 200


def test_a_lenient_query_needs_no_upper_keys(server):
    stored = image()
    association = ask(server, "RULED", [STORE, FIND])
    assert association.send_c_store(stored).Status == 0x0000
    asked = keys("IMAGE", SOPInstanceUID=stored.SOPInstanceUID)
    assert [status.Status for status, _ in association.send_c_find(asked, FIND)] == [0xA900]
    put(server, "RULED", hierarchy="lenient")
    answers = list(association.send_c_find(asked, FIND))
    association.release()
    assert [status.Status for status, _ in answers] == [0xFF00, 0x0000]
    assert answers[0][1].SOPInstanceUID == stored.SOPInstanceUID


def test_a_destination_is_found_in_the_registry_before_the_command_line(server):
    stored, received, port = image(), [], free_port()
    association = ask(server, "RULED", [STORE, MOVE])
    assert association.send_c_store(stored).Status == 0x0000
    scp = AE(ae_title="NEW")
    scp.add_supported_context(STORE, [raw.IMPLICIT, raw.EXPLICIT])

    def take(event):
        received.append((event.context.transfer_syntax, event.request.AffectedSOPInstanceUID))
        return 0x0000

    listener = scp.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])

    def move(destination):
        wanted = keys(StudyInstanceUID=stored.StudyInstanceUID)
        return list(association.send_c_move(wanted, destination, MOVE))[-1][0].Status

    try:
        assert move("NEW") == 0xA801
        put(server, "NEW", address=f"127.0.0.1:{port}", transfer_syntaxes=[raw.EXPLICIT])
        assert move("NEW") == 0x0000
        assert move("NOBODY") == 0xA702, "the command line's, where nobody listens"
        put(server, "NOBODY", address=f"127.0.0.1:{port}")
        assert move("NOBODY") == 0x0000
        put(server, "NOBODY")
        assert move("NOBODY") == 0xA801, "listed without an address"
    finally:
        association.release()
        listener.shutdown()
    assert [(str(syntax), uid) for syntax, uid in received] == [
        (raw.EXPLICIT, stored.SOPInstanceUID),
        (raw.IMPLICIT, stored.SOPInstanceUID),
    ]


def triptych(server, *words, code=0):
    command = [BINARY, "peer", *words, "--http", server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_command_line_sets_lists_echoes_and_removes(server):
    said = triptych(server, "set", "WS 1", "--rights", "echo,find", "--networks", "10.0.0.0/8", "--notes", "ward 3")
    assert "WS 1 is set: it may echo find" in said
    said = triptych(server, "set", "WS 1", "--address", f"127.0.0.1:{SCP_PORT}")
    assert "is changed: it may echo find" in said, "what is not given stays"
    listed = json.loads(triptych(server, "list", "--json"))
    (entry,) = listed["peers"]
    assert (entry["rights"], entry["networks"], entry["notes"]) == (["echo", "find"], ["10.0.0.0/8"], "ward 3")
    table = triptych(server, "list")
    assert "* (not listed)" in table and "10.0.0.0/8" in table and "--remote-ae" in table
    scp = pynetdicom.AE(ae_title="WS 1")
    scp.add_supported_context(ECHO)
    listener = scp.start_server(("127.0.0.1", SCP_PORT), block=False)
    try:
        assert "answered n1 in" in triptych(server, "echo", "WS 1")
        answer = json.loads(triptych(server, "echo", "WS 1", "--json"))
        assert answer["ok"] and 0 < answer["milliseconds"] < 15_000
    finally:
        listener.shutdown()
    said = triptych(server, "echo", "WS 1", code=1)
    assert "did not answer n1: no connection to" in said
    assert "is removed" in triptych(server, "remove", "WS 1")
    assert "there is no peer WS 1" in triptych(server, "remove", "WS 1", code=1)
    for bad in (["--address", "nowhere"], ["--networks", "10.1.2.3/8"], ["--rights", "fly"], ["--associations", "0"]):
        assert "triptych: " in triptych(server, "set", "WS1", *bad, code=1)
    assert "16 characters" in triptych(server, "set", "A" * 17, code=1)
    assert json.loads(triptych(server, "list", "--json"))["peers"] == []


def test_the_registry_is_there_again_after_a_kill(tmp_path):
    node = Server(tmp_path)
    put(node, "*", rights=[])
    put(node, "RULED", rights=["echo"])
    node.kill()
    again = Server(tmp_path)
    try:
        assert rejection(again, "STRANGER") == (1, 1, 3)
        association = ask(again, "RULED", [ECHO, STORE])
        assert [str(context.abstract_syntax) for context in association.accepted_contexts] == [str(ECHO)]
        association.release()
    finally:
        again.stop()


def test_no_caller_slips_in_while_a_node_starts(tmp_path):
    """Before the node knows that strangers are shut out, they are put off."""
    node = Server(tmp_path)
    put(node, "*", rights=[])
    node.kill()
    port, codes, stop = node.dimse, set(), threading.Event()

    def knock():
        while not stop.is_set():
            try:
                with raw.Raw(port, timeout=5) as peer:
                    kind, body = peer.associate([(1, str(ECHO), [raw.IMPLICIT])], calling="STRANGER")
                    codes.add((kind, *body[1:4]) if kind == raw.ASSOCIATE_RJ else (kind,))
            except (OSError, EOFError):
                pass

    knocking = threading.Thread(target=knock, daemon=True)
    knocking.start()
    again = Server(tmp_path, dimse=port)
    try:
        assert rejection_at(port) == (1, 1, 3)
    finally:
        stop.set()
        knocking.join(20)
        again.stop()
    assert codes <= {(raw.ASSOCIATE_RJ, 1, 1, 3), (raw.ASSOCIATE_RJ, 2, 3, 1)}, codes
    assert (raw.ASSOCIATE_RJ, 1, 1, 3) in codes


def rejection_at(port):
    with raw.Raw(port) as peer:
        kind, body = peer.associate([(1, str(ECHO), [raw.IMPLICIT])], calling="STRANGER")
        assert kind == raw.ASSOCIATE_RJ, kind
        return tuple(body[1:4])
