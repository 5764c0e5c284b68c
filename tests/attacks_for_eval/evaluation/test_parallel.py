"""Work spread over processes: every task once, what is shared written once and taken away again."""

from __future__ import annotations

import operator
import pickle
from pathlib import Path

import pytest
import torch

from attacks_for_eval.evaluation.parallel import parallel_map
from watermark_training.data import Data


def _looks(folder: Path, name: str) -> tuple[str, list[int]]:
    """A task: what lies in the folder while it runs, as file modes."""
    return name, [path.stat().st_mode & 0o777 for path in folder.iterdir()]


def _relative(name: str, _task: int) -> str:
    """A task: what a relative path names."""
    return Path(name).read_text(encoding="utf-8")


@pytest.mark.heavy  # starts processes
def test_relative_paths_are_those_of_the_caller_in_workers_that_ran_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """joblib keeps its processes; theirs was the working directory of an earlier call."""
    for folder in (tmp_path / "earlier", tmp_path / "now"):
        folder.mkdir()
        (folder / "which").write_text(folder.name, encoding="utf-8")
        monkeypatch.chdir(folder)
        assert set(parallel_map(_relative, "which", range(4), folder=Path(), jobs=2)) == {folder.name}


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_task_is_done_with_what_is_shared(jobs: int, tmp_path: Path) -> None:
    out = list(parallel_map(operator.mul, 3, range(20), folder=tmp_path, jobs=jobs))
    assert sorted(out) == [3 * i for i in range(20)]


def test_what_is_shared_is_the_owners_alone_and_goes_with_the_last_task(tmp_path: Path) -> None:
    assert list(parallel_map(_looks, tmp_path, ["a", "b"], folder=tmp_path)) == [("a", [0o600]), ("b", [0o600])]
    assert not list(tmp_path.iterdir())


def test_it_goes_when_a_task_fails_too(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        list(parallel_map(operator.truediv, 1, [1, 0], folder=tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_part_of_the_images_is_pickled_without_the_rest() -> None:
    whole = torch.randint(0, 256, (1000, 3, 16, 16), dtype=torch.uint8)
    part = Data(name="some[10:30]", images=whole[10:30], labels=torch.arange(1000)[10:30], skipped=("x.png",))
    stored = pickle.dumps(part)
    assert len(stored) < 2 * part.images.nbytes
    back = pickle.loads(stored)
    assert torch.equal(back.images, part.images)
    assert back.labels is not None
    assert back.labels.tolist() == list(range(10, 30))
    assert (back.name, back.skipped) == (part.name, part.skipped)
