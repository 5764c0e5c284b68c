"""Pictures as people have them: of 16 bits, turned, huge, hidden, linked, in shards that are cut off or hold masks."""

from __future__ import annotations

import io
import shutil
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cli.inputs import check_images
from ownership.errors import DataError
from watermark_training.data import load_data
from watermark_training.image_files import pack


def _image(seed: int = 0, size: int = 12) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def _png(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    _image(seed).save(buffer, "PNG")
    return buffer.getvalue()


def _folder(path: Path, count: int = 3) -> Path:
    path.mkdir(parents=True)
    for i in range(count):
        (path / f"{i}.png").write_bytes(_png(i))
    return path


def _shard(path: Path, parts: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in parts:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


# values


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_scaled(suffix: str, tmp_path: Path) -> None:
    values = (np.arange(144).reshape(12, 12) * 458).astype(np.uint16)  # up to 65,494
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(values).save(path, "PPM" if suffix == "pgm" else None)
    images = load_data(str(tmp_path)).images
    assert images.unique().numel() > 100
    np.testing.assert_array_equal(images[0, 0].numpy(), np.rint(values / 257).astype(np.uint8))


def test_twelve_bits_are_scaled_by_their_own_range(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((12, 12), 4095, np.uint16))
    image.save(tmp_path / "a.tiff", tiffinfo={258: 16})
    data = (tmp_path / "a.tiff").read_bytes()
    assert load_data(str(tmp_path)).images.max() == 16
    from watermark_training.pictures import _largest_value

    with Image.open(io.BytesIO(data)) as opened:
        opened.tag_v2[258] = (12,)
        assert _largest_value(opened) == 4095


@pytest.mark.parametrize(("dtype", "said"), [("f4", "floating-point numbers"), ("i4", "32-bit numbers")])
def test_values_of_unknown_range_are_refused(dtype: str, said: str, tmp_path: Path) -> None:
    _folder(tmp_path / "x")
    Image.fromarray(np.full((12, 12), 0.5 if dtype == "f4" else 70_000, dtype)).save(tmp_path / "x" / "f.tiff")
    with pytest.raises(DataError, match=rf"f\.tiff holds {said}, whose range is unknown"):
        load_data(str(tmp_path / "x"))
    data = load_data(str(tmp_path / "x"), on_bad_image="skip")
    assert (len(data), len(data.skipped)) == (3, 1)


@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 3), (8, 1)])
@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_an_orientation_is_applied(orientation: int, turns: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    _image().save(tmp_path / f"a.{suffix}", exif=exif, **options)
    image = load_data(str(tmp_path)).images[0]
    assert torch.equal(image, torch.rot90(torch.from_numpy(np.array(_image())).permute(2, 0, 1), turns, (1, 2)))


def test_damaged_exif_does_not_damage_the_picture(tmp_path: Path) -> None:
    _image().save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert len(load_data(str(tmp_path))) == 1


def test_a_huge_picture_is_one_line_and_a_large_one_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    _folder(tmp_path / "large")  # 144 pixels: Pillow warns
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert len(load_data(str(tmp_path / "large"))) == 3
    assert not said
    _image(size=20).save(tmp_path / "large" / "huge.png")
    with pytest.raises(DataError, match=r"huge\.png is too large: 400 pixels, at most 200"):
        load_data(str(tmp_path / "large"))


@pytest.mark.parametrize("suffix", ["heic", "jxl"])
def test_a_picture_that_pillow_cannot_open_is_said(suffix: str, tmp_path: Path) -> None:
    _folder(tmp_path / "x")
    (tmp_path / "x" / f"a.{suffix}").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(DataError, match=rf"a\.{suffix} is not a readable image") as e:
        load_data(str(tmp_path / "x"))
    assert f"not every Pillow opens .{suffix}" in e.value.hint
    assert len(load_data(str(tmp_path / "x"), on_bad_image="skip").skipped) == 1


def test_jpeg_by_its_other_names(tmp_path: Path) -> None:
    for suffix in ("jfif", "JPE"):
        _image().save(tmp_path / f"a.{suffix}", "JPEG")
    assert len(load_data(str(tmp_path))) == 2


# folders


def test_what_is_hidden_is_left_out(tmp_path: Path) -> None:
    """Copies of editors, and what macOS leaves beside files and in archives; hidden folders above do not count."""
    folder = _folder(tmp_path / ".cache" / "x")
    wanted = load_data(str(folder))
    for name in (".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/0.png", "._0.png", ".hidden.png", ".git/a.tar"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(_png(9))
    (folder / ".DS_Store").write_bytes(b"Bud1")
    data = load_data(str(folder))
    assert torch.equal(data.images, wanted.images)
    assert data.labels is wanted.labels is None
    check_images(str(folder), least=3)
    with pytest.raises(DataError, match="3 images are too few"):
        check_images(str(folder), least=4)


def test_class_folders_may_be_links(tmp_path: Path) -> None:
    _folder(tmp_path / "all" / "cat")
    _folder(tmp_path / "all" / "dog")
    few = tmp_path / "few"
    few.mkdir()
    for name in ("cat", "dog"):
        (few / name).symlink_to(tmp_path / "all" / name, target_is_directory=True)
    (few / "loop").symlink_to(few, target_is_directory=True)
    check_images(str(few), least=6)
    data = load_data(str(few))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_broken_link_is_not_passed_over(tmp_path: Path) -> None:
    (_folder(tmp_path / "x") / "z.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"z\.png is not a readable image"):
        load_data(str(tmp_path / "x"))


# shards


PARTS = [part for i in range(6) for part in ((f"{i}.png", _png(i)), (f"{i}.cls", str(i % 3).encode()))]


def test_labels_of_shards(tmp_path: Path) -> None:
    data = load_data(str(_shard(tmp_path / "a.tar", PARTS)))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2]
    for odd in (b"cat", b"", b"-1", b"1" * 30):
        assert load_data(str(_shard(tmp_path / "b.tar", [*PARTS[:-1], ("5.cls", odd)]))).labels is None
    assert load_data(str(_shard(tmp_path / "c.tar", PARTS[:-1]))).labels is None


def test_of_a_sample_the_image_counts_and_not_its_mask(tmp_path: Path) -> None:
    parts = [part for i in range(3) for part in ((f"d.x/{i}.seg.png", _png(i + 20)), (f"d.x/{i}.png", _png(i)))]
    data = load_data(str(_shard(tmp_path / "a.tar", parts)))
    assert torch.equal(data.images, load_data(str(_folder(tmp_path / "x"))).images)
    dotted = [(f"22.05.{i}.input.PNG", _png(i)) for i in range(3)]
    assert torch.equal(load_data(str(_shard(tmp_path / "b.tar", dotted))).images, data.images)


def test_hidden_members_are_left_out(tmp_path: Path) -> None:
    parts = [("./0.png", _png()), ("._0.png", b"\0\5\x16\7"), ("__MACOSX/0.png", b"\0"), ("../1.png", _png(1))]
    assert len(load_data(str(_shard(tmp_path / "a.tar", parts)))) == 2


def _header(data: bytearray) -> bytearray:
    return data[: 6 * 512 + 100]  # within a header


def _contents(data: bytearray) -> bytearray:
    return data[: 512 + 20]


def _between(data: bytearray) -> bytearray:
    return data[: 4 * 512]  # a header, a picture of two blocks, a header: nothing of the label


def _damage(data: bytearray) -> bytearray:
    start = data.index(b"2.png")
    data[start + 150] ^= 0xFF  # the sum over the header
    return data


@pytest.mark.parametrize("cut", [_header, _contents, _between, _damage])
def test_a_shard_that_is_cut_off_is_an_error(cut: Callable[[bytearray], bytearray], tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    _shard(folder / "a.tar", PARTS)
    whole = _shard(folder / "b.tar", PARTS).read_bytes()
    (folder / "b.tar").write_bytes(cut(bytearray(whole)))
    with pytest.raises(DataError, match=r"b\.tar is not a readable shard: it is cut off or damaged after"):
        load_data(str(folder))


def test_every_cut_is_found(tmp_path: Path) -> None:
    """At all borders of blocks, up to the end of the last part."""
    whole = _shard(tmp_path / "a.tar", PARTS[:4]).read_bytes()
    ends = len(whole.rstrip(b"\0")) // 512 + 1
    for blocks in range(ends + 1):
        (tmp_path / "a.tar").write_bytes(whole[: 512 * blocks])
        with pytest.raises(DataError, match="not a readable shard"):
            load_data(str(tmp_path / "a.tar"))
    (tmp_path / "a.tar").write_bytes(whole[: 512 * (ends + 2)])
    assert len(load_data(str(tmp_path / "a.tar"))) == 2


def test_shards_beside_pictures_are_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "x", 1)
    _shard(folder / "train.tar", PARTS)
    with pytest.raises(DataError, match=r"holds shards \(train\.tar\) and pictures \(0\.png\)"):
        load_data(str(folder))
    with pytest.raises(DataError, match="holds shards"):
        pack(folder, tmp_path / "x.npy", None)


def test_a_compressed_shard_is_said(tmp_path: Path) -> None:
    plain = _shard(tmp_path / "a.tar", PARTS)
    (tmp_path / "x").mkdir()
    with (tmp_path / "x" / "a.tar.gz").open("wb") as f, tarfile.open(fileobj=f, mode="w:gz") as archive:
        archive.add(plain, "a.tar")
    shutil.copy(tmp_path / "x" / "a.tar.gz", tmp_path / "b.tgz")
    for path in (tmp_path / "x", tmp_path / "x" / "a.tar.gz", tmp_path / "b.tgz"):
        with pytest.raises(DataError, match="is a compressed shard"):
            load_data(str(path))
