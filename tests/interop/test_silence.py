"""Peers that say half of something, and then nothing; peers that lie. Others are served as if they were not there."""
import struct

import pytest
import raw
import requests
from conftest import SAMPLES
from pydicom.uid import generate_uid

RSS_BYTES_MAX = 300 * 1024 * 1024


def store_ct(server):
    (sample,) = [sample for sample in SAMPLES if sample.path.name == "CT_small.dcm"]
    class_uid = str(sample.header.SOPClassUID)
    with raw.Raw(server.dimse) as peer:
        peer.associate([(1, class_uid, [sample.syntax])])
        assert peer.store(1, class_uid, str(sample.header.SOPInstanceUID), sample.bytes) == 0x0000
        peer.release()
    assert server.fetch(sample.header) == sample.bytes


def contexts():
    return [(1, raw.SECONDARY_CAPTURE, [raw.IMPLICIT])]


def nothing(_peer):
    pass


def half_a_header(peer):
    peer.send(b"\x01\x00\x00")


def half_a_request(peer):
    peer.send(raw.associate_rq(contexts())[:100])


def half_a_command(peer):
    assert peer.associate(contexts())[0] == raw.ASSOCIATE_AC
    peer.send(raw.pdv(1, 1, raw.store_rq(raw.SECONDARY_CAPTURE, "1.2.3")[:40]))


def half_an_object(peer):
    assert peer.associate(contexts())[0] == raw.ASSOCIATE_AC
    peer.command(1, raw.store_rq(raw.SECONDARY_CAPTURE, "1.2.3.99"))
    peer.data(1, raw.data_set(raw.SECONDARY_CAPTURE, "1.2.3.99"), last=False)


@pytest.mark.parametrize("begin", [nothing, half_a_header, half_a_request, half_a_command, half_an_object])
def test_a_hundred_of_them_disturb_nobody_and_leave_nothing(server, begin):
    before = server.totals()["instances"]
    peers = [raw.Raw(server.dimse) for _ in range(100)]
    try:
        for peer in peers:
            begin(peer)
        store_ct(server)
    finally:
        for peer in peers:
            peer.socket.close()
    assert server.totals()["instances"] in (before, before + 1), "the CT, and none of theirs"
    found = requests.get(server.web + "/instances", params={"SOPInstanceUID": "1.2.3.99"}, timeout=10)
    assert found.json() == []


def test_associations_go_on_beside_a_hundred_that_never_begin(server):
    peers = [raw.Raw(server.dimse) for _ in range(120)]
    try:
        for peer in peers[:20]:
            assert peer.associate(contexts())[0] == raw.ASSOCIATE_AC
        store_ct(server)
    finally:
        for peer in peers:
            peer.socket.close()


def test_six_hundred_silent_ones_of_one_address_keep_no_other_out(server):
    peers = [raw.Raw(server.dimse, source="127.0.0.2") for _ in range(600)]
    try:
        store_ct(server)
    finally:
        for peer in peers:
            peer.socket.close()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(raw.pdu(9, b"??"), id="a PDU of no known type"),
        pytest.param(raw.pdu(raw.RELEASE_RQ, bytes(4)), id="release of nothing"),
        pytest.param(raw.pdv(1, 3, raw.echo_rq()), id="data before an association"),
        pytest.param(struct.pack(">BBI", 1, 0, 0xFFFFFFFF), id="a request of 4 GiB"),
        pytest.param(raw.pdu(raw.ASSOCIATE_RQ, b""), id="an empty request"),
        pytest.param(raw.pdu(raw.ASSOCIATE_RQ, b"\xff" * 5000), id="a request of 0xFF"),
    ],
)
def test_what_may_not_come_first_is_hung_up_on(server, data):
    with raw.Raw(server.dimse) as peer:
        peer.send(data)
        kinds = []
        try:
            while True:
                kinds.append(peer.receive()[0])
        except (EOFError, ConnectionError):
            pass
        assert kinds in ([], [raw.ABORT], [raw.ASSOCIATE_RJ])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(raw.pdv(3, 3, raw.echo_rq()), id="a context that was not agreed on"),
        pytest.param(raw.pdv(1, 2, b"no command before it"), id="data without a command"),
        pytest.param(raw.pdu(raw.DATA, struct.pack(">IBB", 500, 1, 3) + b"short"), id="a PDV longer than its PDU"),
        pytest.param(raw.pdu(raw.DATA, struct.pack(">I", 0)), id="a PDV of no length"),
        pytest.param(raw.pdv(1, 3, b"\xff" * 200), id="a command set of 0xFF"),
        pytest.param(raw.associate_rq([(1, raw.VERIFICATION, [raw.IMPLICIT])]), id="a second request"),
    ],
)
def test_what_has_no_place_in_an_association_is_aborted(server, data):
    with raw.Raw(server.dimse) as peer:
        assert peer.associate(contexts())[0] == raw.ASSOCIATE_AC
        peer.send(data)
        assert peer.receive()[0] == raw.ABORT


@pytest.mark.parametrize("instance", ["1." + "2" * 63, "../../etc/passwd", "1..2", "1.2.", ""])
def test_what_is_no_uid_is_refused_and_the_association_goes_on(server, instance):
    before = server.totals()["instances"]
    good = generate_uid()
    with raw.Raw(server.dimse) as peer:
        peer.associate(contexts())
        body = raw.data_set(raw.SECONDARY_CAPTURE, instance)
        assert peer.store(1, raw.SECONDARY_CAPTURE, instance, body, 1) in (0x0117, 0xA900, 0xC000)
        assert peer.store(1, raw.SECONDARY_CAPTURE, good, raw.data_set(raw.SECONDARY_CAPTURE, good), 2) == 0x0000
        peer.release()
    assert server.totals()["instances"] == before + 1


def test_after_all_of_this_memory_is_small(server):
    with open(f"/proc/{server.process.pid}/status") as status:
        (line,) = [line for line in status if line.startswith("VmRSS:")]
    assert int(line.split()[1]) * 1024 < RSS_BYTES_MAX
