"""The folder of the auditor's own encoders: what is taken, with which notes, and what is named as left out."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.encoders import encoder

import ownership.suspects.suspect as module
from cli.suspects import say_left_out
from ownership.errors import SuspectError
from ownership.suspects.suspect import left_out_of, load_encoder, load_folder

TAKEN = ["A.ONNX", "b.pth.tar", "c.Bin", "d.ckpt", "e.safetensors", "f.PT", "g.pth", "h.pt2"]
LEFT_OUT = ["README.md", "i.pth.sha256", "j.pkl", "k.tar", "onnx"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in [*TAKEN, *LEFT_OUT, "A.txt", "b.txt", "NOTES.TXT", ".DS_Store", "._A.ONNX"]:
        (tmp_path / name).write_text(f"this is {name}")
    return tmp_path


def test_every_encoder_is_taken_with_its_note(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_suspect", lambda path: SimpleNamespace(name=path.name, pause=lambda: None))
    found = load_folder(folder)
    assert [suspect.name for suspect, _ in found] == TAKEN
    assert [note for _, note in found] == ["this is A.txt", "this is b.txt", *[""] * 6]


def test_what_is_left_out_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert left_out_of(folder) == LEFT_OUT
    say_left_out(folder)
    err = " ".join(capsys.readouterr().err.split())
    assert err == f"note: --auditor-panel: 5 files left out, no encoders by their names: {', '.join(LEFT_OUT)}"
    for name in LEFT_OUT:
        (folder / name).unlink()
    say_left_out(folder)
    say_left_out(None)
    assert capsys.readouterr().err == ""


def test_a_folder_without_encoders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("none")
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SuspectError, match="contains no encoders"):
            load_folder(folder)
        assert left_out_of(folder) == (["README.md"] if folder == tmp_path else [])


@pytest.mark.parametrize("name", ["a.pth.tar", "a.bin", "a.ckpt", "A.PTH"])
def test_the_names_that_are_taken_can_be_opened(name: str, tmp_path: Path) -> None:
    """The format is detected from the content."""
    buffer = io.BytesIO()
    torch.save({"state_dict": encoder(3).state_dict()}, buffer)
    (tmp_path / name).write_bytes(buffer.getvalue())
    assert load_encoder(tmp_path / name).format == "pytorch"
