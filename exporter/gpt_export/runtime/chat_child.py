"""The process in which a chat template is filled: a JSON object on stdin, another on stdout.

The environment is that of transformers' `apply_chat_template`: blocks are trimmed, `raise_exception`, `strftime_now`
and `tojson` are there, loops have `break` and `continue`. Source: `chat_template_utils.py` of transformers 5.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

MEMORY_BYTES = 2**30
CPU_SECONDS = 3
LONGEST = 4 * 2**20
"""Characters of a prompt; a context is shorter."""


def main() -> None:
    """Fills the template of stdin for each of its chats."""
    _limit()
    asked = json.load(sys.stdin)
    try:
        answer: dict[str, Any] = {"texts": [_filled(asked, chat) for chat in asked["chats"]]}
    except MemoryError:
        answer = {"error": "it takes more memory than it may"}
    except Exception as error:  # the template's own, in any way there is
        answer = {"error": f"{type(error).__name__}: {error}"[:500]}
    json.dump(answer, sys.stdout)


def _filled(asked: Mapping[str, Any], chat: list[dict[str, str]]) -> str:
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    template = environment.from_string(asked["template"])
    text = template.render(messages=chat, add_generation_prompt=True, tools=None, documents=None, **asked["tokens"])
    if len(text) > LONGEST:
        raise ValueError(f"it gives {len(text)} characters")
    return text


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise ValueError(message)


def _limit() -> None:
    """No more memory and time than a template needs, where the system can say so."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))


if __name__ == "__main__":
    main()
