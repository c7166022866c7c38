"""C-MOVE of CT studies to a fast receiver: the archive opens the association and sends, so its own sending is what is measured.

    driver       asks for one study a request, over 1 and 4 associations at a time, and is the receiver, too: it counts what comes
                 and discards it; each study goes four times, so that a run takes seconds
    page cache   warm: the images were stored just before
"""
import peers

PASSES = 4


def run(bench, peer, round_):
    """The rows `cmove_a1` and `cmove_a4` of a peer that has been started empty."""
    # dcmqrscp's index takes one writer.
    loaded = bench.dload(peer, "load", round_, "store", "--list", bench.files("ct"), "--assoc", 1 if peer.name == "dcmqrscp" else 4, keep=False)
    studies = bench.manifest["ct"]
    queries = bench.write_lines("move.txt", [f"StudyInstanceUID={s['study']}" for s in studies])
    receiver = ("--dest", peers.RECEIVER, "--listen", f"127.0.0.1:{peer.receiver}")
    bench.dload(peer, "warm-up", round_, "move", "--query", f"StudyInstanceUID={studies[-1]['study']}", *receiver, keep=False)
    for associations in (1, 4):
        bench.dload(peer, f"cmove_a{associations}", round_, "move", "--queries", queries, "--repeat", PASSES, "--assoc", associations,
                    *receiver, judge=lambda figures: _came(figures, loaded["instances"] * PASSES, loaded["mb"] * PASSES))


def _came(figures, instances, mb):
    """All that was asked for has to come, by the server's count and by the receiver's; an element that a peer writes in another way
    may change the size a little."""
    if figures["instances"] == instances and abs(figures["mb"] / mb - 1) < 0.01:
        return {}
    missing = f"{figures['instances']} of {instances} instances and {figures['mb']:.1f} of {mb:.1f} MB came"
    return dict(failures={**figures["failures"], missing: 1})
