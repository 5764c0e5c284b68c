"""Loading images by description."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import watermark_training.data as data_module
from ownership.errors import DataError
from watermark_training.data import load_data


def test_digits_are_uint8_and_labelled() -> None:
    d = load_data("digits")
    assert d.images.shape == (1797, 1, 16, 16)
    assert d.images.dtype == torch.uint8
    assert d.images.max() > 200
    assert d.labels is not None
    assert set(d.labels.tolist()) == set(range(10))


def test_slices_and_sizes() -> None:
    whole, part = load_data("digits"), load_data("digits[100:150]", size=8)
    assert len(part) == 50
    assert part.images.shape[-1] == 8
    torch.testing.assert_close(load_data("digits[100:150]").images, whole.images[100:150])


@pytest.mark.parametrize("channels_last", [True, False])
def test_npz(tmp_path: Path, channels_last: bool) -> None:
    x = np.random.default_rng(0).integers(0, 255, (5, 3, 12, 10), dtype=np.uint8)
    np.savez(tmp_path / "Bilder mit Ä.npz", x=x.transpose(0, 2, 3, 1) if channels_last else x, y=np.arange(5))
    d = load_data(str(tmp_path / "Bilder mit Ä.npz") + "[:4]")
    np.testing.assert_array_equal(d.images.numpy(), x[:4])
    assert d.labels is not None
    assert d.labels.tolist() == [0, 1, 2, 3]


def test_image_folder_of_classes(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for i in range(2):
            Image.new("RGB", (12, 12), (i, 20, 30)).save(tmp_path / label / f"{i}.png")
    d = load_data(str(tmp_path))
    assert d.images.shape == (4, 3, 12, 12)
    assert d.labels is not None
    assert d.labels.tolist() == [0, 0, 1, 1]


def test_mixed_modes_become_rgb_and_mixed_sizes_need_size(tmp_path: Path) -> None:
    for i, mode in enumerate(("L", "RGBA", "P")):
        Image.new(mode, (12 + i, 12)).save(tmp_path / f"{i}.png")
    with pytest.raises(DataError, match="others are 12x12") as e:
        load_data(str(tmp_path))
    assert "--size" in e.value.hint
    assert load_data(str(tmp_path), size=10).images.shape == (3, 3, 10, 10)


def test_fashion_mnist_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The IDX format, on a file of three images of our own."""
    x = np.random.default_rng(0).integers(0, 255, (3, 28, 28), dtype=np.uint8)
    with gzip.open(tmp_path / "t10k-images-idx3-ubyte.gz", "wb") as f:
        f.write(struct.pack(">4i", 2051, 3, 28, 28) + x.tobytes())
    with gzip.open(tmp_path / "t10k-labels-idx1-ubyte.gz", "wb") as f:
        f.write(struct.pack(">2i", 2049, 3) + bytes([7, 8, 9]))
    monkeypatch.setattr(data_module, "DEBIAN_FASHION", tmp_path)
    d = load_data("fashion-mnist:test")
    np.testing.assert_array_equal(d.images[:, 0].numpy(), x)
    assert d.labels is not None
    assert d.labels.tolist() == [7, 8, 9]
    with pytest.raises(DataError, match="damaged or missing"):
        load_data("fashion-mnist:train")


def test_a_torchvision_set_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10's own file layout, made small; torchvision's integrity check is told its digests."""
    import pickle

    from torchvision import datasets

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = {"data": rng.integers(0, 255, (4, 3072), dtype=np.uint8), "labels": [0, 1, 2, 3]}
    (folder / "test_batch").write_bytes(pickle.dumps(rows))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda self: None)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", ""]])
    monkeypatch.setenv("TURNMARK_DATA", str(tmp_path))
    d = load_data("cifar10:test[:3]")
    np.testing.assert_array_equal(d.images.numpy(), rows["data"].reshape(4, 3, 32, 32)[:3])
    assert d.labels is not None
    assert d.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("no/such/folder", "not a folder"),
        ("missing.npz", "does not exist"),
        ("digits[5:5]", "slice"),
        ("digits[:99999]", "slice"),
    ],
)
def test_what_is_not_there_is_said(description: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_data(description)


def test_bad_files_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"not a zip")
    with pytest.raises(DataError, match="not a readable"):
        load_data(str(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", x=np.zeros((3, 9, 9)))
    with pytest.raises(DataError, match="float64"):
        load_data(str(tmp_path / "b.npz"))
    np.savez(tmp_path / "c.npz", z=np.zeros(3))
    with pytest.raises(DataError, match="no array x"):
        load_data(str(tmp_path / "c.npz"))
    np.savez(tmp_path / "d.npz", x=np.array([{}], dtype=object))
    with pytest.raises(DataError):
        load_data(str(tmp_path / "d.npz"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        load_data(str(tmp_path / "empty"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match="not a readable image"):
        load_data(str(tmp_path / "broken"))
