"""The golden fingerprints, recomputed from their definition (routers/README.md)."""

import hashlib
import json
import pathlib
import struct

import numpy as np

VECTORS = json.loads((pathlib.Path(__file__).resolve().parents[1] / "vectors" / "router_fingerprints.json").read_text())


def u64(*numbers):
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def widened(tensor):
    """The tensor's values as little-endian fp32 bytes."""
    raw = bytes.fromhex(tensor["bytes"])
    if tensor["dtype"] == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).astype("<u4").tobytes()
    return np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[tensor["dtype"]]).astype("<f4").tobytes()


def test_of_packages():
    assert len(VECTORS["packages"]) >= 3
    for package in VECTORS["packages"]:
        content = package["kind"].encode() + b"\0"
        content += json.dumps(package["hyper"], sort_keys=True, separators=(",", ":")).encode() + b"\0"
        for name in sorted(package["tensors"], key=str.encode):
            tensor = package["tensors"][name]
            content += name.encode() + b"\0" + tensor["dtype"].encode() + b"\0"
            content += u64(len(tensor["shape"]), *tensor["shape"]) + bytes.fromhex(tensor["bytes"])
        assert hashlib.sha256(content).hexdigest() == package["fingerprint"]


def test_of_base_models():
    assert len(VECTORS["bases"]) >= 2
    for base in VECTORS["bases"]:
        content = u64(base["d"], base["E"], base["k"], base["num_hidden_layers"], base["vocab_size"])
        for gate in base["gates"]:
            content += gate["name"].encode() + b"\0" + widened(gate)
        assert hashlib.sha256(content).hexdigest() == base["fingerprint"]
