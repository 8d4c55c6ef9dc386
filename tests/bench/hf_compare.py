"""The reference model's decode and prefill against Hugging Face transformers, in one run on one machine.

  python tests/bench/hf_compare.py --model demo=/path/to/checkpoint --model d512=random [--threads 2] [--repeat 3]

For every model, dtype and batch size: times of one step (median over steps, and over `repeat` interleaved runs of either
side), and the median of the pairs' ratios; above 1 Penstock is faster. transformers runs in its
defaults (sdpa attention, grouped_mm experts; BENCHMARKS.md tells how its other settings did), in inference mode, with its
cache, and computes the last position's logits only, as its `generate` does.

Environment: PENSTOCK_BUILD (build tree, default build/release).
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from transformers import Qwen2MoeForCausalLM
from transformers.utils import logging

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/parity"))
from forward_oracle import random_model  # noqa: E402

BENCH = ROOT / os.environ.get("PENSTOCK_BUILD", "build/release") / "bin" / "forward_bench"
D512 = dict(
    hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=8, vocab_size=32000,
    max_position_embeddings=2048, num_experts=60, num_experts_per_tok=4, moe_intermediate_size=352,
    shared_expert_intermediate_size=1408, intermediate_size=1408, initializer_range=0.02,
)


def ours(folder, dtype, batch, prompt, steps, threads, cpu):
    command = [str(BENCH), str(folder), dtype, str(batch), str(prompt), str(steps), str(threads)]
    times = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    kind = "_cpu" if cpu else ""
    return times["prefill" + kind], statistics.median(times["decode" + kind])


def theirs(model, batch, prompt, steps, cpu):
    clock = time.process_time if cpu else time.perf_counter
    ids = torch.randint(model.config.vocab_size, (batch, prompt))
    with torch.inference_mode():
        start = clock()
        out = model(ids, use_cache=True, logits_to_keep=1)
        prefill = clock() - start
        decode = []
        for _ in range(steps):
            next_ids = out.logits[:, -1:].argmax(-1)
            start = clock()
            out = model(next_ids, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1)
            decode.append(clock() - start)
    return prefill, statistics.median(decode)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--dtype", action="append", choices=["float32", "bfloat16"])
    parser.add_argument("--batch", action="append", type=int)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--steps", type=int, default=16, help="decode steps")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--cpu-time", action="store_true", help="CPU seconds instead of wall time, for a busy machine; with --threads 1"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.disable_progress_bar()
    print("| model | dtype | B | decode ms: transformers | Penstock | ratio | prefill tok/s: transformers | Penstock | ratio |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    slowest = float("inf")
    with tempfile.TemporaryDirectory() as scratch:
        for entry in args.model:
            name, folder = entry.split("=", 1)
            if folder == "random":
                folder = f"{scratch}/{name}"
                random_model(folder, 1, **D512)
            for dtype in args.dtype or ["float32", "bfloat16"]:
                model = Qwen2MoeForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
                served = f"{scratch}/{name}-{dtype}"
                model.save_pretrained(served)  # in this dtype: neither side converts while it runs
                for batch in args.batch or [1, 8, 32]:
                    theirs(model, batch, args.prompt, 2, args.cpu_time)
                    mine, hf = [], []
                    for _ in range(args.repeat):
                        hf.append(theirs(model, batch, args.prompt, args.steps, args.cpu_time))
                        mine.append(ours(served, dtype, batch, args.prompt, args.steps, args.threads, args.cpu_time))
                    (hf_prefill, hf_decode), (prefill, decode), (prefill_ratio, decode_ratio) = (
                        [statistics.median(column) for column in zip(*runs)]
                        for runs in (hf, mine, [(a[0] / b[0], a[1] / b[1]) for a, b in zip(hf, mine)])
                    )
                    tokens = batch * args.prompt
                    slowest = min(slowest, decode_ratio, prefill_ratio)
                    print(
                        f"| {name} | {dtype} | {batch} | {hf_decode * 1e3:.2f} | {decode * 1e3:.2f} | {decode_ratio:.2f} "
                        f"| {tokens / hf_prefill:.0f} | {tokens / prefill:.0f} | {prefill_ratio:.2f} |",
                        flush=True,
                    )
                del model
    print(f"\nlowest ratio: {slowest:.2f}")


if __name__ == "__main__":
    main()
