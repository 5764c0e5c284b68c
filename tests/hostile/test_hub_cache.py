"""External data in the cache of a model hub: links to its own blobs are followed, every other link is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support import hostile_onnx
from support.warm_sandbox import Open, WarmSandbox

from ownership.suspects.formats.model_file import LoadOptions

EXTERNAL = LoadOptions(external_data=True)


def cache(root: Path, folder: str = "snapshots/0f1e", name: str = "models--someone--model") -> Path:
    """A model in a cache as huggingface_hub lays it out, and its weights; return the folder of links."""
    snapshot, blobs = root / name / folder, root / name / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "aa11").write_bytes(hostile_onnx.external(location="model.onnx_data"))
    (blobs / "bb22").write_bytes(hostile_onnx.weights_beside())
    up = "../" * (folder.count("/") + 1)
    (snapshot / "model.onnx").symlink_to(f"{up}blobs/aa11")
    (snapshot / "model.onnx_data").symlink_to(f"{up}blobs/bb22")
    return snapshot


@pytest.mark.parametrize("folder", ["snapshots/0f1e", "snapshots/0f1e/onnx"])
def test_links_into_the_blobs_are_followed(folder: str, open_hostile: Open, tmp_path: Path) -> None:
    model = cache(tmp_path, folder) / "model.onnx"
    outcome = open_hostile(model, EXTERNAL)
    assert outcome.exit_code == 1, outcome
    assert not outcome.problems
    assert "--external-data" in open_hostile(model).said  # without the option: no other file


def test_a_folder_of_links_and_an_absolute_link(open_hostile: Open, warm_sandbox: WarmSandbox, tmp_path: Path) -> None:
    snapshot = cache(tmp_path)
    (snapshot / "model.onnx_data").unlink()
    (snapshot / "model.onnx_data").symlink_to(snapshot.parents[1] / "blobs/bb22")
    assert open_hostile(snapshot, EXTERNAL).exit_code == 1
    assert sorted(warm_sandbox.copy.files) == ["model.onnx", "model.onnx_data"]


def _link(to: str) -> Callable[[Path], None]:
    def make(snapshot: Path) -> None:
        (snapshot / "model.onnx_data").unlink()
        (snapshot / "model.onnx_data").symlink_to(to)

    return make


def _linked_blob(snapshot: Path) -> None:
    blob = snapshot.parents[1] / "blobs/bb22"
    blob.rename(snapshot.parents[2] / "elsewhere")
    blob.symlink_to(snapshot.parents[2] / "elsewhere")


def _linked_blobs(snapshot: Path) -> None:
    blobs = snapshot.parents[1] / "blobs"
    blobs.rename(snapshot.parents[2] / "elsewhere")
    blobs.symlink_to(snapshot.parents[2] / "elsewhere")


def _hard_blob(snapshot: Path) -> None:
    os.link(snapshot.parents[1] / "blobs/bb22", snapshot.parents[2] / "hard")


def _pipe(snapshot: Path) -> None:
    blob = snapshot.parents[1] / "blobs/bb22"
    blob.unlink()
    os.mkfifo(blob)


def _below(snapshot: Path) -> None:
    below = snapshot.parents[1] / "blobs/below"
    below.mkdir()
    (below.parent / "bb22").rename(below / "bb22")
    _link("../../blobs/below/bb22")(snapshot)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_link("../../../secret"), "cannot be read"),
        (_link("../../blobs/../../secret"), "cannot be read"),
        (_link("/etc/hostname"), "cannot be read"),
        (_link("../0f1e/other"), "cannot be read"),
        (_linked_blob, "cannot be read"),
        (_linked_blobs, "cannot be read"),
        (_hard_blob, "not a regular file"),
        (_pipe, "not a regular file"),
        (_below, "cannot be read"),
    ],
    ids=["out", "through", "absolute", "beside", "linked blob", "linked blobs", "hard link", "pipe", "below"],
)
def test_other_links_of_a_cache_are_refused(
    change: Callable[[Path], None], said: str, open_hostile: Open, tmp_path: Path
) -> None:
    snapshot = cache(tmp_path)
    (tmp_path / "secret").write_bytes(hostile_onnx.weights_beside())
    (snapshot / "other").write_bytes(hostile_onnx.weights_beside())
    change(snapshot)
    outcome = open_hostile(snapshot / "model.onnx", EXTERNAL)
    assert outcome.exit_code == 2
    assert said in outcome.said


@pytest.mark.parametrize(("folder", "name"), [("versions/0f1e", "models--a--b"), ("snapshots/0f1e", "my-models")])
def test_no_cache_no_links(folder: str, name: str, open_hostile: Open, tmp_path: Path) -> None:
    outcome = open_hostile(cache(tmp_path, folder, name) / "model.onnx", EXTERNAL)
    assert outcome.exit_code == 2
    assert "cannot be read" in outcome.said
