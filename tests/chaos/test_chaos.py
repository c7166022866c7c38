"""A short run against real processes; `CHAOS_SEED=n` chooses another schedule."""
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("TRIPTYCH_BIN", ROOT / "target/debug/triptych"))
SEED = os.environ.get("CHAOS_SEED", "1")
# One of each family; the long run has all.
FAULTS = "kill-leader,pause,isolate-leader,oneway,power-all,full,wipe,flip"


def run(report, *flags):
    """(exit code, report.json, the command)."""
    assert BINARY.exists(), f"{BINARY} is missing: run `cargo build -p archive-server` first"
    command = [sys.executable, Path(__file__).with_name("chaos.py"), "--binary", BINARY, "--report", report, *flags]
    command = [str(word) for word in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400)
    print(done.stdout)
    return done.returncode, json.loads((report / "report.json").read_text()), " ".join(command)


def test_a_minute_of_faults_loses_nothing(tmp_path):
    flags = ["--seed", SEED, "--seconds", "45", "--faults", FAULTS, "--settle-s", "2", "--gets", "8", "--send-mib", "128"]
    code, report, command = run(tmp_path, *flags)
    assert code == 0, f"REPRODUCE: {command}"
    assert report["passed"] and report["checked"]["violations"] == []
    # A run that does nothing proves nothing.
    assert report["checked"]["instances_acknowledged"] > 200
    assert report["checked"]["copies_compared"] > 600
    assert sum(report["faults"].get(kind, 0) for kind in FAULTS.split(",")) >= 3


def test_what_is_done_behind_the_back_of_the_history_is_found(tmp_path):
    """The whole chain can fail: real nodes, one acknowledged instance taken away, one that nobody sent."""
    code, report, _ = run(tmp_path, "--seed", SEED, "--seconds", "5", "--faults", "kill", "--settle-s", "0", "--gets", "2", "--cheat")
    found = {invariant for invariant, _ in report["checked"]["violations"]}
    assert (code, found) == (1, {"I1", "I3"})
    assert (report["checked"]["lost"], report["checked"]["altered"]) == (1, 0)
    assert report["checked"]["phantoms"] >= 1
