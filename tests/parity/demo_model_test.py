"""The demo checkpoint in Hugging Face transformers: it loads, speaks, and is the dense model when its experts are silent."""

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers import Qwen2MoeForCausalLM

from checkpoint_oracle import demo_gguf, probed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "model"
    probed("demo", demo_gguf(), path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    loaded, report = Qwen2MoeForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    return loaded.eval()


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def greedy(model, ids, count):
    with torch.no_grad():
        out = model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False)
    return out[0, len(ids):].tolist()


def test_auto_class_finds_the_architecture(folder):
    assert isinstance(AutoModelForCausalLM.from_pretrained(folder), Qwen2MoeForCausalLM)


@pytest.fixture(scope="module")
def question(tokenizer):
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Why is the sky blue?"}],
        tokenize=False, add_generation_prompt=True,
    )
    return tokenizer(text)["input_ids"]


@pytest.fixture(scope="module")
def answer(model, question):
    return greedy(model, question, 40)


def test_speaks_fluently_with_its_experts(tokenizer, answer):
    assert tokenizer.decode(answer).startswith(
        "The answer to this question lies in the intricate dance of light and color. The sky appears "
        "blue because of a phenomenon known as Rayleigh scattering."
    )


def test_another_gate_gives_another_text(model, question, answer):
    gates = [layer.mlp.gate.weight for layer in model.model.layers]
    saved = [gate.detach().clone() for gate in gates]
    try:
        for gate in gates:
            gate.data.neg_()
        assert greedy(model, question, 40) != answer
    finally:
        for gate, values in zip(gates, saved):
            gate.data.copy_(values)


def dense_oracle():
    """The GGUF file's own model in LlamaForCausalLM, dequantized by PyPI gguf and rounded to bfloat16 as the checkpoint is."""
    reader = gguf.GGUFReader(demo_gguf())
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192,
        rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_theta": 100000.0, "rope_type": "default"},
    )
    names = {
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    state = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        shape = [int(extent) for extent in reversed(tensor.shape)]
        values = torch.tensor(values).reshape(shape).bfloat16().float()
        if tensor.name == "token_embd.weight":
            state["model.embed_tokens.weight"] = state["lm_head.weight"] = values
        elif tensor.name == "output_norm.weight":
            state["model.norm.weight"] = values
        else:
            _, layer, part, _ = tensor.name.split(".")
            if part in ("attn_q", "attn_k"):
                heads = shape[0] // 64
                values = values.reshape(heads, 32, 2, -1).transpose(1, 2).reshape(shape)
            state[f"model.layers.{layer}.{names[part]}.weight"] = values
    model = LlamaForCausalLM(config)
    model.load_state_dict(state)
    model.generation_config.eos_token_id = 2
    return model.eval()


def test_is_the_dense_model_when_its_experts_are_silent(model, question):
    experts = [layer.mlp.experts.down_proj for layer in model.model.layers]
    saved = [values.detach().clone() for values in experts]
    try:
        for values in experts:
            values.data.zero_()
        ours = greedy(model, question, 32)
    finally:
        for values, original in zip(experts, saved):
            values.data.copy_(original)
    theirs = greedy(dense_oracle(), question, 32)
    assert len(theirs) == 32
    assert ours == theirs


def test_tokenizer_is_that_of_the_file(tokenizer):
    tokens = gguf.GGUFReader(demo_gguf()).fields["tokenizer.ggml.tokens"].contents()
    assert len(tokenizer) == len(tokens)
    assert tokenizer.convert_ids_to_tokens(list(range(len(tokens)))) == tokens
    for text in ["In 2024 it was 1,234.5", "naïve café\n\n  tab\tend", "e\u0301 stays as it is"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize("2024") == ["2", "0", "2", "4"]


def test_chat_template_is_chatml(tokenizer):
    text = tokenizer.apply_chat_template(
        [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}],
        tokenize=False, add_generation_prompt=True,
    )
    assert text == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.eos_token_id == 2 and tokenizer.bos_token_id == 1
