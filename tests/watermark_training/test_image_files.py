"""Picture files of every mode, good and bad, in folders and shards; packed, mapped and loaded they are the same."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ownership.errors import DataError
from watermark_training.data import load_data
from watermark_training.image_files import pack


def _picture(mode: str, size: int = 12, seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Grey, palette, transparent and coloured pictures in two classes."""
    for i, mode in enumerate(["RGB", "L", "RGBA", "P", "LA", "1"]):
        path = tmp_path / "photos" / ("cats" if i < 3 else "dogs") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_picture(mode, seed=i))
    return tmp_path / "photos"


def _shard(path: Path, parts: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_every_mode_becomes_three_channels(folder: Path) -> None:
    data = load_data(str(folder))
    assert data.images.shape == (6, 3, 12, 12)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    grey = data.images[1]
    assert torch.equal(grey[0], grey[1])


def test_packed_and_sharded_pictures_are_the_same(folder: Path, tmp_path: Path) -> None:
    wanted = load_data(str(folder)).images
    count, skipped = pack(folder, tmp_path / "x.npy", None)
    assert (count, skipped) == (6, [])
    mapped = load_data(str(tmp_path / "x.npy"))
    assert torch.equal(mapped.images, wanted)
    assert torch.equal(load_data(f"{tmp_path / 'x.npy'}[1:3]").images, wanted[1:3])
    files = sorted(folder.rglob("*.png"))
    (tmp_path / "shards").mkdir()
    for n, part in enumerate((files[:4], files[4:])):
        parts = {f"{p.stem}.png": p.read_bytes() for p in part} | {f"{p.stem}.cls": b"1" for p in part}
        _shard(tmp_path / "shards" / f"{n:03}.tar", parts)
    assert torch.equal(load_data(str(tmp_path / "shards")).images, wanted)
    assert torch.equal(load_data(str(tmp_path / "shards" / "000.tar")).images, wanted[:4])


@pytest.mark.parametrize("bad", [b"", b"no picture", _picture("RGB")[:60]])
def test_a_bad_picture_stops_or_is_skipped_and_counted(bad: bytes, folder: Path, tmp_path: Path) -> None:
    wanted = load_data(str(folder)).images
    (folder / "cats" / "1b.png").write_bytes(bad)
    with pytest.raises(DataError, match=r"1b\.png is not a readable image"):
        load_data(str(folder))
    with pytest.raises(DataError, match=r"1b\.png"):
        pack(folder, tmp_path / "x.npy", None)
    assert not list(tmp_path.glob("*.npy*"))
    data = load_data(str(folder), on_bad_image="skip")
    assert torch.equal(data.images, wanted)
    assert [Path(name).name for name in data.skipped] == ["1b.png"]
    assert pack(folder, tmp_path / "x.npy", None, on_bad_image="skip")[0] == 6
    assert torch.equal(load_data(str(tmp_path / "x.npy")).images, wanted)
    with pytest.raises(DataError, match="stop or skip"):
        load_data(str(folder), on_bad_image="ignore")  # type: ignore[arg-type]


def test_sizes_must_agree_or_be_named(folder: Path) -> None:
    (folder / "cats" / "wide.png").write_bytes(_picture("RGB", 20))
    with pytest.raises(DataError, match="20x20, others are 12x12"):
        load_data(str(folder))
    assert load_data(str(folder), size=16).images.shape == (7, 3, 16, 16)


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_bytes(b"x")
    (tmp_path / "torn.tar").write_bytes(b"x" * 600)
    (tmp_path / "flat.npy").write_bytes(b"\x93NUMPY nonsense")
    np.save(tmp_path / "real.npy", np.zeros((2, 3, 8, 8)))
    for path, said in (
        ("empty", "holds no images"),
        ("torn.tar", "not a readable shard"),
        ("absent.tar", "does not exist"),
        ("flat.npy", r"not a readable \.npy"),
        ("absent.npy", "does not exist"),
        ("real.npy", "float64"),
    ):
        with pytest.raises(DataError, match=said):
            load_data(str(tmp_path / path))
    with pytest.raises(DataError, match="none of the 1 files"):
        load_data(str(tmp_path / "bad"), on_bad_image="skip")
    with pytest.raises(DataError, match="none of the 1 files"):
        pack(tmp_path / "bad", tmp_path / "x.npy", None, on_bad_image="skip")
