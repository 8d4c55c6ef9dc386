"""Every router kind against NumPy, fp64, through packages that Python writes.

Environment: PENSTOCK_BUILD (build tree, default build/release).
"""

import hashlib
import json
import os
import pathlib
import struct
import subprocess

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import router_oracle as oracle

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROBE = ROOT / os.environ.get("PENSTOCK_BUILD", "build/release") / "bin" / "router_probe"
LAYERS = [0, 3]
ROWS = 100

HYPERS = {
    "linear": [{}],
    "attention": [{"attention_width": 128, "heads": 4}, {"attention_width": 12, "heads": 1}, {"attention_width": 15, "heads": 5}],
    "mlp": [{"hidden_width": 256, "gelu": "erf"}, {"hidden_width": 33, "gelu": "tanh"}],
    "hybrid": [{"attention_width": 128, "heads": 4}, {"attention_width": 21, "heads": 3}],
    "hash": [{"vocab_size": 97}],
    "mlp_hadamard": [{"hidden_width": 256, "gelu": "tanh"}, {"hidden_width": 17, "gelu": "erf"}],
}
SHAPES = [(2048, 60, 4), (100, 13, 3), (7, 1, 1), (24, 6, 6)]
DTYPES = ["float32", "bfloat16", "float16"]
# The package's dtype and the model's need not be the same.
PAIRS = [("float32", "float32"), ("float32", "bfloat16"), ("bfloat16", "bfloat16"), ("float16", "float16"), ("bfloat16", "float32")]
USUAL = [("float32", "float32"), ("bfloat16", "bfloat16")]


def random_package(folder, kind, hyper, shape, dtype, generator):
    """Writes a package; its tensors as fp64, by layer."""
    d, experts, top_k = shape
    stored, wide = {}, {}
    for layer in LAYERS:
        wide[layer] = {}
        for name, size in oracle.shapes(kind, d, experts, top_k, hyper).items():
            if name == "table":
                rows = [torch.randperm(experts, generator=generator)[:top_k] for _ in range(size[0])]
                tensor = torch.stack(rows).to(torch.int32)
            elif name == "c":
                tensor = torch.rand(size, generator=generator).clamp(0.1, 1.0).to(getattr(torch, dtype))
            else:
                scale = size[-1] ** -0.5 if len(size) > 1 else 0.7
                tensor = (torch.randn(size, generator=generator) * scale).to(getattr(torch, dtype))
            stored[f"layers.{layer}.{name}"] = tensor
            wide[layer][name] = tensor.to(torch.float64).numpy()
    folder.mkdir()
    header = {
        "format": 1, "kind": kind, "hyper": hyper, "d": d, "E": experts, "k": top_k, "layers": LAYERS, "dtype": dtype,
        "base_fingerprint": "0" * 64, "trained": {"by": "oracle"},
    }  # fmt: skip
    (folder / "router.json").write_text(json.dumps(header))
    save_file(stored, folder / "router.safetensors")
    return stored, wide


