"""Class names in a TorchScript archive that depend on its module alone.

torch tells apart classes of one name by a number that counts what the process has compiled before
(`___torch_mangle_N`), and files each class by its name. Here the numbers follow from the order in which the module's
own objects name their classes. Local variables, which torch numbers by the file that a class happened to land in, are
numbered by method.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from itertools import count

_MANGLE = re.compile(rb"\.___torch_mangle_\d+")
_IN_PICKLE = re.compile(rb"c(__torch__(?:\.\w+)*)\n(\w+)\n")
_IN_CODE = re.compile(rb"__torch__(?:\.\w+)+")
_DEFINITION = re.compile(rb"^(?= *def )", re.MULTILINE)
_ASSIGNED = re.compile(r"^ +((?:\w+, )*\w+),? (?:=|: .* =) |^ +for (\w+) in ", re.MULTILINE)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_TOP_LEVEL = re.compile(rb"^(?=(?:class|def) )", re.MULTILINE)


def canonical_names(pickled: bytes, code: Mapping[str, bytes]) -> dict[bytes, bytes]:
    """By qualified name in the archive, the name that it gets.

    Args:
        pickled: `data.pkl`, whose objects name their classes in the order of the module's own parts.
        code: source by path in the archive, such as `code/__torch__/models/gpt_export_models/dummy.py`.
    """
    named = [b".".join(match) for match in _IN_PICKLE.findall(pickled)]
    defined = [name for path in sorted(code) for name in _definitions(path, code[path])]
    taken: set[bytes] = set()
    numbers = count()
    names = {}
    for name in dict.fromkeys([*named, *defined]):
        plain = _MANGLE.sub(b"", name)
        if plain in taken:
            module, _, last = plain.rpartition(b".")
            plain = b"%s.___torch_mangle_%d.%s" % (module, next(numbers), last)
        taken.add(plain)
        names[name] = plain
    return names


def rename_pickle(pickled: bytes, names: Mapping[bytes, bytes]) -> bytes:
    """`data.pkl` with its classes renamed; they stand there as lines, so that lengths may change."""

    def renamed(match: re.Match[bytes]) -> bytes:
        module, _, last = names[b".".join(match.groups())].rpartition(b".")
        return b"c%s\n%s\n" % (module, last)

    return _IN_PICKLE.sub(renamed, pickled)


def rename_code(code: Mapping[str, bytes], names: Mapping[bytes, bytes]) -> dict[str, bytes]:
    """The sources with their classes renamed, each filed under its new name, in the order of `names`."""
    blocks: dict[bytes, bytes] = {}
    for path, text in code.items():
        for name, block in zip(_definitions(path, text), _blocks(text), strict=True):
            blocks[name] = _rename_locals(_IN_CODE.sub(lambda match: names.get(match[0], match[0]), block))
    files: dict[str, list[bytes]] = {}
    for old, new in names.items():
        if old in blocks:
            files.setdefault(f"code/{new.rpartition(b'.')[0].decode().replace('.', '/')}.py", []).append(blocks[old])
    return {path: b"".join(files[path]) for path in sorted(files)}


def _definitions(path: str, text: bytes) -> list[bytes]:
    module = path.removeprefix("code/").removesuffix(".py").replace("/", ".").encode()
    return [b"%s.%s" % (module, re.split(rb"[(:]", block.split(b" ", 1)[1], maxsplit=1)[0]) for block in _blocks(text)]


def _blocks(text: bytes) -> list[bytes]:
    return [block for block in _TOP_LEVEL.split(text) if block]


def _rename_locals(block: bytes) -> bytes:
    """A class or function with the variables of each method called `v0`, `v1`, ...; parameters keep their names."""
    return b"".join(
        _rename_in_method(part.decode()).encode() if part.lstrip().startswith(b"def ") else part
        for part in _DEFINITION.split(block)
    )


def _rename_in_method(method: str) -> str:
    header, _, body = method.partition(":\n")
    parameters = set(re.findall(r"\w+", header))
    assigned = [name for match in _ASSIGNED.finditer(body) for name in (match[1] or match[2]).split(", ")]
    fresh = (name for i in count() if (name := f"v{i}") not in parameters)
    names = {name: next(fresh) for name in dict.fromkeys(assigned) if name not in parameters}
    lines = method.splitlines(keepends=True)
    for (row, start), name in reversed(list(_variables(method))):
        if name in names:
            line = lines[row - 1]
            lines[row - 1] = f"{line[:start]}{names[name]}{line[start + len(name) :]}"
    return "".join(lines)


def _variables(method: str) -> Iterator[tuple[tuple[int, int], str]]:
    """Places and names of what may be variables: no attributes, no keywords of a call, nothing in strings."""
    depth, before = 0, ""
    tokens = list(tokenize.generate_tokens(io.StringIO(_dedented(method)).readline))
    indent = len(method) - len(method.lstrip(" "))
    for token, after in zip(tokens, [*tokens[1:], tokens[-1]], strict=True):
        depth += (token.string in _OPENING) - (token.string in _CLOSING)
        keyword = depth > 0 and after.string == "="
        if token.type == tokenize.NAME and before != "." and not keyword:
            yield (token.start[0], token.start[1] + indent), token.string
        before = token.string


def _dedented(method: str) -> str:
    indent = " " * (len(method) - len(method.lstrip(" ")))
    return "".join(line.removeprefix(indent) for line in method.splitlines(keepends=True))
