"""The probe folder: pictures that say nothing, decoys, and a folder that was changed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.encoders import SIDE
from support.recorded import pictures

from ownership.auditing.probe_export import DECOY_SHARE, export_probes
from ownership.claims.claim import Claim
from ownership.encoders.images import pixel_digests, png_bytes, three_channels
from ownership.errors import DataError, OwnershipError, SuspectError
from ownership.evidence.querying import n_repeats
from ownership.suspects.recorded.probe_folder import read_probe_folder


def test_every_question_is_a_picture_and_some_are_decoys(claim: Claim, probes: Path) -> None:
    images = torch.cat([three_channels(s) for s in claim.probes.values()])
    seen = Counter(pixel_digests(pictures(probes)))
    session = Counter(pixel_digests(images))
    twice = n_repeats(len(images), claim.plan)
    assert all(seen[d] >= n for d, n in session.items())
    assert sum(seen[d] for d in session) == len(images) + twice
    decoys = {d: n for d, n in seen.items() if d not in session}
    assert len(decoys) == pytest.approx(DECOY_SHARE * len(images), rel=0.1)
    assert max(decoys.values()) == 2  # being there twice does not tell a probe from a decoy
    folder = read_probe_folder(probes)
    assert list(folder.digests) == pixel_digests(pictures(probes))


def test_the_folder_says_nothing_about_a_picture(claim: Claim, probes: Path, tmp_path: Path) -> None:
    """Names are numbers, the order is fresh, sets lie spread evenly, and the texts name none of them."""
    manifest = json.loads((probes / "manifest.json").read_text())
    assert set(manifest) == {"format", "count", "height", "width", "return", "files"}
    assert sorted(p.name for p in probes.iterdir()) == [*sorted(manifest["files"]), "README.txt", "manifest.json"]
    words = (probes / "README.txt").read_text() + json.dumps({k: v for k, v in manifest.items() if k != "files"})
    for secret in ("private", "public", "watermark", "rotated", "decoy", "claim", claim.sha256 or "-----"):
        assert secret not in words.lower()
    export_probes(claim, tmp_path / "again")
    first, second = (pixel_digests(pictures(f)) for f in (probes, tmp_path / "again"))
    assert sum(a == b for a, b in zip(first, second, strict=False)) < 0.02 * len(first)
    times = [(probes / name).stat().st_mtime_ns for name in manifest["files"]]
    assert times == sorted(times)  # they follow the names, and nothing else
    for images in claim.probes.values():
        mine = set(pixel_digests(images))
        places = [i for i, d in enumerate(first) if d in mine]
        error = len(first) / (12 * len(places)) ** 0.5
        assert abs(np.mean(places) - (len(first) - 1) / 2) < 5 * error
    with pytest.raises(OwnershipError, match="exists already"):
        export_probes(claim, probes)


def test_decoys_of_ones_own(claim: Claim, tmp_path: Path) -> None:
    own = torch.randint(0, 256, (5, 3, SIDE, SIDE), dtype=torch.uint8)
    few = replace(claim, probes={"public": claim.probes["public"][:80]})
    export_probes(few, tmp_path / "probes", own)
    seen = set(pixel_digests(pictures(tmp_path / "probes")))
    assert set(pixel_digests(own)) <= seen
    with pytest.raises(DataError, match="decoys of 8x8 pixels, probes of 16x16"):
        export_probes(few, tmp_path / "other", own[..., :8, :8])


def _no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _edit(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def _swap(folder: Path) -> None:
    a, b = folder / "000000.png", folder / "000001.png"
    first = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(first)


def _other_picture(side: int, data: bytes | None = None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        from ownership.io.canonical import sha256

        picture = data or png_bytes(torch.zeros(3, side, side, dtype=torch.uint8))
        (folder / "000000.png").write_bytes(picture)
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["files"]["000000.png"] = sha256(picture)
        path.write_text(json.dumps(manifest))

    return change


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no manifest": (_no_manifest, "is no probe folder"),
    "no json": (lambda f: (f / "manifest.json").write_bytes(b"[" * 5000) and None, "not valid JSON"),
    "other format": (_edit(format="x\x1b[31m"), r"of format x\\x1b"),
    "count": (_edit(count=10**12), "malformed"),
    "count is true": (_edit(count=True), "malformed"),
    "no files": (_edit(files=None), "malformed"),
    "paths": (_edit(files={"../secret.png": "0" * 64}, count=1), "malformed"),
    "picture missing": (lambda f: (f / "000001.png").unlink(), "does not exist"),
    "pictures swapped": (_swap, "000000.png does not match manifest.json"),
    "other size": (_other_picture(32), "no RGB picture of 16x16"),
    "no picture": (_other_picture(0, b"\x89PNG\r\n\x1a\nrest"), "no PNG picture"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_probe_folder_is_one_clear_line(name: str, claim: Claim, tmp_path: Path) -> None:
    few = replace(claim, probes={"public": claim.probes["public"][:20]}, plan=replace(claim.plan, repeat_share=0.0))
    export_probes(few, tmp_path / "probes")
    change, said = BROKEN[name]
    change(tmp_path / "probes")
    with pytest.raises(SuspectError, match=said) as e:
        read_probe_folder(tmp_path / "probes")
    assert e.value.hint
    assert "\x1b" not in e.value.message
