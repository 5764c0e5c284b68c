"""Linear evaluation of an encoder's representations (paper, Algorithm 3, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from ownership.encoders.images import EncoderLike, represent
from ownership.errors import TrainingError
from ownership.io.extras import require
from ownership.io.progress import Progress, silent


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearResult:
    """Top-1 accuracy of a linear classifier on frozen representations."""

    accuracy: float  # on the test images
    confidence_interval: tuple[float, float]  # 95 %, Wilson
    n_train: int
    n_test: int
    classes: int
    method: str


def linear_evaluation(
    encoder: EncoderLike,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    method: Literal["exact", "sgd", "lars"] = "exact",
    epochs: int = 100,
    lr: float | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> LinearResult:
    """Train a linear layer on frozen representations and return its accuracy.

    Representations are computed once, in eval mode (in the released code BatchNorm uses batch statistics), and
    standardized with the training images' mean and standard deviation. "exact" fits multinomial logistic regression to
    convergence; "sgd" and "lars" are the paper's loop (batch 256, no augmentation) with either optimizer.

    Args:
        encoder: frozen.
        train: uint8 images `(n, c, h, w)` and labels `(n,)`.
        test: the same, not used in training.
        method: exact, sgd, or lars (timm's; You et al. 2017: the paper's choice for ImageNet).
        epochs: of sgd and lars.
        lr: of sgd and lars; 1e-4 (the paper's) and 0.1 if not given.
        seed: of the order of images in sgd and lars.
        progress: called as it goes.

    Raises:
        TrainingError: if the method is unknown, there are fewer than two classes, or no test images.
    """
    if method not in METHODS:
        raise TrainingError(f"unknown method {method!r}", f"one of: {', '.join(METHODS)}")
    classes, known = torch.unique(torch.cat([train[1], test[1]]), return_inverse=True)
    y, truth = known[: len(train[1])], known[len(train[1]) :]
    if len(torch.unique(y)) < 2 or not len(truth):
        raise TrainingError(
            "linear evaluation needs two classes in the training images, and test images", "give labeled images"
        )
    progress("representing", 0, 3)
    x = represent(encoder, train[0])
    mean, sd = x.mean(0), x.std(0) + 1e-6
    progress("representing", 1, 3)
    held_out = (represent(encoder, test[0]) - mean) / sd
    progress("fitting", 2, 3)
    x = (x - mean) / sd
    if method == "exact":
        predicted = _exact(x, y, held_out)
    else:
        predicted = _loop(x, y, held_out, len(classes), method, epochs, lr, seed)
    progress("fitting", 3, 3)
    hits = int((predicted == truth.numpy()).sum())
    interval = stats.binomtest(hits, len(truth)).proportion_ci(method="wilson")
    return LinearResult(
        accuracy=hits / len(truth),
        confidence_interval=(float(interval.low), float(interval.high)),
        n_train=len(y),
        n_test=len(truth),
        classes=len(classes),
        method=method,
    )


def _exact(x: Tensor, y: Tensor, held_out: Tensor) -> NDArray[np.int64]:
    """Multinomial logistic regression with a weak l2 penalty, to convergence."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1.0, max_iter=2000, tol=1e-4).fit(x.double().numpy(), y.numpy())
    return np.asarray(model.predict(held_out.double().numpy()))


def _loop(
    x: Tensor, y: Tensor, held_out: Tensor, classes: int, method: str, epochs: int, lr: float | None, seed: int
) -> NDArray[np.int64]:
    """Algorithm 3: a linear layer by gradient descent on cross-entropy, batch size 256."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(x.shape[1], classes)
    # LARS scales a step by the norm of the weights: from zero weights it cannot move
    nn.init.normal_(layer.weight, std=0.01, generator=generator)
    nn.init.zeros_(layer.bias)
    optimizer: Any
    if method == "lars":
        require("timm")
        from timm.optim.lars import Lars

        optimizer = Lars(layer.parameters(), lr=0.1 if lr is None else lr, momentum=0.9)
    else:
        optimizer = torch.optim.SGD(layer.parameters(), lr=1e-4 if lr is None else lr, momentum=0.9)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x), generator=generator), 256):
            loss = nn.functional.cross_entropy(layer(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        return np.asarray(layer(held_out).argmax(1).numpy())


METHODS = ("exact", "sgd", "lars")
