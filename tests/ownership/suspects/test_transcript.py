"""The transcript of an endpoint: what it holds, damage, one writer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.encoders import encoder
from support.http_server import serving

from ownership.encoders.images import represent
from ownership.errors import SuspectError
from ownership.io.canonical import canonical_json, sha256
from ownership.suspects.endpoint.client import RemoteEncoder
from ownership.suspects.endpoint.transcript import CachedEndpoint, Transcript
from watermark_training.data import Data


@pytest.fixture
def images(digits: Data) -> torch.Tensor:
    return digits.images


def _answered(tmp_path: Path, digits: torch.Tensor) -> tuple[Path, RemoteEncoder]:
    folder = tmp_path / "t"
    with serving(encoder(1)) as (_, url):
        remote = RemoteEncoder(url=url, batch_size=8)
        represent(CachedEndpoint(remote, Transcript(folder, remote)), digits[:16])
    return folder, remote


def test_what_a_transcript_holds(images: torch.Tensor, tmp_path: Path) -> None:
    folder, _remote = _answered(tmp_path, images)
    assert sorted(p.name for p in folder.iterdir()) == ["000000.safetensors", "000001.safetensors", "transcript.json"]
    about = json.loads((folder / "transcript.json").read_text())
    assert set(about) == {"format", "host", "api", "model", "address_sha256"}
    first = load_file(folder / "000000.safetensors")
    assert {k: tuple(v.shape) for k, v in first.items()} == {
        "images": (8, 32),
        "occurrences": (8,),
        "rows": (8, 64),
        "request_sha256": (32,),
        "reply_sha256": (32,),
    }
    torch.testing.assert_close(first["rows"], represent(encoder(1), images[:8]), atol=1e-5, rtol=1e-5)


def test_its_digest_is_of_all_files(images: torch.Tensor, tmp_path: Path) -> None:
    folder, remote = _answered(tmp_path, images)
    expected = sha256(canonical_json({p.name: sha256(p.read_bytes()) for p in folder.iterdir()}))
    assert Transcript(folder, remote).sha256 == expected


def _truncate(folder: Path) -> None:
    path = folder / "000001.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def _foreign(folder: Path) -> None:
    (folder / "000001.safetensors").write_bytes(
        (folder / "000000.safetensors").read_bytes().replace(b"occurrences", b"occurrencez")
    )


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut off": (_truncate, "000001.safetensors is damaged"),
    "other tensors": (_foreign, "000001.safetensors is damaged"),
    "no head": (lambda f: (f / "transcript.json").unlink(), "is no transcript"),
    "head is no json": (lambda f: (f / "transcript.json").write_bytes(b"{"), "not valid JSON"),
    "another endpoint": (lambda f: (f / "transcript.json").write_bytes(b"{}"), "answers of another endpoint"),
}


@pytest.mark.parametrize("name", sorted(DAMAGED))
def test_a_damaged_transcript_is_one_clear_line(name: str, images: torch.Tensor, tmp_path: Path) -> None:
    folder, remote = _answered(tmp_path, images)
    change, said = DAMAGED[name]
    change(folder)
    with pytest.raises(SuspectError, match=said) as e:
        Transcript(folder, remote)
    assert e.value.hint


def test_two_audits_do_not_write_into_one_transcript(images: torch.Tensor, tmp_path: Path) -> None:
    with serving(encoder(1)) as (_, url):
        remote = RemoteEncoder(url=url)
        one, two = (CachedEndpoint(remote, Transcript(tmp_path / "t", remote)) for _ in range(2))
        represent(one, images[:4])
        with pytest.raises(SuspectError, match="another audit writes into"):
            represent(two, images[4:8])


def test_what_a_killed_audit_left_is_no_obstacle(images: torch.Tensor, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/.transcript.json.x7d").write_bytes(b"{")
    assert len(_answered(tmp_path, images)[0].name) == 1
