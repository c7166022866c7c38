"""Pictures of frames by WADO-RS, as JPEG: how long one takes, and whether it matters where in its object a frame lies.

    ct           each of the CTs in turn, 1 and 4 clients; with its own window
    many frames  one object of FRAMES frames of 512 x 512 of 16 bits; of those the first ten and the last ten, in turn
"""
import os

import data
import measure

FRAMES = 300
JPEG = "image/jpeg"
STUDY = "1.2.826.0.1.3680043.10.511.7.9.1"


def run(bench, peer, round_):
    """The rows `rendered_c1`, `rendered_c4`, `frame_first` and `frame_last` of a peer that has been started empty."""
    many = os.path.join(bench.temporary, "many.dcm")
    if not os.path.exists(many):
        with open(many, "wb") as out:
            out.write(many_frames())
    names = [*open(bench.files("ct")).read().split(), many]
    bench.dload(peer, "load", round_, "store", "--list", bench.write_lines("rendered.txt", names), "--assoc", 4, keep=False)
    base = f"{peer.web}/studies/{{0}}/series/{{0}}.1/instances/{{0}}.1.{{1}}"
    paths = [base.format(study["study"], i + 1) + "/rendered" for study in bench.manifest["ct"] for i in range(len(study["files"]))]
    frames = [base.format(STUDY, 1) + f"/frames/{frame}/rendered" for frame in range(1, FRAMES + 1)]
    tests = [("rendered_c1", paths, 1), ("rendered_c4", paths, 4), ("frame_first", frames[:10], 1), ("frame_last", frames[-10:], 1)]
    # The first picture starts a worker.
    measure.http_load(peer.http, paths[:4], JPEG, 4)
    for test, which, clients in tests:
        with measure.Meter(peer.pids()) as meter:
            figures = measure.http_load(peer.http, which, JPEG, clients, bench.o.find_seconds)
        bench.record(peer, test, round_, meter, **figures)


def many_frames():
    """A file of FRAMES frames."""
    pixels = data.random.Random(3).randbytes(512 * 512 * 2) * FRAMES
    return data.instance(data.CT, STUDY, STUDY + ".1", STUDY + ".1.1", 0, 512, pixels, "MANY^FRAMES", "MANY", "20260101", "A9", "CT", frames=FRAMES)
