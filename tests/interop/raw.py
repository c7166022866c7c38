"""DICOM by hand: PDUs and command sets as bytes (PS3.8 §9.3, PS3.7 §6.3), for peers that no library lets one be.

    PDU:  type 1 | 0 | length 4, big endian | body
    PDV:  length 4 | context id 1 | flags 1 (bit 0: command, bit 1: last) | bytes
"""

import socket
import struct

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)


def pdu(kind, body):
    return struct.pack(">BBI", kind, 0, len(body)) + body


def pdv(context, flags, data):
    """A P-DATA-TF with one fragment."""
    return pdu(DATA, struct.pack(">IBB", len(data) + 2, context, flags) + data)


def item(kind, body):
    if isinstance(body, str):
        body = body.encode("ascii")
    return struct.pack(">BBH", kind, 0, len(body)) + body


def associate_rq(contexts, called="TRIPTYCH", calling="INTEROP"):
    """`contexts`: (id, abstract syntax, [transfer syntaxes])."""
    body = struct.pack(">HH16s16s32s", 1, 0, called.ljust(16).encode(), calling.ljust(16).encode(), b"")
    body += item(0x10, APPLICATION_CONTEXT)
    for number, abstract, transfers in contexts:
        inner = bytes([number, 0, 0, 0]) + item(0x30, abstract) + b"".join(item(0x40, each) for each in transfers)
        body += item(0x20, inner)
    body += item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, "1.2.826.0.1.3680043.9.9999"))
    return pdu(ASSOCIATE_RQ, body)


def element(group, number, value):
    """An element in Implicit VR Little Endian."""
    if isinstance(value, int):
        value = struct.pack("<H", value)
    elif isinstance(value, str):
        value = value.encode("ascii") + b"\0" * (len(value) % 2)
    return struct.pack("<HHI", group, number, len(value)) + value


def long_element(group, number, value):
    """An element of any length."""
    return struct.pack("<HHI", group, number, len(value)) + value


def command_set(*elements):
    body = b"".join(element(0, number, value) for number, value in elements)
    return element(0, 0, struct.pack("<I", len(body))) + body


def store_rq(sop_class, instance, message=1):
    return command_set((0x0002, sop_class), (0x0100, 0x0001), (0x0110, message), (0x0700, 0), (0x0800, 0x0001),
                       (0x1000, instance))


def echo_rq(message=1):
    return command_set((0x0002, VERIFICATION), (0x0100, 0x0030), (0x0110, message), (0x0800, 0x0101))


def data_set(sop_class, instance, study="1.2.3.4", series="1.2.3.4.5", more=b""):
    """The least that can be stored, in Implicit VR Little Endian; `more` is appended as it is."""
    return (element(0x0008, 0x0016, sop_class) + element(0x0008, 0x0018, instance) + element(0x0010, 0x0020, "RAW ")
            + element(0x0020, 0x000D, study) + element(0x0020, 0x000E, series) + more)


def explicit(data):
    """An implicit data set whose elements are UIDs, or the patient's ID, in Explicit VR Little Endian."""
    out, at = b"", 0
    while at < len(data):
        group, number, length = struct.unpack_from("<HHI", data, at)
        vr = b"LO" if group == 0x0010 else b"UI"
        out += struct.pack("<HH2sH", group, number, vr, length) + data[at + 8:at + 8 + length]
        at += 8 + length
    return out


def parse_command(body):
    found, at = {}, 0
    while at < len(body):
        group, number, length = struct.unpack_from("<HHI", body, at)
        found[number] = body[at + 8:at + 8 + length]
        at += 8 + length
    return found


class Raw:
    """A connection on which anything may be sent."""

    def __init__(self, port, timeout=20, source="127.0.0.1"):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise EOFError(f"closed after {len(data)} of {count} bytes")
            data += piece
        return data

    def receive(self):
        """The next PDU: its type and its body."""
        kind, _, length = struct.unpack(">BBI", self.exactly(6))
        return kind, self.exactly(length)

    def associate(self, contexts, **titles):
        self.send(associate_rq(contexts, **titles))
        return self.receive()

    def command(self, context, data):
        self.send(pdv(context, 3, data))

    def data(self, context, data, step=16000, last=True):
        for at in range(0, max(len(data), 1), step):
            ends = last and at + step >= len(data)
            self.send(pdv(context, 2 if ends else 0, data[at : at + step]))

    def answer(self):
        """The status of the next response, and whether a data set follows."""
        kind, body = self.receive()
        assert kind == DATA, f"PDU {kind} {body.hex()}"
        found = parse_command(body[6:])
        return struct.unpack("<H", found[0x0900])[0], found[0x0800] != b"\x01\x01"

    def response(self):
        """The status of the next response."""
        return self.answer()[0]

    def store(self, context, sop_class, instance, data, message=1):
        self.command(context, store_rq(sop_class, instance, message))
        self.data(context, data)
        return self.response()

    def release(self):
        self.send(pdu(RELEASE_RQ, bytes(4)))
        kind, _ = self.receive()
        assert kind == RELEASE_RP

    def ended(self):
        """How the other end ends it: the body of its A-ABORT, or b"" when it only closes."""
        try:
            kind, body = self.receive()
        except (EOFError, ConnectionError):
            return b""
        assert kind == ABORT, f"PDU {kind} {body.hex()}"
        return body


def echo(port):
    """C-ECHO: its status."""
    with Raw(port) as peer:
        kind, _ = peer.associate([(1, VERIFICATION, [IMPLICIT])])
        assert kind == ASSOCIATE_AC, "the association was not accepted"
        peer.command(1, echo_rq())
        status = peer.response()
        peer.release()
        return status
