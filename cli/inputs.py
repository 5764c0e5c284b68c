"""Quick checks of what a command is given, before anything heavy is imported: wrong input is answered at once.

They look at names, sizes and first bytes only. The libraries check everything again, and more closely.
"""

from __future__ import annotations

import json
import os
import re
from difflib import get_close_matches
from pathlib import Path

import typer

from cli.options import unknown
from ownership.errors import ClaimError, DataError, OwnershipError, ReportError, SuspectError
from ownership.io.text import printable
from watermark_training.image_sources import SUFFIXES as PICTURES
from watermark_training.image_sources import files_in, is_picture, is_shard

ROWS = {".npy", ".npz", ".parquet"}
MODELS = {".onnx", ".safetensors", ".pt", ".pth", ".pt2", ".bin"}
WEIGHTS = ("model.safetensors", "encoder.safetensors", "pytorch_model.bin", "model.onnx", "encoder.onnx")
LEAST = 32
"""Fewest images of any data set: `ownership.encoders.images.check_images`."""
DATA_SETS = (
    "digits", "cifar10", "cifar100", "country211", "dtd", "fashion-mnist", "fgvcaircraft", "flowers102", "food101",
    "gtsrb", "imagenette", "kmnist", "mnist", "oxfordiiitpet", "pcam", "renderedsst2", "stl10", "svhn", "usps",
)  # fmt: skip
"""Data sets that are loaded by name: scikit-learn's digits, and torchvision's that download by themselves."""
SPLITS = ("train", "test", "val", "trainval", "extra", "unlabeled")
"""Splits of these data sets; not every data set has every one."""
_DESCRIPTION = re.compile(r"^(?P<source>.*?)(?::(?P<split>[a-z0-9_]+))?(?:\[(?P<start>\d*):(?P<stop>\d*)\])?$")


PREPROCESSES = ("none", "imagenet", "half", "clip", "bytes", "caffe")


def check_preprocess(text: str) -> None:
    """Check a value of --preprocess as far as names go."""
    bare = text.removeprefix("bgr+")
    if text != "try" and bare not in PREPROCESSES and not bare.startswith(("mean=", "std=")):
        raise unknown("preprocessing", text, (*PREPROCESSES, "bgr+NAME", "mean=R,G,B/std=R,G,B", "try"))


def check_claim(folder: Path) -> None:
    """Check that a folder looks like a claim."""
    _exists(folder, "claim", ClaimError)
    _folder_with(folder, "claim.json", "claim", ClaimError, "give the folder of turnmark claim build")


def check_report(folder: Path) -> None:
    """Check that a folder looks like a report."""
    _exists(folder, "report", ReportError)
    _folder_with(folder, "report.json", "report", ReportError, "give the folder that turnmark audit wrote")


def check_file(path: Path | None, what: str) -> None:
    """Check that a path, if one was given, is that of a file."""
    if path is None:
        return
    _exists(path, what, OwnershipError)
    if path.is_dir():
        raise OwnershipError(f"{what}: {printable(path, 300)} is a folder, not a file", "give the file itself")


HOLDS = {
    "claim.json": "a claim",
    "report.json": "a report",
    "summary.json": "a summary",
    "config.json": "a train folder",
}
"""File -> what a folder with it is."""


def _folder_with(folder: Path, name: str, what: str, error: type[OwnershipError], hint: str) -> None:
    """Raise `error` if a folder has no file of this name; one that was sealed is left to the verification."""
    shown = printable(folder, 300)
    if folder.is_file():
        beside = folder.name == name
        raise error(f"{shown} is a file, not a {what}", f"give its folder, {folder.parent}" if beside else hint)
    if (folder / name).is_file():
        return
    others = [said for other, said in HOLDS.items() if (folder / other).is_file()]
    if others:
        raise error(f"{shown} is no {what}: it is {others[0]}", hint)
    if not (folder / "seal").exists():
        raise error(f"{shown} is no {what}: it has no {name}", hint)


def is_address(text: str) -> bool:
    """Return whether a suspect or a victim is the address of an endpoint, not a file."""
    return text.lower().startswith(("https://", "http://"))


