"""What will be done to whom and when: made from the seed before the run begins, and written into the report.

A step starts at its time or later: never before the one in front of it is over, and, if it destroys data, never before
every node holds everything again. `leader` is resolved when its time comes: the node that leads most groups.
"""
import random
from dataclasses import asdict, dataclass

# kind: (what it needs, seconds that it holds at least and at most, whether it takes data that was synced)
KINDS = {
    "kill": (None, 1, 4, False),
    "kill-leader": (None, 2, 5, False),
    "kill-two": (None, 1, 4, False),
    "kill-all": (None, 0, 1, False),
    "term": (None, 0, 2, False),
    "pause": (None, 2, 8, False),
    "pause-leader": (None, 2, 8, False),
    "isolate": ("cut", 3, 8, False),
    "isolate-leader": ("cut", 3, 8, False),
    "oneway": ("cut", 3, 8, False),
    "bridge": ("cut", 3, 8, False),
    "flaky": ("cut", 4, 8, False),
    "full": ("disk", 4, 8, False),
    "slow": ("blkio", 4, 8, False),
    "power": ("disk", 0, 2, False),
    "power-all": ("disk", 0, 1, False),
    "clock": ("faketime", 3, 6, False),
    "wipe": (None, 0, 2, True),
    "flip": (None, 0, 1, True),
    "flip-live": (None, 0, 1, True),
    "flip-tail": (None, 0, 1, True),
    "compact": ("upkeep", 0, 2, False),
}
# Where the disk that rots is: one for the whole run, so that damage that nobody has read yet never meets damage elsewhere.
ROTTING = ("flip", "flip-live", "flip-tail")


@dataclass
class Step:
    number: int
    at_s: float
    kind: str
    node: str
    other: str
    hold_s: float
    wait_whole: bool

    @property
    def destroys(self):
        return KINDS[self.kind][3]

    def told(self):
        return asdict(self)


def _deck(chance, kinds):
    """Every kind once in an order of chance, then all again."""
    while True:
        shuffled = list(kinds)
        chance.shuffle(shuffled)
        yield from shuffled


def make(seed, seconds, kinds, names, first_at_s=4.0):
    """Steps until the time is over, with a third of the time to come to."""
    chance = random.Random(f"schedule {seed}")
    rotting = chance.choice(names)
    steps, at = [], first_at_s
    deck = _deck(chance, kinds)
    while kinds and at < seconds:
        kind = next(deck)
        _, low, high, destroys = KINDS[kind]
        node, other = chance.sample(names, 2)
        if kind in ROTTING:
            node = rotting
            other = next(name for name in names if name != node)
        if kind.endswith("-leader"):
            node = "leader"
        hold = round(chance.uniform(low, high), 2)
        steps.append(Step(len(steps) + 1, round(at, 2), kind, node, other, hold, destroys or chance.random() < 0.7))
        at += hold + chance.uniform(2, 5)
    return steps
