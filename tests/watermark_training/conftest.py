"""Images and a key that the tests of training share."""

from __future__ import annotations

import pytest
import torch
from support.keys import key_of

from ownership.keyed.pool import KeyMaterial
from watermark_training.data import Data


@pytest.fixture(scope="session")
def images(digits: Data) -> torch.Tensor:
    """The digits in another order: they are sorted by writer."""
    return digits.images[torch.randperm(len(digits), generator=torch.Generator().manual_seed(5))]


@pytest.fixture(scope="session")
def material(images: torch.Tensor) -> KeyMaterial:
    return key_of(images[1400:])
