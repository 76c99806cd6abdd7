"""What `inspect_path` found, for a person: sentences, layers collapsed, sizes below one another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MOST_OPERATORS = 8
"""The rest of the operators are counted together."""
KINDS = ("inputs", "outputs")
_LAYERED = re.compile(r"(?P<head>.*\.)(?P<layer>\d+)(?P<tail>\..+)")


def inspection_text(found: Mapping[str, Any]) -> str:
    """The values of `inspect_path` in lines that fit 80 columns where the names do."""
    lines = [*_artifact(found)]
    first: Mapping[str, Any] | None = None
    for name, graph in found["graphs"].items():
        lines += ["", *_graph(name, graph)]
        if first and all(graph[kind] == first[kind] for kind in KINDS):
            lines.append(f"  inputs and outputs as those of {next(iter(found['graphs']))}")
        else:
            lines += _signature(graph)
        first = first or graph
    lines += ["", *_files(found)]
    if found.get("model_digest"):
        lines += ["", f"model digest {found['model_digest']}"]
    return "\n".join(lines).strip()


def _artifact(found: Mapping[str, Any]) -> Iterator[str]:
    if "name" not in found:
        return
    model, source = found["model"], found["source"]
    verdict = {True: "passed", False: "FAILED", None: "was not compared"}[found["parity_passed"]]
    yield f"{verdict}  {found['name']}, made from {_origin(source)}."
    shape = model.get("configuration") or {}
    layers = [_count(shape[key], noun) for key, noun in (("n_layers", "layer"), ("n_heads", "head")) if key in shape]
    said = [*layers, f"a vocabulary of {model['vocab_size']:,}", f"a context of {model['context_length']:,}"]
    tokenizer = {None: "no tokenizer", "gpt2": "GPT-2's tokenizer", "carried": "the checkpoint's tokenizer"}
    said.append(tokenizer.get(model["tokenizer"], f"the tokenizer {model['tokenizer']}"))
    yield f"It has {', '.join(said[:-1])} and {said[-1]}."
    if (judge := model.get("judged_against")) and found["parity_passed"] is not None:
        yield f"It was judged against {judge}."
    yield from (f"Note: {note}." for note in model.get("notes", ()))


def _origin(source: Mapping[str, Any]) -> str:
    kind, name = source.get("kind"), source.get("factory") or source.get("name") or source.get("class")
    if kind == "seeded":
        return f"{name} with weights drawn from seed {source.get('seed')}"
    if kind == "checkpoint":
        return f"the checkpoint {name} ({source.get('family')})"
    if kind == "transformers":
        return f"the transformers folder {name} ({source.get('model_type')})"
    weights = f" on the weights of {source['weights']}" if source.get("weights") else ""
    return f"the module {name}{weights}"


def _graph(name: str, graph: Mapping[str, Any]) -> Iterator[str]:
    opsets = ", ".join(f"{domain} {version}" for domain, version in graph["opsets"].items())
    weights, operators = graph["weights"], graph["operators"]
    where = f" in {', '.join(weights['external'])}" if weights["external"] else ""
    yield f"{name}: opset {opsets}; IR {graph['ir_version']}; written by {graph['producer']}"
    yield f"  {_count(weights['count'], 'weight')} of {weights['size_bytes'] / 1e6:,.1f} MB{where}"
    often = sorted(operators.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{count} {operator.removeprefix('com.microsoft.')}" for operator, count in often[:MOST_OPERATORS]]
    rest = sum(count for _, count in often[MOST_OPERATORS:])
    told += [f"and {rest} of {_count(len(often) - MOST_OPERATORS, 'more kind')}"] if rest else []
    yield f"  {_count(sum(operators.values()), 'node')}: {', '.join(told)}"


def _signature(graph: Mapping[str, Any]) -> Iterator[str]:
    for kind in KINDS:
        yield f"  {kind}"
        yield from (f"    {line}" for line in collapsed(graph[kind]))


def collapsed(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a value, those of one kind that differ in their layer alone on one line: `past.0…11.key, .value`."""
    groups: dict[tuple[str, str, str], tuple[list[int], list[str]]] = {}
    order: list[tuple[str, str, str]] = []
    for value in values:
        found = _LAYERED.fullmatch(value["name"])
        head, layer, tail = (found["head"], int(found["layer"]), found["tail"]) if found else (value["name"], -1, "")
        key = (head, value["dtype"], f"[{', '.join(map(str, value['dims']))}]")
        if key not in groups:
            groups[key] = ([], [])
            order.append(key)
        layers, tails = groups[key]
        layers += [layer] if layer >= 0 and layer not in layers else []
        tails += [tail] if tail and tail not in tails else []
    return [f"{key[0]}{_layers(*groups[key])}: {key[1]} {key[2]}" for key in order]


def _layers(layers: Sequence[int], tails: Sequence[str]) -> str:
    if not layers:
        return ""
    together = list(layers) == list(range(layers[0], layers[-1] + 1))
    span = f"{layers[0]}…{layers[-1]}" if together and len(layers) > 1 else ",".join(map(str, layers))
    return f"{span}{', '.join(tails)}"


def _files(found: Mapping[str, Any]) -> list[str]:
    measured = found.get("measured") or ()
    width = max(map(len, found["files"]), default=0)
    return [
        f"{path:<{width}}  {_size(entry['size_bytes']):>10}  {entry['sha256'][:12]}…"
        + ("  measured" if path in measured else "")
        for path, entry in found["files"].items()
    ]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:,.1f} kB"
