"""Texts on which two readings of a tokenizer are compared: what tokenizers are known to differ on."""

from __future__ import annotations

PROBES = (
    "",
    " ",
    "Hello world",
    " Hello  world ",
    "  two   three    spaces and\ttabs\n\nand lines\r\n",
    "don't we're I'LL 'S 12345 3.14 1,000 x^2+y_1",
    "naïve café \u00c5ngstr\u00f6m e\u0301 \ufb01 \u2460 \u00bd",
    "Привет мир, مرحبا, नमस्ते, 你好世界, こんにちは, 안녕하세요",
    "emoji \U0001f600\U0001f3fd\u200d\U0001f4bb and \u200b zero width \u00a0 no break \u3000 wide",
    "CamelCase snake_case kebab-case http://a.b/c?d=e&f#g user@example.com",
    "<s> </s> <unk> <pad> [CLS] [SEP] [PAD] [MASK] <|endoftext|> <|im_start|>user\n",
    "\u0000\u0001\u007f\ufffd control and replacement",
    "a" * 200,
    "def f(x):\n    return {'a': x[0]}  # comment\n",
)
