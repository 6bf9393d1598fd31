"""Which language a text is in: by py3langid, whose model is in its wheel."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def detector() -> Any:
    """`detector().rank(text)` is a list of (ISO 639-1 code, share), the likeliest first."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # imported when needed: numpy and a model

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
