"""Clients of the web that say nothing, drip, or do not read: hung up on, and others are served meanwhile."""
import socket
import time

import pytest
import requests
from conftest import Server
from pydicom.uid import generate_uid
from test_large import file

# One of the addresses of the loopback: whoever is served is not the one who is silent.
OTHER = ("127.0.0.2", 0)
PER_PEER = 40
HUNG_UP_S = 25


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    flags = ["--progress-seconds", "3", "--connections-per-peer", str(PER_PEER), "--read-mib", "16"]
    node = Server(tmp_path_factory.mktemp("server"), *flags)
    yield node
    node.stop()


def connect(server):
    return socket.create_connection(("127.0.0.1", server.http), timeout=HUNG_UP_S, source_address=OTHER)


def hung_up(peer):
    """Reads until the other end closes."""
    deadline = time.monotonic() + HUNG_UP_S
    try:
        while peer.recv(65536):
            assert time.monotonic() < deadline, "still there"
    except ConnectionError:
        pass


def served(server):
    assert requests.get(server.url + "/health/live", timeout=5).status_code == 200
    assert requests.get(server.web + "/studies", timeout=5).status_code == 200


@pytest.mark.parametrize("begin", [b"", b"GET / HT", b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_who_sends_no_request_is_hung_up_on(server, begin):
    peers = [connect(server) for _ in range(PER_PEER)]
    for peer in peers:
        peer.sendall(begin)
    served(server)
    for peer in peers:
        hung_up(peer)
        peer.close()


def test_one_address_does_not_keep_others_out(server):
    peers = [connect(server) for _ in range(1100)]
    served(server)
    for peer in peers:
        peer.close()


def test_who_drips_is_hung_up_on(server):
    peer, deadline = connect(server), time.monotonic() + HUNG_UP_S
    try:
        while time.monotonic() < deadline:
            peer.sendall(b"P")
            time.sleep(0.2)
    except ConnectionError:
        pass
    assert time.monotonic() < deadline, "still there"
    peer.close()


def test_who_does_not_read_holds_up_nobody(server):
    study, series, instance = generate_uid(), generate_uid(), generate_uid()
    kind = {"Content-Type": "application/dicom"}
    answer = requests.post(server.web + "/studies", data=file(study, series, instance, 40 << 20), headers=kind, timeout=60)
    assert answer.status_code == 200, answer.text
    path = f"/dicom-web/studies/{study}/series/{series}/instances/{instance}"
    ask = f"GET {path} HTTP/1.1\r\nHost: h\r\nAccept: application/dicom\r\n\r\n".encode()
    peers = []
    for _ in range(PER_PEER):
        peer = connect(server)
        peer.sendall(ask)
        peers.append(peer)
    began = time.monotonic()
    answer = requests.get(server.url + path, headers={"Accept": "application/dicom"}, timeout=30)
    assert answer.status_code == 200 and len(answer.content) > 40 << 20
    assert time.monotonic() - began < 25
    # The silent ones wait in a line of their own, of which the first are hung up on after three seconds.
    while 'archive_web_stalled_total 0\n' in requests.get(server.url + "/metrics", timeout=10).text:
        assert time.monotonic() - began < HUNG_UP_S, "who does not read is not hung up on"
        time.sleep(0.2)
    for peer in peers:
        peer.close()
