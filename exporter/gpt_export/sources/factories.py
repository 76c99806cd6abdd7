"""`package.module:factory` to a module: the user's code is imported and called, and its failures are told."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from gpt_export_models.json_files import read_json_object
from torch import nn

from gpt_export.errors import SourceError
from gpt_export.sources.places import blame


class Settings(dict[str, Any]):
    """A configuration that answers to `config["n_layer"]` and to `config.n_layer`, as its user's code likes it."""

    def __getattr__(self, name: str) -> Any:
        try:
            value = self[name]
        except KeyError as error:
            raise AttributeError(f"the configuration has no {name}") from error
        return Settings(value) if isinstance(value, dict) else value


def maker_of(spec: str, config_file: Path | None = None) -> Callable[[], nn.Module]:
    """A function that makes the module of `package.module:factory`, or hands out the one that is there.

    Args:
        config_file: JSON with what the factory takes: as keyword arguments, or as its one parameter, which becomes
            the type that it is annotated with, else a dict that answers to attributes too.

    Raises:
        SourceError: the name cannot be imported, or the configuration is nothing that it takes.
    """
    found = _imported(spec)
    if isinstance(found, nn.Module):
        if config_file is not None:
            raise SourceError(f"{spec} is a module already, which takes no configuration; leave {config_file} out")
        return lambda: found
    if not callable(found):
        raise SourceError(f"{spec} is a {type(found).__name__}, not a callable or a module; name a factory of modules")
    values = None if config_file is None else read_json_object(config_file)

    def make() -> nn.Module:
        with _told(spec):
            made = found() if values is None else _called(found, values)
        if not isinstance(made, nn.Module):
            raise SourceError(f"{spec} gives a {type(made).__name__}, not a torch.nn.Module; name a factory of modules")
        return made

    if values is None and (needed := _needed(found)):
        raise SourceError(
            f"{spec} needs arguments ({', '.join(needed)}); pass them as JSON with --config, or name a factory without"
        )
    return make


def made_once(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """What `make` returns, in eval mode, with torch's generator seeded before."""
    torch.manual_seed(seed)
    return make().eval()


def _imported(spec: str) -> Any:
    path, _, attribute = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is not None and (path == error.name or path.startswith(f"{error.name}.")):
            raise SourceError(
                f"{spec} cannot be imported: {error}; check the name, or the folder you are in"
            ) from error
        raise SourceError(f"{spec} cannot be imported: {blame(error)}; install what it needs") from error
    except (Exception, SystemExit) as error:  # the user's code
        raise SourceError(f"{spec} cannot be imported: {blame(error)}; mend that file first") from error
    try:
        for name in attribute.split("."):
            found = getattr(found, name)
    except AttributeError as error:
        raise SourceError(f"{spec} cannot be imported: {error}; check the name, or the folder you are in") from error
    return found


@contextlib.contextmanager
def _told(spec: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:  # the user's code
        raise SourceError(
            f"{spec} fails when it is called: {blame(error)}; name a factory that returns a module"
        ) from error


def _needed(factory: Callable[..., Any]) -> list[str]:
    """The parameters that have no default."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _called(factory: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return factory(**values)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    needed = _needed(factory)
    if (open_ended and len(needed) != 1) or values.keys() <= parameters.keys():
        return factory(**values)
    one = needed[0] if len(needed) == 1 else next(iter(parameters), None)
    if one is None or len(needed) > 1:
        unknown = ", ".join(sorted(values.keys() - parameters.keys()))
        raise TypeError(f"it takes {', '.join(parameters)}, and the configuration has {unknown}")
    return factory(**{one: _as_annotated(factory, one, values)})


def _as_annotated(factory: Callable[..., Any], name: str, values: Mapping[str, Any]) -> Any:
    """The configuration as the type of the parameter."""
    function = factory.__init__ if inspect.isclass(factory) else factory
    try:
        wanted = typing.get_type_hints(function).get(name)
    except Exception:  # annotations may name what is not there at run time
        wanted = None
    if dataclasses.is_dataclass(wanted) or (inspect.isclass(wanted) and not issubclass(wanted, Mapping | dict)):
        return typing.cast(Any, wanted)(**values)
    return Settings(values)
