"""Bad input and bad luck: each gets its answer, the process lives, nothing half-stored is visible."""
import socket
import struct
import subprocess

import pytest
import requests
from conftest import BINARY, SAMPLES, Server, free_port
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, Verification
from test_store import store

CT = next(s for s in SAMPLES if s.path.name == "CT_small.dcm")


def explicit(group, element, vr, value):
    if vr in (b"OB", b"OW", b"SQ", b"UN"):
        return struct.pack("<HH2sHI", group, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def even(text):
    raw = text.encode()
    return raw + b"\0" * (len(raw) % 2)


def header(instance):
    return (
        explicit(0x0008, 0x0016, b"UI", even(CTImageStorage))
        + explicit(0x0008, 0x0018, b"UI", even(instance))
        + explicit(0x0020, 0x000D, b"UI", even(generate_uid()))
        + explicit(0x0020, 0x000E, b"UI", even(generate_uid()))
    )


def send(server, body, instance):
    before = server.totals()["instances"]
    status = store(server, CT, instance=instance, body=body, class_uid=CTImageStorage)
    assert server.totals()["instances"] == before, "nothing may be visible"
    return status


def test_a_wrong_called_title_is_rejected_for_good(server):
    ae = AE(ae_title="PYTEST")
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", server.dimse, ae_title="OTHER")
    assert association.is_rejected
    answer = association.acceptor.primitive
    assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, 7)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", bytes(range(256)) * 40])
def test_garbage_on_the_port_is_hung_up_on(server, garbage):
    with socket.create_connection(("127.0.0.1", server.dimse)) as connection:
        connection.settimeout(10)
        connection.sendall(garbage)
        while True:
            try:
                if not connection.recv(4096):
                    break
            except ConnectionResetError:
                break


def test_a_pdu_that_lies_about_its_length_is_aborted_at_once(server):
    with socket.create_connection(("127.0.0.1", server.dimse)) as connection:
        connection.settimeout(10)
        connection.sendall(struct.pack(">BBI", 4, 0, 0xFFFFFFF0) + b"x" * 1000)
        assert connection.recv(1) == b"\x07", "A-ABORT"


def test_silent_connections_disturb_nobody(server):
    silent = [socket.create_connection(("127.0.0.1", server.dimse)) for _ in range(60)]
    try:
        assert store(server, CT) == 0x0000
    finally:
        for connection in silent:
            connection.close()


def test_sequences_nested_100000_deep_are_refused(server):
    instance = generate_uid()
    open_sequence = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    assert send(server, header(instance) + open_sequence * 100_000, instance) == 0xC000


def test_an_element_that_declares_4_gb_is_refused(server):
    instance = generate_uid()
    body = header(instance) + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 0xFFFFFFFC) + b"x" * 1000
    assert send(server, body, instance) == 0xC000


def test_a_truncated_object_is_refused(server):
    instance = generate_uid()
    body = header(instance) + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 5000) + b"x" * 1000
    assert send(server, body, instance) == 0xC000


def test_a_uid_of_65_characters_is_refused(server):
    # In the data set; pynetdicom itself refuses to put it into a command.
    assert send(server, header("1." + "2" * 63), generate_uid()) in (0x0117, 0xA900)


def test_a_uid_with_slashes_is_refused_and_becomes_no_path(server):
    instance = "../../../etc/x"
    body = header(instance)
    assert send(server, body, generate_uid()) in (0xA900, 0x0117)


def test_an_unknown_service_class_is_refused_in_its_context(server):
    ae = AE(ae_title="PYTEST")
    ae.add_requested_context("1.2.840.10008.5.1.4.34.6.1")  # unified procedure steps
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", server.dimse, ae_title="TRIPTYCH")
    assert association.is_established
    assert [context.result for context in association.rejected_contexts] == [3]
    association.release()


def test_an_association_that_breaks_off_leaves_nothing(server):
    before = server.totals()["instances"]
    association = server.associate([(CTImageStorage, [CT.syntax])])
    instance = generate_uid()
    # The command set of a C-STORE, and a first fragment of its data set.
    context = association.accepted_contexts[0].context_id
    command = b"".join(
        struct.pack("<HHI", 0, element, len(value)) + value
        for element, value in [
            (0x0002, even(CTImageStorage)),
            (0x0100, struct.pack("<H", 1)),
            (0x0110, struct.pack("<H", 1)),
            (0x0700, struct.pack("<H", 0)),
            (0x0800, struct.pack("<H", 1)),
            (0x1000, even(instance)),
        ]
    )
    command = struct.pack("<HHII", 0, 0, 4, len(command)) + command
    pdv = lambda flags, data: struct.pack(">IBB", len(data) + 2, context, flags) + data
    for part in (pdv(3, command), pdv(0, header(instance))):
        association.dul.socket.send(struct.pack(">BBI", 4, 0, len(part)) + part)
    association.dul.socket.close()
    association.abort()
    server.echo()
    assert server.totals()["instances"] == before


def test_a_port_in_use_names_the_setting(server, tmp_path):
    command = [BINARY, "serve", "--data", tmp_path, "--dimse", f"127.0.0.1:{server.dimse}"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert said.returncode != 0 and "--dimse" in said.stderr and "another program" in said.stderr


def other(folder, name="n1"):
    ports = ["--dimse", f"127.0.0.1:{free_port()}", "--http", f"127.0.0.1:{free_port()}"]
    command = [BINARY, "serve", "--data", folder, "--name", name, *ports]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_a_folder_in_use_and_the_folder_of_another_node_are_refused(server, tmp_path):
    said = other(server.folder / "data")
    assert said.returncode != 0 and "another process uses this folder" in said.stderr
    own = Server(tmp_path)
    own.stop()
    said = other(tmp_path / "data", name="n2")
    assert said.returncode != 0 and "belongs to node n1" in said.stderr


def test_after_kill_9_everything_acknowledged_is_there(tmp_path):
    first = Server(tmp_path)
    for sample in SAMPLES[:12]:
        assert store(first, sample) == 0x0000
    first.kill()
    second = Server(tmp_path)
    for sample in SAMPLES[:12]:
        assert second.fetch(sample.header) == sample.bytes
    second.stop()


def test_memory_stays_small(server):
    for line in open(f"/proc/{server.process.pid}/status"):
        if line.startswith("VmRSS"):
            assert int(line.split()[1]) < 300 * 1024, line


def test_json_that_is_not_json_is_400_or_415(server):
    answer = requests.post(
        server.web + "/studies", data=b"{nonsense", headers={"Content-Type": "application/dicom+json"}, timeout=10
    )
    assert answer.status_code in (400, 415) and answer.content
