"""Instances whose every byte follows from their UIDs: whoever knows the names can tell whether the bytes are right.

    UID   2.25.<hash of what it is for><size class>       the last digit says how large it is
    size  0: 2 KB    1: 40–60 KB    2: 512 KiB    3: 1.1–3.5 MB, several blocks of the log
"""
import hashlib
import random
import struct

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"


def uid(*parts, size_class=0):
    """A UID that follows from its parts."""
    number = int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:14], "big")
    return f"2.25.{number + 1}{size_class}"


def series_of(study):
    """Each study has one series."""
    return uid("series", study)


def _element(group, number, vr, value):
    if vr in (b"OW", b"OB"):
        return struct.pack("<HH2sHI", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def _text(value, fill=b"\0"):
    return value.encode() + fill * (len(value) % 2)


def _pixels(instance):
    chance = random.Random(instance)
    low, high = [(500, 900), (20_000, 30_000), (262_144, 262_144), (550_000, 1_750_000)][int(instance[-1])]
    return chance.randbytes(2 * chance.randint(low, high))


def data_set(study, instance):
    """The data set, Explicit VR Little Endian."""
    return b"".join(
        [
            _element(0x0008, 0x0016, b"UI", _text(CT)),
            _element(0x0008, 0x0018, b"UI", _text(instance)),
            _element(0x0008, 0x0060, b"CS", b"CT"),
            _element(0x0010, 0x0020, b"LO", _text("P" + study[-6:], b" ")),
            _element(0x0020, 0x000D, b"UI", _text(study)),
            _element(0x0020, 0x000E, b"UI", _text(series_of(study))),
            _element(0x7FE0, 0x0010, b"OW", _pixels(instance)),
        ]
    )


def file(study, instance):
    """The same as a PS3.10 file."""
    meta = b"".join(
        [
            _element(0x0002, 0x0001, b"OB", b"\0\1"),
            _element(0x0002, 0x0002, b"UI", _text(CT)),
            _element(0x0002, 0x0003, b"UI", _text(instance)),
            _element(0x0002, 0x0010, b"UI", _text(EXPLICIT_LITTLE)),
        ]
    )
    length = _element(0x0002, 0x0000, b"UL", struct.pack("<I", len(meta)))
    return bytes(128) + b"DICM" + length + meta + data_set(study, instance)


def data_set_of(part10):
    """What follows the meta group of a PS3.10 file; None when this is no such file."""
    if len(part10) < 144 or part10[128:132] != b"DICM":
        return None
    return bytes(part10[144 + int.from_bytes(part10[140:144], "little") :])


def instance_of(bytes_of_data_set):
    """The SOP Instance UID that a data set of ours names; None when it is none of ours."""
    at = 8 + int.from_bytes(bytes_of_data_set[6:8], "little")
    if bytes_of_data_set[at : at + 4] != b"\x08\x00\x18\x00":
        return None
    length = int.from_bytes(bytes_of_data_set[at + 6 : at + 8], "little")
    return bytes_of_data_set[at + 8 : at + 8 + length].rstrip(b"\0").decode("ascii", "replace")


def is_right(study, instance, held):
    """Whether these are the very bytes of that data set."""
    return held is not None and held == data_set(study, instance)
