"""Settings to workers that are ready to be given work. The artifact is verified once on each machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from gpt_export.artifact.reading import Artifact
from gpt_export.scoring.dispatch import Crew
from gpt_export.scoring.inline import InlineCrew
from gpt_export.scoring.local import LocalCrew
from gpt_export.scoring.settings import EngineSettings
from gpt_export.scoring.workers import free_memory, local_workers, prepacks, weights_bytes


@contextlib.contextmanager
def open_crew(
    artifact: Artifact,
    variants: tuple[str | None, ...],
    settings: EngineSettings,
    make_setup: Callable[[int, bool], Any],
) -> Iterator[Crew]:
    """The workers, ended when they are no longer needed.

    Args:
        artifact: what they run.
        variants: which of its graphs they run.
        make_setup: a worker's setup from its threads and whether it prepacks.

    Raises:
        ArtifactError: the artifact is damaged.
        ConfigError, EngineError: Ray is not installed, or its cluster cannot be had.
    """
    size = weights_bytes(artifact, variants)
    if settings.engine == "ray":
        with _ray_crew(artifact, settings, make_setup, size) as crew:
            yield crew
        return
    artifact.verify()
    workers, threads, prepack = local_workers(settings, size, free_memory())
    setup = make_setup(threads, prepack)
    local: Crew = InlineCrew(setup) if settings.engine == "inline" else LocalCrew(setup, workers, threads)
    try:
        yield local
    finally:
        local.close()


@contextlib.contextmanager
def _ray_crew(
    artifact: Artifact, settings: EngineSettings, make_setup: Callable[[int, bool], Any], size: int
) -> Iterator[Crew]:
    from gpt_export.scoring.ray_crew import RayCrew, cluster_workers, connect

    ray, ours = connect(settings.address)
    try:
        workers, threads = cluster_workers(ray, settings.workers, settings.threads)
        nodes = max(1, sum(1 for node in ray.nodes() if node["Alive"]))
        prepack = prepacks(settings, -(-workers // nodes), size, free_memory())
        artifact.verify()  # what this machine hands out, or runs itself
        crew = RayCrew(make_setup(threads, prepack), artifact.manifest, workers, ship=settings.ship)
        try:
            yield crew
        finally:
            crew.close()
    finally:
        if ours:
            ray.shutdown()
