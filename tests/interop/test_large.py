"""Many associations at once, with images of several MiB among them: each is answered, and each comes back."""
import hashlib
import threading

import pytest
import raw
import requests
from conftest import Server
from pydicom.uid import generate_uid

ASSOCIATIONS, FILES = 100, 4
CLASS = raw.SECONDARY_CAPTURE
STORED_WITHIN_S = 240


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    node = Server(tmp_path_factory.mktemp("server"))
    yield node
    node.stop()


def body(study, series, instance, pixel_bytes, seed=0):
    """A data set in Implicit VR Little Endian with so many bytes of pixels."""
    pixels = hashlib.shake_128(f"{instance}{seed}".encode()).digest(1 << 16) * (pixel_bytes // (1 << 16) + 1)
    return raw.data_set(CLASS, instance, study, series, raw.long_element(0x7FE0, 0x0010, pixels[:pixel_bytes]))


def file(study, series, instance, pixel_bytes):
    """The same as a file."""
    syntax = raw.IMPLICIT.encode() + b"\0"
    meta = b"\x02\0\x10\0UI" + len(syntax).to_bytes(2, "little") + syntax
    head = b"\x02\0\0\0UL\x04\0" + len(meta).to_bytes(4, "little")
    return bytes(128) + b"DICM" + head + meta + body(study, series, instance, pixel_bytes)


def test_a_hundred_associations_at_once_store_small_and_large_images(server):
    study, failed, kept, lock = generate_uid(), [], {}, threading.Lock()
    begin = threading.Barrier(ASSOCIATIONS)

    def work(number):
        try:
            series = generate_uid()
            begin.wait()
            with raw.Raw(server.dimse, timeout=STORED_WITHIN_S) as peer:
                kind, _ = peer.associate([(1, CLASS, [raw.IMPLICIT])])
                assert kind == raw.ASSOCIATE_AC, f"PDU {kind}"
                for each in range(FILES):
                    instance = generate_uid()
                    size = (3 << 20) + 2 * number if each == FILES - 1 else 20_000
                    data = body(study, series, instance, size, number)
                    status = peer.store(1, CLASS, instance, data, each + 1)
                    assert status == 0x0000, f"{status:04x}"
                    with lock:
                        kept[instance] = (series, hashlib.sha256(data).digest())
                peer.release()
        except Exception as error:  # told by the test, which is another thread
            failed.append((number, repr(error)))

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(ASSOCIATIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(STORED_WITHIN_S)
    assert not failed, failed[:5]
    assert not [thread for thread in threads if thread.is_alive()], "associations that were never answered"
    assert len(kept) == ASSOCIATIONS * FILES
    assert server.totals()["instances"] == len(kept)
    for instance, (series, digest) in list(kept.items())[::7]:
        url = f"{server.web}/studies/{study}/series/{series}/instances/{instance}?as=received"
        answer = requests.get(url, headers={"Accept": "application/dicom; transfer-syntax=*"}, timeout=30)
        assert answer.status_code == 200, answer.text
        length = int.from_bytes(answer.content[140:144], "little")
        assert hashlib.sha256(answer.content[144 + length:]).digest() == digest
