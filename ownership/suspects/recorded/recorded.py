"""Recorded representations as a suspect: the output of an encoder for the images of a probe folder."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import torch
from torch import Tensor

from ownership.encoders.images import as_uint8, pixel_digests
from ownership.errors import SuspectError
from ownership.io.canonical import sha256
from ownership.io.text import printable
from ownership.suspects.recorded.arrays import Rows, read_rows
from ownership.suspects.recorded.probe_folder import ProbeFolder, read_probe_folder
from ownership.suspects.suspect import Suspect, check_output_kind


class RecordedEncoder:
    """Look up recorded representations by the SHA-256 of an image's pixels.

    An image that is in the folder several times has several rows, which repeated queries return in turn. The stability
    check of an audit therefore detects rows that differ for the same image.

    Args:
        folder: the images.
        rows: `(len(folder), d)`, one row for each image.
    """

    def __init__(self, folder: ProbeFolder, rows: Rows) -> None:
        self._rows = torch.from_numpy(rows)
        self._of: dict[bytes, list[int]] = defaultdict(list)
        for i, digest in enumerate(folder.digests):
            self._of[digest].append(i)
        self._counts: Counter[bytes] = Counter()

    def __call__(self, images: Tensor) -> Tensor:
        """Return the recorded representations `(n, d)` of images `(n, 3, h, w)` float32 in [0, 1].

        Raises:
            SuspectError: if an image is not in the probe folder.
        """
        found = []
        for digest in pixel_digests(as_uint8(images.cpu())):
            rows = self._of.get(digest)
            if rows is None:
                raise SuspectError(
                    "an image of the claim is not in the probe folder: these probes belong to another claim",
                    "give the folder that turnmark claim probes made from this claim",
                )
            found.append(rows[self._counts[digest] % len(rows)])
            self._counts[digest] += 1
        return self._rows[found]


def load_recorded(path: Path | str, probes: Path | str, *, output_kind: str = "representations") -> Suspect:
    """Load recorded representations as a suspect.

    Audit it without `stop_early`: interim analyses repeat queries of other images than the folder does.

    Args:
        path: one row for each image, in the order of file names: `.npy`, `.safetensors` or `.parquet`, detected from
            the content.
        probes: the folder that `export_probes` made.
        output_kind: kind of the rows, a name in `OUTPUT_KINDS`.

    Raises:
        SuspectError: if the rows or the folder cannot be used.
        UnsafeSuspectError: if the rows are a pickle, which is a program.
    """
    check_output_kind(output_kind)
    folder = read_probe_folder(Path(probes))
    data, rows = read_rows(Path(path), len(folder))
    return Suspect(
        name=printable(Path(path).name),
        format="recorded",
        sha256=sha256(data),
        size=len(data),
        architecture=None,
        encoder=RecordedEncoder(folder, rows),
        output_kind=output_kind,
        details=lambda: {"probes_sha256": folder.manifest_sha256},
    )
