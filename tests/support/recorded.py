"""What a third party does with a probe folder: it opens pictures and records representations."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.encoders import Noisy, as_suspect

from ownership import audit
from ownership.auditing.probe_export import export_probes
from ownership.claims.claim import Claim
from ownership.encoders.images import EncoderLike, represent
from ownership.reports.report import Report

Rows = NDArray[np.float32]


def pictures(folder: Path) -> torch.Tensor:
    """What a third party without the claim sees: the PNG files, in order."""
    from PIL import Image

    files = sorted(folder.glob("*.png"))
    return torch.stack([torch.from_numpy(np.array(Image.open(f))).permute(2, 0, 1) for f in files])


def embedded(folder: Path, by: EncoderLike) -> Rows:
    rows: Rows = represent(by, pictures(folder), batch_size=7).numpy()
    return rows


def npy(rows: NDArray[np.floating] | NDArray[np.object_] | list[object]) -> bytes:
    out = io.BytesIO()
    np.save(out, np.asarray(rows), allow_pickle=True)
    return out.getvalue()


@pytest.fixture(scope="session")
def probes(claim: Claim, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "probes"
    export_probes(claim, folder)
    return folder


@pytest.fixture(scope="session")
def direct(claim: Claim, near: Noisy) -> Report:
    """The audit that other forms of the same suspect are compared with."""
    return audit(claim, as_suspect(near))
