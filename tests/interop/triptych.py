"""What every test of the running binary needs."""
import os
import socket
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("TRIPTYCH_BIN", ROOT / "target/debug/triptych"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def data_set_bytes(file):
    """What follows the meta group of a PS3.10 file."""
    assert file[128:132] == b"DICM"
    length = int.from_bytes(file[140:144], "little")
    return bytes(file[144 + length :])
