"""Does to the cluster what the schedule says, and heals it again. Runs in the main thread.

One fault     due → (destroying: the cluster is whole) → fault → hold → heal → every node ready → (whole) → recovered
The history gets `fault` (whom it harms, whether a quorum is left), `heal` and `recovered`; the checker forgives a node what
happens to it in between, and nobody else.
"""
import json
import random
import shutil
import signal
import time
from pathlib import Path

import requests
from network import run

READY_WITHIN_S, WHOLE_WITHIN_S = 60, 180
SLOW_BYTES_PER_SECOND = 1 << 20


class Nemesis:
    def __init__(self, cluster, history, tell, seed):
        self.cluster, self.network, self.history, self.tell = cluster, cluster.network, history, tell
        self.chance = random.Random(f"nemesis {seed}")
        self.done, self.failures, self.watch = {}, [], self.guard
        self.fault_id, self.harmed = 0, set()

    # --- waiting

    def sleep(self, seconds):
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.watch()
            time.sleep(min(left, 0.25))

    def until(self, why_not, what, seconds):
        """Waits until `why_not` answers None; a time-out is a violation of I12."""
        deadline = time.monotonic() + seconds
        while (reason := why_not()) is not None:
            self.watch()
            if time.monotonic() > deadline:
                self.fail(f"I12: not within {seconds} s: {what}: {reason}")
                return False
            time.sleep(0.1)
        return True

    def fail(self, what):
        self.failures.append(what)
        self.history.add("failure", what=what)
        self.tell(f"FAILED    {what}")

    def guard(self):
        """A node that nobody harms must not end; it is started again, and the run has failed."""
        for node in self.cluster.nodes:
            if node.has_ended() and node.name not in self.harmed:
                self.fail(f"{node.name} ended by itself with {node.process.poll()}:\n{node.said()}")
                node.reap()
                node.start()

    def ready(self, nodes):
        def why_not():
            for node in nodes:
                if node.has_ended():
                    return f"{node.name} ended with {node.process.poll()}:\n{node.said()}"
                if not node.is_ready():
                    return f"{node.name} is not ready"
            return None

        return self.until(why_not, "ready after its fault", READY_WITHIN_S)

    def whole(self):
        return self.until(self.cluster.why_not_whole, "whole again", WHOLE_WITHIN_S)

    # --- one step

    def target(self, name):
        return self.cluster.leader_of_most() if name == "leader" else self.cluster.named(name)

    def step(self, step):
        """Carries one step out; False when the cluster did not come back."""
        if step.destroys and not self.whole():
            return False
        node = self.target(step.node)
        other = next(n for n in self.cluster.nodes if n.name == step.other and n is not node) if step.other != node.name else None
        other = other or next(n for n in self.cluster.nodes if n is not node)
        self.fault_id += 1
        self.done[step.kind] = self.done.get(step.kind, 0) + 1
        act = getattr(self, "_" + step.kind.removesuffix("-leader").replace("-", "_"))
        harmed = act(step, node, other)
        came_back = self.ready(harmed)
        if came_back and step.wait_whole:
            came_back = self.whole()
        self.harmed = set()
        self.history.add("recovered", id=self.fault_id, kind=step.kind, harmed=[n.name for n in harmed])
        return came_back

    def fault(self, step, harmed, quorum=True, **more):
        names = [node.name for node in harmed]
        self.harmed = set(names)
        at = self.history.add("fault", id=self.fault_id, kind=step.kind, harmed=names, quorum=quorum, **more)
        extra = "".join(f", {key} {value}" for key, value in more.items())
        self.tell(f"fault     {step.kind}: {' '.join(names)}{extra}, for {step.hold_s} s")
        return at

    def heal(self, step):
        return self.history.add("heal", id=self.fault_id, kind=step.kind)

    # --- processes

    def _kill(self, step, node, _other):
        self.fault(step, [node])
        node.kill()
        node.reap()
        self.sleep(step.hold_s)
        self.heal(step)
        node.start()
        return [node]

    def _kill_two(self, step, node, other):
        self._kill_these(step, [node, other])
        return [node, other]

    def _kill_all(self, step, _node, _other):
        self._kill_these(step, self.cluster.nodes)
        return self.cluster.nodes

    def _kill_these(self, step, nodes):
        self.fault(step, nodes, quorum=False)
        for node in nodes:
            node.kill()
        for node in nodes:
            node.reap()
        self.sleep(step.hold_s)
        self.heal(step)
        for node in nodes:
            node.start()

    def _term(self, step, node, _other):
        self.fault(step, [node])
        code = node.stop()
        if code != 0:
            self.fail(f"{node.name} did not stop in order after SIGTERM: exit code {code}\n{node.said()}")
        self.sleep(step.hold_s)
        self.heal(step)
        node.start()
        return [node]

    def _pause(self, step, node, _other):
        self.fault(step, [node])
        node.signal(signal.SIGSTOP)
        self.sleep(step.hold_s)
        self.heal(step)
        node.signal(signal.SIGCONT)
        return [node]

    # --- the network between nodes; clients reach all of them all the time

    def _isolate(self, step, node, _other):
        self.fault(step, [node])
        for peer in self.cluster.nodes:
            if peer is not node:
                self.network.cut(node.name, peer.name)
        return self._mend(step, [node])

    def _oneway(self, step, node, other):
        """`node` does not hear `other`, which still hears it."""
        self.fault(step, [node, other], deaf=node.name)
        self.network.deafen(node.name, other.name)
        return self._mend(step, [node, other])

    def _bridge(self, step, node, other):
        """Two nodes are cut from each other; the third sees both."""
        self.fault(step, [node, other])
        self.network.cut(node.name, other.name)
        return self._mend(step, [node, other])

    def _flaky(self, step, node, _other):
        self.fault(step, [node], loss_percent=30)
        for peer in self.cluster.nodes:
            if peer is not node:
                self.network.deafen(node.name, peer.name, 30)
                self.network.deafen(peer.name, node.name, 30)
        return self._mend(step, [node])

    def _mend(self, step, harmed):
        self.sleep(step.hold_s)
        self.network.heal()
        self.heal(step)
        return harmed

    # --- disks

    def _full(self, step, node, _other):
        # To the last byte, or so that what a node keeps for votes and metadata is left.
        left_percent = self.chance.choice([0, 3])
        self.fault(step, [node], left_percent=left_percent)
        node.disk.fill(left_percent)
        self.sleep(step.hold_s)
        node.disk.free()
        self.heal(step)
        self._has_ended(node, "its disk was full")
        return [node]

    def _slow(self, step, node, _other):
        group = Path(f"/sys/fs/cgroup/blkio/{self.network.tag if self.network.can_cut else 'tchaos0'}-{node.name}")
        device = node.disk.device()
        self.fault(step, [node], write_bytes_per_second=SLOW_BYTES_PER_SECOND)
        group.mkdir(exist_ok=True)
        (group / "blkio.throttle.write_bps_device").write_text(f"{device} {SLOW_BYTES_PER_SECOND}\n")
        (group / "cgroup.procs").write_text(f"{node.process.pid}\n")
        self.sleep(step.hold_s)
        (group / "blkio.throttle.write_bps_device").write_text(f"{device} 0\n")
        (group.parent / "cgroup.procs").write_text(f"{node.process.pid}\n")
        run("rmdir", group, check=False)
        self.heal(step)
        self._has_ended(node, "its disk was slow")
        return [node]

    def _power(self, step, node, _other):
        self._lose_power(step, [node], True)
        return [node]

    def _power_all(self, step, _node, _other):
        self._lose_power(step, self.cluster.nodes, False)
        return self.cluster.nodes

    def _lose_power(self, step, nodes, quorum):
        """Stopped first, so that nothing is said after the disk has gone."""
        self.fault(step, nodes, quorum)
        for node in nodes:
            node.signal(signal.SIGSTOP)
        for node in nodes:
            node.disk.lose_power()
        for node in nodes:
            node.kill()
            node.reap()
        for node in nodes:
            node.disk.power_up()
        self.sleep(step.hold_s)
        self.heal(step)
        for node in nodes:
            node.start()

    def _wipe(self, step, node, other):
        """The machine is lost with its disk; an empty one takes its place."""
        self.fault(step, [node])
        node.kill()
        node.reap()
        self.sleep(step.hold_s)
        self._replace(step, node, other)
        return [node]

    def _replace(self, step, node, other):
        shutil.rmtree(node.data, ignore_errors=True)
        node.start()
        deadline = time.monotonic() + 30
        while True:
            code, said = self.cluster.command("node", "replace", node.name, "--http", other.url)
            if code == 0:
                break
            if time.monotonic() > deadline:
                self.fail(f"`triptych node replace {node.name}` goes on failing: {said}")
                break
            self.sleep(0.5)
        self.heal(step)

    def _segments(self, node):
        return sorted((node.data / "log").glob("segment-*"))

    def _flip_bits(self, node, count=5, tail=False):
        """In sealed segments, or in the newest one, anywhere behind the header; answers where."""
        segments = self._segments(node)[-1:] if tail else self._segments(node)[:-1]
        segments = [path for path in segments if self._written(path) > 4096]
        places = []
        for _ in range(count if segments else 0):
            path = self.chance.choice(segments)
            with open(path, "r+b") as segment:
                at = self.chance.randrange(4096, self._written(path))
                segment.seek(at)
                old = segment.read(1)
                segment.seek(at)
                segment.write(bytes([old[0] ^ 1 << self.chance.randrange(8)]))
            places.append(f"{path.name.removeprefix('segment-').lstrip('0')}@{at}")
        self.done["bits flipped"] = self.done.get("bits flipped", 0) + len(places)
        return " ".join(places) or "nothing: no segment is sealed yet"

    @staticmethod
    def _written(path):
        """Bytes up to the end of what was written: behind it lies reserved space, which nobody reads."""
        with open(path, "rb") as segment:
            end = segment.seek(0, 2)
            while end > 0:
                begin = max(0, end - (1 << 20))
                segment.seek(begin)
                if piece := segment.read(end - begin).rstrip(b"\0"):
                    return begin + len(piece)
                end = begin
        return 0

    def _flip(self, step, node, other):
        """Stopped, a bit of a sealed segment flipped, started. A node that refuses its log is replaced, as it says."""
        self.fault(step, [node])
        node.stop()
        self.tell(f"          flipped {self._flip_bits(node)}")
        self.sleep(step.hold_s)
        self.heal(step)
        node.start()
        self._replace_if_it_refuses(step, node, other)
        return [node]

    def _flip_tail(self, step, node, other):
        """The same in the newest segment: what was acknowledged last."""
        self.fault(step, [node])
        node.kill()
        node.reap()
        self.tell(f"          flipped {self._flip_bits(node, 2, tail=True)}")
        self.sleep(step.hold_s)
        self.heal(step)
        node.start()
        self._replace_if_it_refuses(step, node, other)
        return [node]

    def _flip_live(self, step, node, other):
        self.fault(step, [node])
        self.tell(f"          flipped {self._flip_bits(node)}")
        self.sleep(step.hold_s)
        self.heal(step)
        self._replace_if_it_refuses(step, node, other)
        return [node]

    def _replace_if_it_refuses(self, step, node, other):
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline and not node.has_ended() and not node.is_ready():
            time.sleep(0.1)
        if node.has_ended():
            self.done["refused its log, was replaced"] = self.done.get("refused its log, was replaced", 0) + 1
            self.history.add("refused", node=node.name, said=node.said(3))
            self.tell(f"          {node.name} refuses its damaged log: it is replaced")
            node.reap()
            self._replace(step, node, other)

    def _has_ended(self, node, why):
        """A node that gave up because of its disk is started again, as a supervisor would."""
        if not node.has_ended():
            return False
        self.done["gave up, was started again"] = self.done.get("gave up, was started again", 0) + 1
        self.history.add("gave-up", node=node.name, code=node.process.poll(), said=node.said(3))
        self.tell(f"          {node.name} ended while {why}; it is started again")
        node.reap()
        node.start()
        return True

    def _compact(self, step, node, _other):
        """Killed while it rewrites its segments."""
        self.fault(step, [node])
        code, said = self.cluster.command("compact", "--http", node.url)
        if code != 0:
            self.fail(f"`triptych compact` at {node.name}: {said}")
        self.sleep(step.hold_s)
        node.kill()
        node.reap()
        self.heal(step)
        node.start()
        return [node]

    def scrub(self):
        """At the end: every node reads all of its log; nothing may stay damaged. Answers what was found."""
        found = {}
        for node in self.cluster.nodes:
            code, said = self.cluster.command("scrub", "--wait", "--json", "--http", node.url, seconds=120)
            try:
                upkeep = json.loads(said)
                found[node.name] = {name: upkeep[name] for name in ("damaged_found", "damaged_repaired", "damaged_left")}
            except (ValueError, KeyError):
                found[node.name] = {"said": said[:300]}
            if code != 0:
                self.fail(f"`triptych scrub` at {node.name} leaves damage, or failed with {code}: {said[:300]}")
        self.history.add("scrub", found=found)
        return found

    # --- clocks

    def _clock(self, step, node, _other):
        """The wall clock of one node jumps and comes back; monotonic clocks go on."""
        jump = self.chance.choice(["-400d", "+400d", "-1h", "+1h"])
        self.fault(step, [node], jump=jump)
        node.clock.write_text(jump + "\n")
        self.sleep(step.hold_s)
        node.clock.write_text("+0\n")
        self.heal(step)
        return [node]

    # --- the two long modes

    def kills(self, count, acknowledged_since, all_at_once):
        """`count` times: all writers have written → kill → all have written again → start → whole."""
        victims = random.Random(f"victims {self.chance.random()}")
        for number in range(1, count + 1):
            nodes = self.cluster.nodes if all_at_once else [victims.choice(self.cluster.nodes)]
            kind = "kill-all" if all_at_once else "kill"
            self.fault_id += 1
            self.done[kind] = self.done.get(kind, 0) + 1
            names = [node.name for node in nodes]
            began = self.history.now()
            self.until(lambda: acknowledged_since(began), "every writer writes before the kill", 30)
            self.harmed = set(names)
            leads = [group["leader"] for group in self._groups()]
            killed = self.history.add(
                "fault", id=self.fault_id, kind=kind, harmed=names, quorum=not all_at_once, led=sum(leads.count(name) for name in names)
            )
            for node in nodes:
                node.kill()
            for node in nodes:
                node.reap()
            if not all_at_once:
                self.until(lambda: acknowledged_since(killed), "every writer writes after the kill", 30)
            self.history.add("heal", id=self.fault_id, kind=kind)
            for node in nodes:
                node.start()
            back = self.ready(nodes) and self.whole()
            if all_at_once:
                back = back and self.until(lambda: acknowledged_since(killed), "every writer writes after the kill", 30)
            self.harmed = set()
            at = self.history.add("recovered", id=self.fault_id, kind=kind, harmed=names)
            self.tell(f"kill {number:3} of {count}: {' '.join(names)}, whole again after {at - killed:.1f} s")
            if not back:
                return False
        return True

    def _groups(self):
        for node in self.cluster.nodes:
            try:
                return node.status()["groups"]
            except (requests.RequestException, ValueError):
                continue
        return []
