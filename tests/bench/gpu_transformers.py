"""Decode and prefill of Hugging Face transformers on this GPU, on random weights of a config's shape.

  deploy/gpu/run.sh bench --compare-hf
  python3 tests/bench/gpu_transformers.py --config FOLDER [--batch 1,64] [--compile]

Its defaults (sdpa attention, grouped_mm experts) over a static cache, in inference mode, logits of the last position;
--compile: decode under torch.compile, mode reduce-overhead (CUDA graphs), which takes minutes to start.
"""

import argparse
import pathlib
import statistics
import time

import torch
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM, StaticCache

DEVICE = "cuda"


def random_model(folder):
    config = Qwen2MoeConfig.from_pretrained(folder)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model = Qwen2MoeForCausalLM(config)
    model = model.to_empty(device=DEVICE).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(0 if name.endswith("bias") else 1)
            else:
                parameter.normal_(0, 1 if "embed_tokens" in name else parameter.shape[-1] ** -0.5)
        # Not among the parameters, and left empty.
        rotary = model.model.rotary_emb
        frequencies = 1 / config.rope_parameters["rope_theta"] ** (
            torch.arange(0, 128, 2, device=DEVICE, dtype=torch.float32) / 128)
        for name in ("inv_freq", "original_inv_freq"):
            if hasattr(rotary, name):
                setattr(rotary, name, frequencies.clone())
    return model


def seconds(step):
    torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def decode(model, batch, context, steps, compiled):
    cache = StaticCache(config=model.config, max_cache_len=context + steps + 16)
    ids = torch.randint(model.config.vocab_size, (batch, context), device=DEVICE)
    with torch.inference_mode():
        # In parts that fit beside the weights.
        for rows in range(0, context, 128):
            out = model(ids[:, rows:rows + 128], past_key_values=cache, use_cache=True, logits_to_keep=1,
                        cache_position=torch.arange(rows, min(rows + 128, context), device=DEVICE))
        token, times = out.logits[:, -1:].argmax(-1), []
        run = torch.compile(model, mode="reduce-overhead", dynamic=False) if compiled else model
        for i in range(steps + 8):
            position = torch.tensor([context + i], device=DEVICE)
            step = lambda: run(token, past_key_values=cache, use_cache=True, logits_to_keep=1, cache_position=position)
            times.append(seconds(step))
            token = torch.randint(model.config.vocab_size, (batch, 1), device=DEVICE)
    return statistics.median(times[8:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, type=pathlib.Path, help="folder with config.json")
    parser.add_argument("--batch", default="1,4,16,64,256")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    import transformers

    start = time.perf_counter()
    model = random_model(args.config)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, {torch.cuda.get_device_name()}, "
          f"{'torch.compile' if args.compile else 'no compiler'}, ready in {time.perf_counter() - start:.0f} s")
    for batch in map(int, args.batch.split(",")):
        step = decode(model, batch, args.context, args.steps, args.compile)
        print(f"decode B={batch} at {args.context}: {batch / step:.0f} tok/s, {1e3 * step:.3f} ms a step", flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
