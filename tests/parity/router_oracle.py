"""The six router kinds in NumPy, in fp64, written from the specification's formulas.

A kind gives the logits as an interval [low, high]: fp32 sums may differ from exact ones by `tolerance`, and where a value
is rounded to the model's dtype (M), that can move it to a neighbour.
"""

import math

import numpy as np

TOLERANCE = 2e-5  # times max(1, max |z|)


def round_to(x, dtype):
    """M: nearest in the model's dtype, ties to even, as fp64."""
    if dtype == "float32":
        return x
    bits = {"bfloat16": 8, "float16": 11}[dtype]  # of precision, the hidden one included
    smallest = {"bfloat16": -126, "float16": -14}[dtype]  # exponent of the smallest normal number
    exponent = np.maximum(np.frexp(x)[1] - 1, smallest)
    unit = np.ldexp(1.0, exponent - (bits - 1))
    return np.rint(x / unit) * unit


def gelu(x, form):
    if form == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def slack(z):
    """What fp32 sums are allowed, per row."""
    return TOLERANCE * np.maximum(1.0, np.abs(z).max(axis=-1, keepdims=True))


def exact(z):
    return z - slack(z), z + slack(z)


def rounded(z, dtype):
    low, high = exact(z)
    return (low, high) if dtype == "float32" else (round_to(low, dtype), round_to(high, dtype))


def linear(x, t, hyper, dtype):
    return rounded(x @ round_to(t["W"], dtype).T, dtype)


def attention_logits(x, t, hyper):
    heads, width = hyper["heads"], hyper["attention_width"] // hyper["heads"]
    logs = []
    for j in range(heads):
        q = x @ t["W_q"][j * width : (j + 1) * width].T
        logs.append(log_softmax(q @ t["K"][j].T / math.sqrt(width)))
    stacked = np.stack(logs)
    top = stacked.max(axis=0)
    return top + np.log(np.exp(stacked - top).sum(axis=0)) - math.log(heads)


def attention(x, t, hyper, dtype):
    return exact(attention_logits(x, t, hyper))


def mlp(x, t, hyper, dtype):
    return exact(gelu(x @ t["W1"].T + t["b1"], hyper["gelu"]) @ t["W2"].T + t["b2"])


def hybrid(x, t, hyper, dtype):
    low, high = rounded(x @ t["W"].T, dtype)
    alpha = 1 / (1 + np.exp(-t["mix"]))
    rest = (1 - alpha) * t["s"] * attention_logits(x, t, hyper)
    low, high = alpha * low + rest, alpha * high + rest
    margin = np.maximum(slack(low), slack(high))
    return low - margin, high + margin


def mlp_hadamard(x, t, hyper, dtype):
    return rounded((x * (1 + gelu(x @ t["A"].T, hyper["gelu"]) @ t["B"].T)) @ t["W_o"].T, dtype)


KINDS = {"linear": linear, "attention": attention, "mlp": mlp, "hybrid": hybrid, "mlp_hadamard": mlp_hadamard}


def shapes(kind, d, experts, top_k, hyper):
    """Tensors per layer."""
    if kind == "hash":
        return {"table": (hyper["vocab_size"], top_k), "c": (1,)}
    if kind in ("mlp", "mlp_hadamard"):
        h = hyper["hidden_width"]
        if kind == "mlp":
            return {"W1": (h, d), "b1": (h,), "W2": (experts, h), "b2": (experts,)}
        return {"A": (h, d), "B": (d, h), "W_o": (experts, d)}
    tensors = {"W": (experts, d)} if kind in ("linear", "hybrid") else {}
    if kind in ("attention", "hybrid"):
        a, heads = hyper["attention_width"], hyper["heads"]
        tensors |= {"W_q": (a, d), "K": (heads, experts, a // heads)}
    if kind == "hybrid":
        tensors |= {"mix": (1,), "s": (1,)}
    return tensors