def check_suspect(suspect: str, probe_folder: Path | None = None) -> None:
    """Check that a suspect is an address, or a file or folder that can hold an encoder or recorded representations."""
    if is_address(suspect):
        return
    path = Path(suspect)
    _exists(path, "suspect")
    if probe_folder is not None:
        if not (probe_folder / "manifest.json").is_file():
            raise SuspectError(
                f"{printable(probe_folder, 300)} is not a probe folder: it has no manifest.json",
                "make one: turnmark claim probes",
            )
        return
    if path.is_dir():
        _folder_of_a_model(path, "suspect")
        if not any((path / name).is_file() for name in WEIGHTS):
            raise SuspectError(
                f"suspect: {printable(path, 300)} is a folder without weights", f"expected one of {', '.join(WEIGHTS)}"
            )
        return
    _file_of_a_model(path, "suspect")
    if path.suffix.lower() in ROWS:
        raise SuspectError(
            f"suspect: {printable(path, 300)} holds rows of numbers, not a model",
            "recorded representations need --probe-folder, the folder of turnmark claim probes",
        )


def check_encoder(path: Path, what: str) -> None:
    """Check that a path is a finished train folder, or a file.

    Args:
        path: as given.
        what: it is called in messages: victim, encoder, ...
    """
    _exists(path, what)
    if path.is_dir():
        _folder_of_a_model(path, what)
        if not (path / "config.json").is_file():
            raise SuspectError(
                f"{what}: {printable(path, 300)} is not a train folder: it has no config.json",
                "give a folder of turnmark train, or a file",
            )
        return
    _file_of_a_model(path, what)


def check_key(folder: Path) -> None:
    """Check that a folder looks like a key."""
    if not folder.exists():
        raise ClaimError(f"key: {printable(folder, 300)} does not exist", "make one: turnmark key new")
    if not (folder / "key.json").is_file():
        raise ClaimError(
            f"{printable(folder, 300)} is no key: it has no key.json", "give the folder of turnmark key new"
        )


def check_watermark(watermark: str, key: Path | None, key_seed: int | None) -> None:
    """Check that a key, if one is given, is one for the watermark."""
    if key is not None:
        check_key(key)
        if watermark != "keyed":
            raise typer.BadParameter(f"--key is for the keyed watermark, not for --watermark {watermark}")
    if key_seed is not None and watermark != "secret":
        raise typer.BadParameter("--key-seed is for a rotation watermark: --watermark secret")


STRATA = ("plain", "watermarked", "sibling", "rotation_invariant", "distilled", "small", "public")


def check_panel(entry: str) -> None:
    """Check a value of --panel: `[STRATUM:]PATH`, where the path is an encoder or a folder of train folders."""
    stratum, colon, rest = entry.partition(":")
    path = Path(entry)
    if colon and not path.exists() and len(stratum) > 1:  # one letter is a drive
        if stratum not in STRATA:
            raise unknown("stratum", stratum, STRATA)
        path = Path(rest)
    _exists(path, "--panel")
    for folder in (path, *path.iterdir()) if path.is_dir() else ():
        _refuse_unfinished(folder, "--panel")
    if path.is_dir() and any((p / "config.json").is_file() for p in path.iterdir() if p.is_dir()):
        return
    check_encoder(path, "--panel")


_MODEL_HINT = "give a train folder, safetensors, a PyTorch state dict (.pt, .pth), torch.export (.pt2) or ONNX"


def _exists(path: Path, what: str, error: type[OwnershipError] = SuspectError) -> None:
    if path.exists():
        return
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, beside, n=1)
    hint = f"did you mean {printable(path.parent / near[0], 300)}?" if near else "check the path"
    raise error(f"{what}: {printable(path, 300)} does not exist", hint)


def _folder_of_a_model(path: Path, what: str) -> None:
    """Refuse folders that hold a claim, an unfinished training, pictures, or no weights."""
    shown = f"{what}: {printable(path, 300)}"
    if (path / "claim.json").is_file():
        raise SuspectError(f"{shown} is a claim, not an encoder", _MODEL_HINT)
    _refuse_unfinished(path, what)
    if any((path / name).is_file() for name in WEIGHTS):
        return
    names = [p.name for _, p in zip(range(2000), path.iterdir(), strict=False)]
    if any(Path(n).suffix.lower() in MODELS for n in names):
        return
    if _mostly_pictures(path):
        raise SuspectError(f"{shown} is a folder of pictures, not an encoder", _MODEL_HINT)


UNFINISHED = ("unfinished.json", "checkpoint.pt")
PARTS = {"predictor.safetensors": "a rotation predictor", "projection_head.safetensors": "a projection head"}
"""Files of a train folder that hold no encoder."""


