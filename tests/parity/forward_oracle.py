"""Random Qwen2-MoE models in transformers, their ties, and the forward probe."""

import json
import os
import pathlib
import subprocess

import numpy as np
import torch
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROBE = ROOT / os.environ.get("PENSTOCK_BUILD", "build/release") / "bin" / "forward_probe"

BASE = dict(
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=211,
    max_position_embeddings=512,
    num_experts=8,
    num_experts_per_tok=2,
    moe_intermediate_size=48,
    shared_expert_intermediate_size=80,
    intermediate_size=96,
    initializer_range=0.15,
)

# What each adds to BASE; `save` goes to save_pretrained.
CONFIGS = {
    "plain": dict(),
    "fused_layout": dict(save=dict(save_original_format=False)),
    "grouped_queries": dict(num_attention_heads=6, num_key_value_heads=1, head_dim=24, hidden_size=72),
    "one_head_per_kv": dict(num_attention_heads=4, num_key_value_heads=4),
    "dense_layers": dict(num_hidden_layers=4, mlp_only_layers=[0, 2]),
    "sparse_step": dict(num_hidden_layers=4, decoder_sparse_step=2),
    "renormalized": dict(norm_topk_prob=True, num_experts_per_tok=3),
    "tied": dict(tie_word_embeddings=True),
    "without_qkv_bias": dict(qkv_bias=False),
    "long_rope": dict(rope_parameters=dict(rope_type="default", rope_theta=1000000.0)),
    "short_rope": dict(rope_parameters=dict(rope_type="default", rope_theta=500.0), head_dim=32),
    "sharded": dict(save=dict(max_shard_size="200KB")),
    "sharded_fused_renormalized": dict(
        save=dict(max_shard_size="300KB", save_original_format=False), norm_topk_prob=True, num_experts=12,
        num_experts_per_tok=4,
    ),
    # As odd as transformers' grouped product takes: rows of experts must be multiples of 16 bytes.
    "odd_widths": dict(
        hidden_size=44, num_attention_heads=2, num_key_value_heads=2, head_dim=10, moe_intermediate_size=20,
        shared_expert_intermediate_size=37, vocab_size=97, num_experts=5, num_experts_per_tok=5, rms_norm_eps=1e-5,
    ),
}

# Qwen1.5-MoE-A2.7B's proportions, with two layers and a small vocabulary.
REAL = dict(
    hidden_size=2048,
    num_hidden_layers=2,
    num_attention_heads=16,
    num_key_value_heads=16,
    vocab_size=997,
    max_position_embeddings=512,
    num_experts=60,
    num_experts_per_tok=4,
    moe_intermediate_size=1408,
    shared_expert_intermediate_size=5632,
    intermediate_size=5632,
    initializer_range=0.02,
    rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
)


def random_model(folder, seed, dtype=torch.float32, **settings):
    """Makes a model, saves it to `folder`, and returns it as it was saved."""
    settings = {**BASE, **settings}
    save = settings.pop("save", {})
    torch.manual_seed(seed)
    config = Qwen2MoeConfig(**settings, use_sliding_window=False)
    model = Qwen2MoeForCausalLM(config).to(dtype).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Biases and norms start as constants, which would hide mistakes.
            if name.endswith("bias"):
                parameter.normal_(0, 0.2)
            elif "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder, **save)
    return model


class Probe:
    """The reference model over one folder, or the GPU engine."""

    def __init__(self, folder, dtype="float32", prefill_chunk=2048, device="cpu"):
        self.folder, self.dtype, self.chunk, self.device = str(folder), dtype, prefill_chunk, device

    def ask(self, *requests):
        lines = "".join(json.dumps(request) + "\n" for request in requests)
        done = subprocess.run(
            [str(PROBE), self.folder, self.dtype, str(self.chunk), self.device], input=lines.encode(), stdout=subprocess.PIPE, check=True
        )
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(answers) == len(requests)
        return answers

    def greedy(self, prompts, new_tokens, **options):
        return self.ask(dict(prompts=prompts, new_tokens=new_tokens, **options))[0]["tokens"]

    def logprobs(self, tokens, path):
        """[len(tokens) - 1, V]: after each token but the last."""
        self.ask(dict(prompt=tokens, logprobs_file=str(path)))
        values = np.fromfile(path, dtype=np.float32)
        return torch.from_numpy(values.reshape(len(tokens) - 1, -1).copy())


def hf_greedy(model, prompt, new_tokens, **options):
    ids = torch.tensor([prompt])
    with torch.no_grad():
        # Without a mask of its own, generate takes tokens with the padding's id for padding.
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False,
            **options,
        )
    return out[0, len(prompt):].tolist()


def hf_logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0]


def first_tie(model, tokens):
    """The first position where some gate's k-th and next logit are equal: which of them topk takes is chance."""
    k = model.config.num_experts_per_tok
    if k == model.config.num_experts:
        return len(tokens)
    with torch.no_grad():
        layers = model(torch.tensor([tokens]), output_router_logits=True).router_logits
    first = len(tokens)
    for logits in layers:
        top = logits.float().topk(k + 1, dim=-1).values
        tied = (top[:, k - 1] == top[:, k]).nonzero()
        if len(tied):
            first = min(first, int(tied[0]))
    return first
