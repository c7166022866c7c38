"""Many small instances, as a PACS counts its load: how fast an empty archive takes them, whether it slows down as it fills, and
what a query by PatientID costs its server then.

    sender     the driver, from memory, over `--small-associations`; each peer gets the same files in the same order, and so
               does a receiver that discards them (`sink`): the sender must not be the limit
    tenths     rate, and CPU of the server for an instance, of each tenth of all instances. The rate of the first over that of the
               last is the slow-down; where others use the machine, too, the CPU of the last over that of the first says more
    budget     Orthanc gets `--orthanc-seconds`. Its rate is then that of its first instances, which flatters it as it grows
               slower, and its queries are over what it holds
    queries    one client, exact PatientID of patients that the archive holds all three studies of; each answer is counted

On disk for 100,000 instances (measured): the files 160 MB, Triptych 1.3 GB, of which 1.1 are there before the first (segments and
the space kept for a full disk), Orthanc 570 MB. A peer's folder goes when it is stopped; the files stay for the next run, in `data/small`.
"""
import os
import random
import shutil

INSTANCES_A_STUDY = 5
STUDIES_A_PATIENT = 3       # as data.py makes them
UNIT = 25                   # instances that an association of the driver takes at a time, and ends
# Twice what was measured, see above.
DISK_BYTES_EMPTY, DISK_BYTES_AN_INSTANCE = 2 << 30, 12 << 10


def warm_up(options):
    """Studies that are sent before the clock starts: one unit for each association."""
    return options.small_associations * UNIT // INSTANCES_A_STUDY


def studies(options):
    """How many studies of files the test wants, those of the warm-up among them."""
    return options.small_instances // INSTANCES_A_STUDY + warm_up(options)


def run(bench, peer, round_):
    """The rows `small` and `pid` of a peer that has been started empty."""
    o, made = bench.o, bench.manifest["small"]
    wanted = len(made) - warm_up(o)
    free = shutil.disk_usage(peer.folder).free
    if free < DISK_BYTES_EMPTY + wanted * INSTANCES_A_STUDY * DISK_BYTES_AN_INSTANCE:
        raise RuntimeError(f"{free >> 20} MiB free under {peer.folder}: make room, set BENCH_DIR or lower --small-instances")
    arguments = ("--assoc", o.small_associations, "--unit", UNIT)
    bench.dload(peer, "warm-up", round_, "store", "--list", bench.files("small", wanted), *arguments, keep=False)
    # Each of the peers is one process.
    arguments += ("--server-pid", peer.pids()[0])
    if peer.name == "orthanc":
        arguments += ("--max-seconds", int(o.orthanc_seconds))
    stored = bench.dload(peer, "small", round_, "store", "--list", bench.files("small", 0, wanted), *arguments,
                         judge=lambda figures: _filled(peer, figures, wanted * INSTANCES_A_STUDY))
    if "find" not in peer.can or stored.get("error"):
        return
    # What was sent is the first part of the list, without a hole, as the driver ends the units that it began; an instance that was
    # refused is told as a failure, and leaves its study with the others.
    held = made[:int(stored["instances"]) // INSTANCES_A_STUDY]
    patients = [s["patient"] for s in held[STUDIES_A_PATIENT - 1::STUDIES_A_PATIENT]]
    if not patients:
        raise RuntimeError(f"{peer.name} holds no patient to query for")
    some = [random.Random(7 + i).choice(patients) for i in range(1000)]
    queries = bench.write_lines("pid.txt", [f"PatientID={patient}" for patient in some])
    bench.dload(peer, "pid warm-up", round_, "find", "--queries", queries, "--max-seconds", 1, keep=False)
    # Some hundred queries of the slowest peer, as its CPU is counted in hundredths of a second.
    bench.dload(peer, "pid", round_, "find", "--queries", queries, "--repeat", 100, "--max-seconds", int(3 * o.find_seconds), judge=_found)


def _filled(peer, figures, wanted):
    more = dict(wanted=wanted, disk_mib=_disk_mib(peer.folder))
    tenths = figures["tenths_inst_s"]
    if len(tenths) == 10:
        cpu = figures["tenths_server_cpu_ms"]
        more["first_over_last"] = round(tenths[0] / tenths[-1], 3)
        # CPU is counted in hundredths of a second: with fewer than a hundred of them the ratio says nothing.
        if cpu[0] * wanted / 10 >= 1000:
            more["cpu_last_over_first"] = round(cpu[-1] / cpu[0], 3)
    if figures["instances"] < wanted:
        if peer.name == "orthanc":
            more["note"] = (f"took {figures['instances']} of {wanted} in {figures['seconds']:.0f} s and was not waited for: "
                            "its rate is that of its first instances, which flatters it, and its queries are over these")
        else:
            more["failures"] = {**figures["failures"], "instances not stored": wanted - int(figures["instances"])}
    return more


def _found(figures):
    wanted = STUDIES_A_PATIENT * int(figures["requests"])
    return {} if figures["matches"] == wanted else dict(failures={**figures["failures"], f"{figures['matches']} matches, not": wanted})


def _disk_mib(folder):
    blocks = 0
    for at, _, files in os.walk(folder):
        for name in files:
            try:
                blocks += os.lstat(os.path.join(at, name)).st_blocks
            except FileNotFoundError:
                pass        # a log that was replaced meanwhile
    return blocks * 512 >> 20