def _file_of_a_model(path: Path, what: str) -> None:
    """Refuse files whose names say that they hold no encoder."""
    shown = f"{what}: {printable(path, 300)}"
    if path.suffix.lower() in PICTURES:
        raise SuspectError(f"{shown} is a picture, not an encoder", _MODEL_HINT)
    if path.name in PARTS:
        raise SuspectError(f"{shown} is {PARTS[path.name]}, not an encoder", "give encoder.safetensors or encoder.onnx")


def _refuse_unfinished(folder: Path, what: str) -> None:
    """Refuse a folder of interrupted training; the hint is the command that continues it, where its note has it."""
    if (folder / "config.json").is_file() or not any((folder / n).is_file() for n in UNFINISHED):
        return
    try:
        command = json.loads((folder / "unfinished.json").read_text(encoding="utf-8"))["command"]
    except (OSError, ValueError, KeyError, TypeError):
        command = ""
    shown = printable(folder, 300)
    hint = f"continue it: {printable(command, 1000)}" if command else f"run the command that writes {shown} again"
    raise SuspectError(f"{what}: {shown} is unfinished: its training was interrupted", hint)


def _mostly_pictures(folder: Path) -> bool:
    """Return whether more than half of the first 1,000 files under a folder are pictures."""
    names = [name for _, (_, _, files) in zip(range(1000), os.walk(folder), strict=False) for name in files][:1000]
    return 2 * sum(Path(name).suffix.lower() in PICTURES for name in names) > len(names)


def check_images(description: str, *, least: int = LEAST, what: str = "data") -> None:
    """Check a description of images: what it names exists, is not a model, and is not obviously too small.

    Args:
        description: as `watermark_training.load_data` takes it.
        least: images that the command needs; pictures in folders are counted.
        what: it is called in messages.
    """
    match = _DESCRIPTION.match(description)
    whole = Path(description)
    if not whole.exists() and description.count("[") != description.count("]"):
        raise DataError(f"{what}: {printable(description, 300)}: a bracket is missing", "as in digits[500:1100]")
    source, split = (description, None) if match is None or whole.exists() else (match["source"], match["split"])
    if match is not None and not whole.exists() and match["stop"]:
        count = max(0, int(match["stop"]) - int(match["start"] or 0))
        if count < least:
            raise DataError(f"{what}: {printable(description, 300)}: {count} images are too few", f"at least {least}")
    path = Path(source)
    if path.is_dir():
        _folder_of_images(path / split if split is not None and (path / split).is_dir() else path, least, what)
        return
    if path.is_file():
        if path.suffix.lower() in MODELS:
            raise DataError(
                f"{what}: {printable(path, 300)} is a model, not images", "give a folder, .npz, .npy or .tar"
            )
        return
    name = source.lower().replace("_", "-")
    bare = name.replace("-", "")
    if (Path(os.environ.get("TURNMARK_DATA", "")) / f"{name}-{split or 'train'}.npz").is_file():
        return
    if bare in {d.replace("-", "") for d in DATA_SETS}:
        _known_split(source, name, split, what)
        return
    if os.sep in source or path.suffix or source.startswith("."):
        raise DataError(f"{what}: {printable(source, 300)} does not exist", "check the path")
    near = get_close_matches(name, DATA_SETS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"check the path; data sets: {', '.join(DATA_SETS)}"
    raise DataError(f"{what}: {printable(source, 300)} is neither a folder, nor a file, nor a known data set", hint)


def _known_split(source: str, name: str, split: str | None, what: str) -> None:
    known = () if name == "digits" else SPLITS
    if split is None or split in known:
        return
    near = get_close_matches(split, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"one of: {', '.join(known)}" if known else "leave it out"
    raise DataError(f"{what}: {printable(source, 300)} has no split {printable(split)!r}", hint)


def _folder_of_images(path: Path, least: int, what: str) -> None:
    shown = f"{what}: {printable(path, 300)}"
    count = 0
    for file in files_in(path):
        count += is_picture(file.name)
        if count >= least or is_shard(file.name):  # shards are counted when they are read
            return
    if not count and any((path / n).exists() for n in (*WEIGHTS, "config.json", "claim.json")):
        raise DataError(f"{shown} holds an encoder or a claim, not images", "give a folder of pictures")
    if not count:
        raise DataError(f"{shown} holds no images", f"expected {', '.join(sorted(PICTURES))}, or .tar shards")
    raise DataError(f"{shown}: {count} images are too few", f"at least {least}")
