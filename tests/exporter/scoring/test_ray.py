"""The same figures by Ray's actors, also when one is killed, and on nodes that have to fetch the artifact."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from gpt_export import scoring
from gpt_export.errors import SourceError
from gpt_export.scoring import ray_crew
from gpt_export.scoring.ray_crew import RayWorker
from gpt_export.scoring.settings import EngineSettings

from tests.exporter.scoring.test_score import PARTS, TEXTS


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ray on this machine, for all of these tests; the folder in which its nodes keep what they fetch."""
    cache = tmp_path_factory.mktemp("cache")
    root = str(Path(__file__).parents[3])
    environment = {
        "GPT_EXPORT_CACHE": str(cache),
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
    }
    ray.init(
        "local",
        num_cpus=2,
        _node_ip_address="127.0.0.1",
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        object_store_memory=80 << 20,
        runtime_env={"env_vars": environment},
    )
    yield cache
    ray.shutdown()


def scored(artifact: Path, texts: Any = TEXTS, **said: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    scores = scoring.score(artifact, texts, **(PARTS | said))
    return list(scores), scores.summary()


def test_actors_give_the_figures_of_one_process(byte_original: Path, cluster: Path) -> None:
    plain = scored(byte_original, engine="inline")
    assert scored(byte_original, engine="ray", workers=2) == plain
    shipped = EngineSettings(engine="ray", workers=1, ship=True)
    assert scored(byte_original, engine=shipped) == plain
    assert [path.name for path in cluster.iterdir() if (path / "manifest.json").exists()] == [
        str(plain[1]["settings"]["digest"])
    ]


class Mortal(RayWorker):
    """An actor that says which process it is."""

    def work(self, rows: Any) -> Any:
        kind, value = super().work(rows)
        first = Path(os.environ["GPT_EXPORT_CACHE"]) / "killed"
        if not first.exists():  # the work is done, and lost
            first.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return kind, value


def test_an_actor_that_is_killed_is_replaced(
    byte_original: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_crew, "RayWorker", Mortal)
    assert scored(byte_original, engine="ray", workers=2) == scored(byte_original, engine="inline")
    assert (cluster / "killed").exists()


@pytest.mark.usefixtures("cluster")
def test_a_refusal_comes_back_as_what_it_is(byte_original: Path) -> None:
    with pytest.raises(SourceError, match="'nothing' is neither a known source nor a path"):
        scored(byte_original, engine="ray", workers=1, against="nothing")


@pytest.mark.usefixtures("cluster")
def test_ray_data_can_use_the_class(byte_original: Path) -> None:
    dataset = ray.data.from_items([{"text": text} for text in TEXTS[:6]])
    found = dataset.map_batches(
        scoring.BatchScorer, fn_constructor_kwargs={"artifact": str(byte_original)}, batch_size=3, concurrency=1
    ).take_all()
    plain, _ = scored(byte_original, TEXTS[:6], engine="inline")
    assert sorted(one["nll"] for one in found) == pytest.approx(sorted(one["nll"] for one in plain), rel=1e-5)
