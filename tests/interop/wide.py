"""A destination by hand that agrees to several operations at a time (PS3.7 D.3.3.3), which no library does: it answers when as many
have come as it granted, the last one first, or when no more come."""
import select
import socket
import struct
import threading

import raw

ASYNC_WINDOW = 0x53
# Nothing more comes before an answer, it seems.
QUIET_SECONDS = 0.3


def items(body):
    at = 0
    while at < len(body):
        kind, length = body[at], struct.unpack_from(">H", body, at + 2)[0]
        yield kind, body[at + 4 : at + 4 + length]
        at += 4 + length


class Wide:
    """`granted`: operations at a time, 0: as many as one likes, None: it does not speak of them. `holds`: how many it lets come
    before it answers. `status`: of an object, by its UID. `ends_after`: objects, after which the first association is aborted."""

    def __init__(self, port, granted=8, holds=None, status=lambda uid: 0x0000, ends_after=None):
        self.granted, self.holds, self.status, self.ends_after = granted, holds or granted or 1, status, ends_after
        self.asked, self.came, self.most, self.associations = [], [], [], 0
        self.problems, self.changed = [], threading.Condition()
        self.listener = socket.create_server(("127.0.0.1", port))
        self.accepting = threading.Thread(target=self.accept, daemon=True)
        self.accepting.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts: until then the port is in use
        self.accepting.join()
        self.listener.close()
        assert self.problems == []

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.associations += 1
            threading.Thread(target=self.serve, args=(connection, self.associations), daemon=True).start()

    def serve(self, connection, number):
        peer = raw.Raw.__new__(raw.Raw)
        peer.socket = connection
        connection.settimeout(60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.associate(peer)
            self.objects(peer, number)
        except (EOFError, ConnectionError):
            pass
        except Exception as error:  # a thread has nobody else to tell
            self.problems.append(repr(error))
        finally:
            connection.close()

    def associate(self, peer):
        kind, body = peer.receive()
        assert kind == raw.ASSOCIATE_RQ
        answer, asked = body[:68] + raw.item(0x10, raw.APPLICATION_CONTEXT), None
        for item, inner in items(body[68:]):
            if item == 0x20:
                syntax = next(value for each, value in items(inner[4:]) if each == 0x40)
                answer += raw.item(0x21, bytes([inner[0], 0, 0, 0]) + raw.item(0x40, syntax))
            elif item == 0x50:
                asked = next((value for each, value in items(inner) if each == ASYNC_WINDOW), None)
        self.asked.append(asked)
        user = raw.item(0x51, struct.pack(">I", 65536)) + raw.item(0x52, "1.2.826.0.1.3680043.9.9999")
        if self.granted is not None:
            user += raw.item(ASYNC_WINDOW, struct.pack(">HH", self.granted, 1))
        peer.send(raw.pdu(raw.ASSOCIATE_AC, answer + raw.item(0x50, user)))

    def objects(self, peer, number):
        command, data, held, most = b"", b"", [], 0
        while True:
            if held and not select.select([peer.socket], [], [], QUIET_SECONDS)[0]:
                self.answer(peer, held)
            kind, body = peer.receive()
            if kind == raw.RELEASE_RQ:
                assert not held, "a release with operations under way"
                self.most.append(most)
                return peer.send(raw.pdu(raw.RELEASE_RP, bytes(4)))
            if kind != raw.DATA:
                return None
            at = 0
            while at < len(body):
                length, context, flags = struct.unpack_from(">IBB", body, at)
                piece = body[at + 6 : at + 4 + length]
                at += 4 + length
                if flags & 1:
                    command += piece
                    continue
                data += piece
                if not flags & 2:
                    continue
                held.append((context, raw.parse_command(command), data))
                command, data, most = b"", b"", max(most, len(held))
                if number == 1 and self.ends_after and len(held) == self.ends_after:
                    return peer.send(raw.pdu(raw.ABORT, bytes(4)))
                if len(held) == self.holds:
                    # Whoever sends more than that is caught here.
                    assert at == len(body) and not select.select([peer.socket], [], [], 0.02)[0], "more than granted"
                    self.answer(peer, held)

    def answer(self, peer, held):
        while held:
            context, asked, data = held.pop()
            uid = asked[0x1000].rstrip(b"\0").decode()
            status = self.status(uid)
            found = [(0x0002, asked[0x0002].rstrip(b"\0").decode()), (0x0100, 0x8001)]
            found += [(0x0120, struct.unpack("<H", asked[0x0110])[0]), (0x0800, 0x0101), (0x0900, status), (0x1000, uid)]
            with self.changed:
                if status == 0:
                    self.came.append((uid, data))
                self.changed.notify_all()
            peer.command(context, raw.command_set(*found))

    def wait_for(self, count, seconds=60):
        with self.changed:
            assert self.changed.wait_for(lambda: len({uid for uid, _ in self.came}) >= count, seconds), len(self.came)
