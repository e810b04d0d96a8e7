"""A text with what tokenizers treat apart, to find out whether two of them give the same ids."""

from __future__ import annotations

from typing import Any

PROBE = (
    "Two  blanks and   three,\ta tab.\n\nA paragraph:\n    indented, 4 blanks\r\n\n\n"
    "1234567890 3.14159 2026-01-31 1,000,000 0x1F 50% "
    "don't we'll I'M naïve façade Straße Ångström e\u0301 ﬁ Ⅷ ½ "
    "漢字とかな、한국어。 русский العربية हिन्दी ไทย "
    "🙂👍🏽👩‍👩‍👧 <tag attr='x'> a_b camelCase HTTPServer {\"k\": [1, -2]} #!/bin/sh == != -> «q» “q” … — \u00a0end "
)


def ids_of(tokenizer: Any, text: str = PROBE) -> list[int]:
    """Return the token ids of a text without special tokens, from a tokenizer of `tokenizers`.

    Raises ValueError, with the tokenizer's own message, for one that cannot encode every text.
    """
    try:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)
    except Exception as error:  # Rust's errors are plain exceptions
        raise ValueError(str(error).strip().partition("\n")[0]) from None
