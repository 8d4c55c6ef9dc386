"""Texts that tokenizers trip over, from a seed."""

import random

SCRIPTS = [
    (0x41, 0x7A), (0xC0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x531, 0x587), (0x5D0, 0x5EA), (0x620, 0x6D3),
    (0x900, 0x97F), (0x980, 0x9FE), (0xB80, 0xBFF), (0xE01, 0xE5B), (0xF00, 0xFBC), (0x1000, 0x109F), (0x10A0, 0x10FF),
    (0x1100, 0x11FF), (0x1200, 0x137C), (0x13A0, 0x13FD), (0x1780, 0x17F9), (0x1800, 0x18AA), (0x1E00, 0x1FFF),
    (0x3041, 0x30FF), (0x3105, 0x312F), (0x4E00, 0x9FFF), (0xA000, 0xA48C), (0xAC00, 0xD7A3), (0xF900, 0xFAD9),
    (0x10330, 0x1034A), (0x1D400, 0x1D7FF), (0x1E900, 0x1E95F), (0x20000, 0x2FA1D), (0x10A0, 0x10C5),
]  # fmt: skip
MARKS = [(0x300, 0x36F), (0x483, 0x489), (0x591, 0x5BD), (0x64B, 0x65F), (0x93C, 0x94D), (0x1AB0, 0x1AFF),
         (0x1DC0, 0x1DFF), (0x20D0, 0x20F0), (0x3099, 0x309A), (0xFE00, 0xFE2F), (0x1D165, 0x1D172), (0x1E8D0, 0x1E8D6)]  # fmt: skip
SYMBOLS = [(0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E), (0xA1, 0xBF), (0x2010, 0x205E), (0x2100, 0x23FF),
           (0x2500, 0x27BF), (0x3001, 0x303F), (0xFF01, 0xFFEE), (0x1F300, 0x1FAFF)]  # fmt: skip
NUMBERS = [(0x30, 0x39), (0x660, 0x669), (0x966, 0x96F), (0x2070, 0x2089), (0x2150, 0x218B), (0x2460, 0x249B),
           (0x3021, 0x3029), (0x1D7CE, 0x1D7FF), (0x1F100, 0x1F10C), (0x10107, 0x10133)]  # fmt: skip
SPACES = [" ", " ", " ", "  ", "\n", "\n\n", "\r\n", "\r", "\t", "\v", "\f", "\x1c", "\x85", "\xa0", "\u1680", "\u180e",
          "\u2003", "\u2028", "\u2029", "\u200b", "\u202f", "\u205f", "\u3000", "\ufeff", " " * 7, "\n   ", "   \n"]  # fmt: skip
CONTRACTIONS = ["'s", "'S", "'\u017f", "'t", "'RE", "'ve", "'m", "'ll", "'Ll", "'d", "'x", "''", "\u2019s", "'", "\u212a'K"]
EMOJI = ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "1\ufe0f\u20e3",
         "\U0001f44d\U0001f3fd", "\u2764\ufe0f", "\U0001f3f4\U000e0067\U000e0062\U000e007f", "\u26a7"]  # fmt: skip
WORDS = ["the", "router", "Expert", "penstock", "int", "return", "cafe\u0301", "caf\u00e9", "\u00e9t\u00e9", "e\u0301te\u0301",
         "A\u030a", "\u212b", "\u1e9b\u0323", "q\u0307\u0323", "\u0958", "two words", "QQ", "xQQ", "unreachable", "zzzz",
         "\uac00\u11a8", "\u1100\u1161\u11a7", "\u1100\u1161\u11c2", "fi\ufb01", "stra\u00dfe", "\u0345\u0301", "ii", "aaaa"]  # fmt: skip
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_start", "<|", "|>", "<tool>", "<tool><x", "<l>", "<r>", "<b>",
          "<s\u00e9>", "<se\u0301>"]  # fmt: skip


def fuzzed_strings(seed, count, added=()):
    """`count` strings of 0 to some 40 parts: scripts, marks, symbols, numbers, spaces, emoji, words, added tokens."""
    generator = random.Random(seed)
    choice, randrange = generator.choice, generator.randrange
    added = list(added) or CHATML

    def some(ranges, most):
        first, last = choice(ranges)
        return "".join(chr(randrange(first, last + 1)) for _ in range(randrange(1, most)))

    def any_code_point():
        code_point = randrange(0x110000 - 0x800)
        return chr(code_point if code_point < 0xD800 else code_point + 0x800)

    parts = [
        lambda: some(SCRIPTS, 8), lambda: some(SCRIPTS[:1], 8), lambda: some(MARKS, 5), lambda: some(SYMBOLS, 4),
        lambda: some(NUMBERS, 6), lambda: some(NUMBERS[:1], 6), lambda: choice(SPACES), lambda: choice(SPACES),
        lambda: choice(SPACES) * randrange(1, 5), lambda: choice(CONTRACTIONS), lambda: choice(EMOJI), lambda: choice(WORDS),
        lambda: choice(WORDS) + " " + choice(WORDS), lambda: choice(CHATML), lambda: choice(added), any_code_point,
        lambda: chr(randrange(0x20)), lambda: chr(choice([0x7F, 0x80, 0x9F, 0x200C, 0x200D, 0x2060, 0xFFFD, 0xFFFF, 0x10FFFF])),
    ]  # fmt: skip
    for _ in range(count):
        length = randrange(40) if randrange(10) == 0 else randrange(10)
        yield "".join([choice(parts)() for _ in range(length)])


def every_code_point():
    """All of Unicode that may hold characters (planes 4 to 13 and the private ones have none; one block of each stands for
    them), beside letters, digits, symbols, spaces, and below plane 2 (beyond it are ideographs) beside marks and the added
    tokens <w>, <l>, <r>. 64 code points a text."""
    starts = [*range(0, 0xD800, 64), *range(0xE000, 0x40000, 64), *range(0x40000, 0x110000, 0x10000), *range(0xE0000, 0xE1000, 64)]
    for first in starts:
        if first >= 0x20000:
            yield "\n".join(f"a{c}a 1{c}1 !{c}! {c} <w>{c}" for c in map(chr, range(first, first + 64)))
            continue
        yield "\n".join(
            f"a{c}a 1{c}1 !{c}! {c} <w>{c} {c}<w> {c}<l><r>{c}! e{c}\u0301\u0327 \u0345{c}\u0334 \u1100{c} {c}\u0338"
            for c in map(chr, range(first, first + 64))
        )


def fuzzed_messages(seed, count):
    """Chats of one to six messages."""
    generator = random.Random(seed)
    texts = iter(list(fuzzed_strings(seed, count * 6)))
    roles = ["system", "user", "assistant", "tool"]
    for _ in range(count):
        yield [{"role": generator.choice(roles), "content": next(texts)} for _ in range(generator.randrange(1, 7))]
