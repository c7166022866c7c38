"""What every test of the running binary needs."""
import os
import random
import socket
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("TRIPTYCH_BIN", ROOT / "target/debug/triptych"))


GIVEN = set()


def free_port():
    """A port that nobody has and nobody gets: below those that the kernel gives to whoever connects. One of these would be free
    now, and the local end of somebody's connection when a listener is bound to it minutes later."""
    first_of_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(1000):
        port = random.randrange(10_000, first_of_kernel)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in GIVEN:
            GIVEN.add(port)
            return port
    raise RuntimeError("no free port from 10000 on")


def data_set_bytes(file):
    """What follows the meta group of a PS3.10 file."""
    assert file[128:132] == b"DICM"
    length = int.from_bytes(file[140:144], "little")
    return bytes(file[144 + length :])
