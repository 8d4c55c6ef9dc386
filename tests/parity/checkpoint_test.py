"""Checkpoints exchanged with Hugging Face transformers: what it saves opens here, what is written here loads there."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from checkpoint_oracle import probe, probed

BASE = dict(
    vocab_size=96, hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, moe_intermediate_size=12, shared_expert_intermediate_size=20,
    num_experts=6, num_experts_per_tok=2, max_position_embeddings=64,
)


def config(**changes):
    return Qwen2MoeConfig(**{**BASE, **changes})


def roles(model):
    """The weights by role, as checkpoint_probe names them."""
    named = {
        "embed_tokens": model.model.embed_tokens.weight,
        "final_norm": model.model.norm.weight,
        "lm_head": model.lm_head.weight,
    }
    for i, layer in enumerate(model.model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        of_layer = {
            "input_norm": layer.input_layernorm.weight,
            "post_attention_norm": layer.post_attention_layernorm.weight,
            "o": attention.o_proj.weight,
        }
        for name in "qkv":
            projection = getattr(attention, f"{name}_proj")
            of_layer[name] = projection.weight
            if projection.bias is not None:
                of_layer[f"{name}_bias"] = projection.bias

        def add(prefix, module):
            for name in ("gate", "up", "down"):
                of_layer[f"{prefix}.{name}"] = getattr(module, f"{name}_proj").weight

        if hasattr(mlp, "experts"):
            add("shared_expert", mlp.shared_expert)
            of_layer["router"] = mlp.gate.weight
            of_layer["shared_expert_gate"] = mlp.shared_expert_gate.weight
            for e in range(model.config.num_experts):
                gate, up = mlp.experts.gate_up_proj[e].chunk(2)
                of_layer[f"experts.{e}.gate"], of_layer[f"experts.{e}.up"] = gate, up
                of_layer[f"experts.{e}.down"] = mlp.experts.down_proj[e]
        else:
            add("dense", mlp)
        named.update({f"{i}.{name}": tensor for name, tensor in of_layer.items()})
    return {name: tensor.detach() for name, tensor in named.items()}


def assert_same_roles(model, folder, scratch):
    probed("open", folder, scratch / "roles.safetensors")
    ours, theirs = load_file(scratch / "roles.safetensors"), roles(model)
    assert sorted(ours) == sorted(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True, "norm_topk_prob": True},
        {"qkv_bias": False, "mlp_only_layers": [1]},
        {"decoder_sparse_step": 2, "head_dim": 10, "num_key_value_heads": 4},
    ],
    ids=["plain", "tied", "dense layer", "step"],
)
def test_opens_what_save_pretrained_writes(tmp_path, changes, dtype, fused):
    torch.manual_seed(3)
    model = Qwen2MoeForCausalLM(config(**changes)).to(dtype)
    model.save_pretrained(tmp_path / "model", save_original_format=not fused)
    assert_same_roles(model, tmp_path / "model", tmp_path)


def test_opens_shards_that_save_pretrained_writes(tmp_path):
    model = Qwen2MoeForCausalLM(config())
    model.save_pretrained(tmp_path / "model", max_shard_size="40KB")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1
    assert_same_roles(model, tmp_path / "model", tmp_path)


@pytest.mark.parametrize("shard_bytes", [0, 30000])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("layout", ["per_expert", "fused"])
def test_random_checkpoints_load_in_transformers(tmp_path, layout, dtype, shard_bytes):
    config(mlp_only_layers=[0]).save_pretrained(tmp_path / "config")
    out = tmp_path / "model"
    probed("random", tmp_path / "config/config.json", 7, out, layout, shard_bytes, dtype)
    model, report = Qwen2MoeForCausalLM.from_pretrained(out, dtype="auto", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    assert_same_roles(model, out, tmp_path)
    with torch.no_grad():  # in fp32: grouped products in 16 bits want widths that are a multiple of 8
        logits = model.float()(torch.arange(20)[None]).logits
    assert torch.isfinite(logits).all() and 0.2 < logits.std() < 5


@pytest.mark.parametrize(
    "damage, want",
    [
        (lambda state: state.pop("model.layers.0.self_attn.q_proj.weight"), "q_proj.weight\": missing"),
        (lambda state: state.pop("lm_head.weight"), "\"lm_head.weight\": missing"),
        (lambda state: state["model.norm.weight"].fill_(float("nan")), "got NaN or infinity at [0]"),
        (lambda state: state.update(surplus=torch.zeros(2)), "\"surplus\": surplus"),
    ],
    ids=["missing", "no head", "nan", "surplus"],
)
def test_refuses_damage_that_transformers_lets_pass(tmp_path, damage, want):
    from safetensors.torch import save_file

    folder = tmp_path / "model"
    Qwen2MoeForCausalLM(config()).save_pretrained(folder)
    state = load_file(folder / "model.safetensors")
    damage(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    Qwen2MoeForCausalLM.from_pretrained(folder)
    done = probe("open", folder, tmp_path / "roles.safetensors")
    assert done.returncode == 1
    assert want in done.stderr


@pytest.mark.parametrize(
    "key, value",
    [("num_experts_per_tok", 0), ("rms_norm_eps", -1.0), ("eos_token_id", 96), ("num_experts_per_tok", 7)],
)
def test_refuses_configs_that_transformers_lets_pass(tmp_path, key, value):
    folder = tmp_path / "model"
    Qwen2MoeForCausalLM(config()).save_pretrained(folder)
    text = json.loads((folder / "config.json").read_text())
    text[key] = value
    (folder / "config.json").write_text(json.dumps(text))
    Qwen2MoeForCausalLM.from_pretrained(folder)
    done = probe("open", folder, tmp_path / "roles.safetensors")
    assert done.returncode == 1
    assert f"config.json: {key}: got {value}, want" in done.stderr
