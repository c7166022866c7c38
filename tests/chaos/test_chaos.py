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


def test_a_minute_of_faults_loses_nothing(tmp_path):
    assert BINARY.exists(), f"{BINARY} is missing: run `cargo build -p archive-server` first"
    command = [sys.executable, Path(__file__).with_name("chaos.py"), "--binary", BINARY, "--seed", SEED, "--seconds", "60"]
    command += ["--faults", FAULTS, "--report", tmp_path / "report", "--settle-s", "3", "--send-mib", "256"]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400)
    print(done.stdout)
    assert done.returncode == 0, f"REPRODUCE: {' '.join(str(word) for word in command)}"
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["passed"] and report["checked"]["violations"] == []
    # A run that does nothing proves nothing.
    assert report["checked"]["instances_acknowledged"] > 200
    assert report["checked"]["copies_compared"] > 600
    assert sum(report["faults"].get(kind, 0) for kind in FAULTS.split(",")) >= 4