def ask(folder, hidden, token_ids, normalize, vocabulary=97):
    metadata = {"norm_topk_prob": "true" if normalize else "false", "vocab_size": str(vocabulary)}
    save_file({"hidden": hidden, "token_ids": token_ids}, folder / "in.safetensors", metadata)
    command = [str(PROBE), str(folder / "package"), str(folder / "in.safetensors"), str(folder / "out.safetensors")]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    with safe_open(folder / "out.safetensors", "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


def check_decision(z, low, high, got, top_k, normalize):
    """Steps 2 to 4 of the contract, for one layer's rows."""
    assert ((low <= z) & (z <= high)).all(), f"logits off by {np.maximum(low - z, z - high).max()}"
    # Exactly: a stable sort of the logits that the router itself computed.
    ids = np.argsort(-z, axis=1, kind="stable")[:, :top_k]
    np.testing.assert_array_equal(got["experts"], ids)
    # Against exact logits: nothing is passed over that is surely larger.
    left_out = low.copy()
    np.put_along_axis(left_out, ids, -np.inf, axis=1)
    last = np.take_along_axis(high, ids[:, -1:], axis=1)
    assert (left_out.max(axis=1, keepdims=True) <= last).all()
    p = np.exp(oracle.log_softmax(z.astype(np.float64)))
    np.testing.assert_allclose(got["probabilities"], p, rtol=2e-5, atol=1e-30)
    w = np.take_along_axis(got["probabilities"], ids, axis=1).astype(np.float64)
    if normalize:
        w = w / w.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(got["weights"], w, rtol=1e-6)
    else:
        np.testing.assert_array_equal(got["weights"], w.astype(np.float32))


def cases():
    """Every kind at every shape in the usual dtypes, and small shapes of its first hyperparameters in all of them."""
    for kind, hypers in HYPERS.items():
        for n, hyper in enumerate(hypers):
            for shape in SHAPES:
                for pair in PAIRS:
                    if pair in USUAL or (n == 0 and shape != SHAPES[0]):
                        yield kind, hyper, shape, pair


CASES = list(cases())
NAMES = [f"{kind}-{'-'.join(map(str, hyper.values()))}-{shape[0]}x{shape[1]}x{shape[2]}-{pair[0]}-for-{pair[1]}" for kind, hyper, shape, pair in CASES]


@pytest.mark.parametrize("kind,hyper,shape,pair", CASES, ids=NAMES)
def test_routes_as_the_oracle(tmp_path, kind, hyper, shape, pair):
    package_dtype, model_dtype = pair
    generator = torch.Generator().manual_seed(hash_of(kind, hyper, shape, pair))
    d, experts, top_k = shape
    stored, wide = random_package(tmp_path / "package", kind, hyper, shape, package_dtype, generator)
    hidden = (torch.randn((ROWS, d), generator=generator) * 1.5).to(getattr(torch, model_dtype))
    token_ids = torch.randint(0, 97, (ROWS,), generator=generator)
    x = hidden.to(torch.float64).numpy()
    normalize = generator.initial_seed() % 2 == 1
    out, metadata = ask(tmp_path, hidden, token_ids, normalize)
    assert metadata["package_fingerprint"] == package_fingerprint(kind, hyper, stored)
    for layer in LAYERS:
        got = {name: out[f"layers.{layer}.{name}"] for name in ("experts", "weights", "probabilities", "finite")}
        assert got["finite"].all()
        if kind == "hash":
            ids = wide[layer]["table"][token_ids.numpy()].astype(np.int32)
            np.testing.assert_array_equal(got["experts"], ids)
            share = 1 / top_k if normalize else wide[layer]["c"][0] / top_k
            np.testing.assert_allclose(got["weights"], np.full((ROWS, top_k), share), rtol=1e-6)
            p = np.zeros((ROWS, experts))
            np.put_along_axis(p, ids.astype(np.int64), 1 / top_k, axis=1)
            np.testing.assert_allclose(got["probabilities"], p, rtol=1e-6)
            continue
        low, high = oracle.KINDS[kind](x, wide[layer], hyper, model_dtype)
        check_decision(out[f"layers.{layer}.logits"], low, high, got, top_k, normalize)


def test_every_kind_has_its_oracle():
    files = {path.name.removesuffix("_router.cc") for path in (ROOT / "routers").glob("*_router.cc")}
    assert files and files == set(HYPERS)
    assert files - {"hash"} == set(oracle.KINDS)
    assert {case[0] for case in CASES} == files


@pytest.mark.parametrize("dtype", DTYPES)
def test_oracle_rounds_as_torch(dtype):
    x = torch.randn(10000, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(torch.float32)
    expected = x.to(getattr(torch, dtype)).to(torch.float64).numpy()
    np.testing.assert_array_equal(oracle.round_to(x.to(torch.float64).numpy(), dtype), expected)


def hash_of(*parts):
    """A seed that does not change from run to run."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "little")


def package_fingerprint(kind, hyper, tensors):
    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int32: "I32"}
    text = json.dumps(hyper, sort_keys=True, separators=(",", ":"))
    content = kind.encode() + b"\0" + text.encode() + b"\0"
    for name in sorted(tensors):
        tensor = tensors[name]
        numbers = [tensor.dim(), *tensor.shape]
        content += name.encode() + b"\0" + names[tensor.dtype].encode() + b"\0"
        content += struct.pack(f"<{len(numbers)}Q", *numbers) + tensor.contiguous().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(content).hexdigest()
