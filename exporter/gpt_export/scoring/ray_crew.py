"""Ray's actors as workers, on one machine or many. Ray places, starts and notices the death of them; we give the work.

An actor finds the artifact on its node or fetches it there (`shipping`); rows and results are all that goes back and
forth, so texts and the tokenizer stay with the run.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from gpt_export.artifact.manifest import Manifest
from gpt_export.errors import ConfigError, EngineError, GptExportError
from gpt_export.scoring import extras
from gpt_export.scoring.dispatch import Event
from gpt_export.scoring.shipping import cache_folder, read_chunk, settle
from gpt_export.scoring.workers import cores

LOOPBACK = "127.0.0.1"
ANSWER_S = 5.0
"""How long a cluster's address may take to answer."""


class RayWorker:
    """What runs in an actor."""

    def __init__(self) -> None:
        self._work: Callable[[Sequence[Any]], Any] | None = None

    def open(self, setup: Any, manifest: str, shelf: Any, ship: bool) -> Any:
        """Gets ready; the refusal if it cannot, as a value, so that it comes back as what it is."""
        import ray

        try:
            said = Manifest.from_json(manifest, "the manifest")

            def fetch(path: str, offset: int) -> bytes:
                chunk: bytes = ray.get(shelf.read.remote(path, offset))
                return chunk

            folder = settle(setup.artifact, said, fetch, cache=cache_folder(), ship=ship)
            self._work = dataclasses.replace(setup, artifact=folder).open()
        except GptExportError as error:
            return ("refused", error)
        return ("ready", None)

    def work(self, rows: Sequence[Any]) -> Any:
        """The results of rows, or what went wrong."""
        assert self._work is not None
        try:
            return ("done", self._work(rows))
        except (MemoryError, Exception) as error:  # as in `local_worker`
            return ("failed", f"{type(error).__name__}: {' '.join(str(error).split())}")


class Shelf:
    """Hands out the artifact's files, from the node where they are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, path: str, offset: int) -> bytes:
        """See `shipping.Fetch`."""
        return read_chunk(self._folder, path, offset)


class RayCrew:
    """So many actors, kept at that number. See `Crew`."""

    def __init__(self, setup: Any, manifest: Manifest, workers: int, *, ship: bool = False) -> None:
        self._ray = extras.ray("--engine ray")
        self._actor = self._ray.remote(num_cpus=setup.threads, max_restarts=0, max_task_retries=0)(RayWorker)
        shelf = self._ray.remote(num_cpus=0, scheduling_strategy=self._here())(Shelf).remote(setup.artifact)
        self._opening = (self._ray.put(setup), manifest.to_json(), shelf, ship)
        self._shelf = shelf
        self._ready: dict[int, Any] = {}
        self._asked: dict[Any, tuple[int, Any]] = {}
        self._false_starts = self._started = 0
        for _ in range(workers):
            self._start()

    def idle(self) -> list[Hashable]:
        """See `Crew.idle`."""
        busy = {number for number, _ in self._asked.values()}
        return [number for number in self._ready if number not in busy]

    def give(self, worker: Hashable, rows: Sequence[Any]) -> None:
        """See `Crew.give`."""
        actor = self._ready[worker]  # type: ignore[index]
        self._asked[actor.work.remote(rows)] = (worker, actor)  # type: ignore[assignment]

    def wait(self) -> list[Event]:
        """See `Crew.wait`."""
        done, _ = self._ray.wait(list(self._asked), num_returns=1)
        return [event for one in done if (event := self._heard(one))]

    def close(self) -> None:
        """See `Crew.close`."""
        for actor in {
            id(actor): actor for actor in (*self._ready.values(), *(a for _, a in self._asked.values()))
        }.values():
            self._ray.kill(actor)
        self._ray.kill(self._shelf)

    def _here(self) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)

    def _start(self) -> None:
        actor = self._actor.remote()
        self._started += 1
        self._asked[actor.open.remote(*self._opening)] = (self._started, actor)

    def _heard(self, answer: Any) -> Event | None:
        number, actor = self._asked.pop(answer)
        try:
            kind, value = self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            return self._replace(number, error)
        if kind == "ready":
            self._ready[number], self._false_starts = actor, 0
            return None
        if kind == "refused":
            raise value
        return Event(number, results=value) if kind == "done" else Event(number, fault=value)

    def _replace(self, number: int, error: Exception) -> Event:
        how = _first_line(error)
        if self._ready.pop(number, None) is None:
            self._false_starts += 1
            if self._false_starts >= 3 * max(1, len(self._asked)):
                raise EngineError(f"Ray's workers end before they are ready: {how}; look at the cluster's own logs")
        self._start()
        return Event(number, fault=how, dead=True)


def connect(address: str | None, what: str = "--engine ray") -> tuple[Any, bool]:
    """The module `ray`, connected, and whether that was done here and is to be undone.

    Raises:
        ConfigError: Ray is not installed.
        EngineError: there is no cluster at the address.
    """
    ray = extras.ray(what)
    if ray.is_initialized():
        return ray, False
    quiet = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address is None:
            # Left out, the address would be that of whatever cluster was started last on this machine.
            ray.init("local", num_cpus=cores(), _node_ip_address=LOOPBACK, include_dashboard=False, **quiet)
        else:
            _check_answers(address)
            node = {"_node_ip_address": LOOPBACK} if address.startswith(LOOPBACK) else {}
            ray.init(address=address, **node, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as error:
        where = f"at {address}" if address else "on this machine"
        raise EngineError(
            f"no Ray cluster {where} can be had: {_first_line(error)}; see `ray status`, or use --engine local"
        ) from error
    return ray, True


def cluster_workers(ray: Any, workers: int | None, threads: int | None) -> tuple[int, int]:
    """Workers and the threads of each, of what the cluster has."""
    there = max(1, int(ray.cluster_resources().get("CPU", 1)))
    count = workers or max(1, there // (threads or 1))
    return count, threads or max(1, there // count)


def _check_answers(address: str) -> None:
    """Refuses an address where nobody listens: Ray itself tries for minutes.

    Raises:
        ConfigError: it is no address.
        ConnectionError: nobody answers.
    """
    if address == "auto" or "://" in address:
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"{address!r} is not the address of a Ray cluster; pass one such as 127.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"nothing answers there ({error})") from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}" + (f", {lines[0]}" if lines else "")
