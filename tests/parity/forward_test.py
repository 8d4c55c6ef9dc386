"""The reference forward against transformers, live, on random models.

Environment: PENSTOCK_BUILD (build tree, default build/release).
"""

import random

import pytest
import torch
from transformers import AutoTokenizer, Qwen2MoeForCausalLM

from checkpoint_oracle import demo_gguf, probed
from forward_oracle import CONFIGS, REAL, Probe, first_tie, hf_greedy, hf_logits, random_model

torch.set_num_threads(2)

CHATML = "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n"


def prompts_for(model, seed, lengths=(1, 5, 17, 40)):
    generator = random.Random(seed)
    return [[generator.randrange(model.config.vocab_size) for _ in range(length)] for length in lengths]


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / request.param
    seed = sorted(CONFIGS).index(request.param)
    return folder, random_model(folder, seed, **CONFIGS[request.param])


def test_twelve_configurations_and_more():
    assert len(CONFIGS) >= 12


def test_greedy_tokens_are_equal_in_fp32(saved):
    folder, model = saved
    prompts = prompts_for(model, 1)
    compared = 0
    for prompt, got in zip(prompts, Probe(folder).greedy(prompts, 64)):
        want = hf_greedy(model, prompt, 64)
        untied = first_tie(model, prompt + want) - len(prompt) + 1
        assert got[:untied] == want[:untied]
        compared += min(64, untied)
    assert compared >= 64 * len(prompts) - 16, "ties must stay rare, or nothing is compared"


@pytest.mark.parametrize("penalty", [0.8, 1.3])
def test_repetition_penalty_is_that_of_transformers(penalty, tmp_path):
    folder = tmp_path / "plain"
    model = random_model(folder, sorted(CONFIGS).index("plain"), **CONFIGS["plain"])
    prompts = prompts_for(model, 5)
    plain = Probe(folder).greedy(prompts, 48)
    got = Probe(folder).greedy(prompts, 48, repetition_penalty=penalty)
    assert got != plain
    compared = 0
    for prompt, tokens in zip(prompts, got):
        want = hf_greedy(model, prompt, 48, repetition_penalty=penalty)
        untied = first_tie(model, prompt + want) - len(prompt) + 1
        assert tokens[:untied] == want[:untied]
        compared += min(48, untied)
    assert compared >= 48 * len(prompts) - 16


def test_logits_agree_in_fp32(saved, tmp_path):
    folder, model = saved
    tokens = prompts_for(model, 2, (70,))[0]
    untied = first_tie(model, tokens)
    want = hf_logits(model, tokens)[:-1].log_softmax(-1)
    for chunk in (2048, 7):
        got = Probe(folder, prefill_chunk=chunk).logprobs(tokens, tmp_path / "logprobs")
        error = (got - want)[:untied].abs().max().item()
        assert untied >= 35 and error < 1e-4, (error, untied)


def test_real_proportions_agree_in_fp32(tmp_path):
    folder = tmp_path / "real"
    model = random_model(folder, 7, **REAL)
    (prompt,) = prompts_for(model, 3, (24,))
    got = Probe(folder).greedy([prompt], 64)[0]
    want = hf_greedy(model, prompt, 64)
    untied = first_tie(model, prompt + want) - len(prompt) + 1
    assert untied >= 60 and got[:untied] == want[:untied]
    tokens = prompt + want
    logprobs = Probe(folder).logprobs(tokens, tmp_path / "logprobs")
    error = (logprobs - hf_logits(model, tokens)[:-1].log_softmax(-1))[: first_tie(model, tokens)].abs().max().item()
    assert error < 1e-4


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "model"
    probed("demo", demo_gguf(), folder)
    return folder, Qwen2MoeForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_demo_model_agrees_in_fp32(demo, tmp_path):
    folder, model = demo
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer(CHATML)["input_ids"]
    want = hf_greedy(model, prompt, 64)
    untied = first_tie(model, prompt + want) - len(prompt) + 1
    assert untied >= 60 and Probe(folder).greedy([prompt], 64)[0][:untied] == want[:untied]
    tokens = prompt + want
    logprobs = Probe(folder).logprobs(tokens, tmp_path / "logprobs")
    error = (logprobs - hf_logits(model, tokens)[:-1].log_softmax(-1))[: first_tie(model, tokens)].abs().max().item()
    assert error < 1e-4


def agreement(a, b):
    return (a.argmax(-1) == b.argmax(-1)).float().mean().item()


def hf_logits_with_cache(model, tokens):
    """One token at a time through the cache."""
    rows, cache = [], None
    with torch.no_grad():
        for token in tokens:
            out = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
            rows.append(out.logits[0, 0])
            cache = out.past_key_values
    return torch.stack(rows)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_agrees_at_least_as_transformers_with_itself(dtype, tmp_path):
    """Teacher-forced, over several random models: same argmax as transformers' default kernels, against what its eager
    attention and experts with a cache reach. The text is each model's own."""
    ours, theirs = [], []
    for name in ("plain", "grouped_queries", "dense_layers", "renormalized", "without_qkv_bias", "tied"):
        folder = tmp_path / name
        seed = sorted(CONFIGS).index(name)
        model = random_model(folder, seed, dtype=getattr(torch, dtype), **CONFIGS[name])
        model.set_attn_implementation("sdpa")
        (prompt,) = prompts_for(model, 4, (8,))
        tokens = prompt + hf_greedy(model, prompt, 150)
        default = hf_logits(model, tokens)[:-1].float()
        got = Probe(folder, dtype).logprobs(tokens, tmp_path / "logprobs")
        eager = type(model).from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation="eager", experts_implementation="eager"
        ).eval()
        ours.append(agreement(got, default))
        theirs.append(agreement(hf_logits_with_cache(eager, tokens)[:-1].float(), default))
    mean = lambda values: sum(values) / len(values)
    print(f"{dtype}: same argmax as transformers' default: ours {mean(ours):.3f}, its eager {mean(theirs):.3f}")
    # Both are samples of the same noise: some 900 decisions each, so a standard error of about 0.01.
    assert mean(ours) >= mean(theirs) - 0.02, (ours, theirs)


def test_conversion_to_bf16_is_that_of_transformers(saved, tmp_path):
    """A float32 checkpoint served in bfloat16 is the model that transformers converts."""
    folder, _ = saved
    converted = tmp_path / "converted"
    Qwen2MoeForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(converted)
    prompt = [3, 1, 4, 1, 5, 9, 2, 6]
    assert Probe(folder, "bfloat16").greedy([prompt], 24) == Probe(converted, "auto").greedy([prompt], 24)
