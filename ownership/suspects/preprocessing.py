"""Preprocessing of images before a suspect: mean, standard deviation, range, order of channels.

Preprocessing belongs to the encoder, but a bare network does not include it, and under a wrong one a surrogate scores
like an independent encoder. It is therefore declared, read from the model's files, or several are tried, each at its
share of alpha.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ownership.encoders.images import EncoderLike
from ownership.errors import SuspectError
from ownership.io.text import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """The transformation `(scale x - mean) / std` of images x in [0, 1], with reversed channels if `bgr`."""

    name: str = "none"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    scale: float = 1.0
    bgr: bool = False

    def before(self, encoder: EncoderLike) -> EncoderLike:
        """Return an encoder that preprocesses images `(n, 3, h, w)` and passes them to the given encoder."""
        if self == Preprocess(name=self.name):
            return encoder
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (self.mean, self.std))

        def preprocessed(images: Tensor) -> Tensor:
            ready = (self.scale * images - mean) / std
            return encoder(ready.flip(1).contiguous() if self.bgr else ready)

        return preprocessed


NONE = Preprocess()
PREPROCESSES = {
    p.name: p
    for p in (
        NONE,
        Preprocess(name="imagenet", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        Preprocess(name="half", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),  # to [-1, 1]
        Preprocess(name="clip", mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)),
        Preprocess(name="bytes", scale=255.0),  # to [0, 255]
        Preprocess(name="caffe", scale=255.0, mean=(123.68, 116.779, 103.939), bgr=True),
    )
}
TRIED = ("none", "imagenet", "half", "bytes")
"""The preprocessings of "try"; alpha is divided by their number."""


def of_channels(mean: tuple[float, float, float], std: tuple[float, float, float]) -> Preprocess:
    """Return the preprocessing with these mean and standard deviation, by its name if it has one.

    >>> of_channels((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).name, of_channels((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).name
    ('half', 'mean=0.5,0.5,0.5/std=0.2,0.2,0.2')
    """
    known = next((p for p in PREPROCESSES.values() if (p.mean, p.std, p.scale, p.bgr) == (mean, std, 1.0, False)), None)
    named = "/".join(f"{n}={','.join(map(repr, x))}" for n, x in (("mean", mean), ("std", std)))
    return known or Preprocess(name=named, mean=mean, std=std)


def parse_preprocess(text: str) -> tuple[Preprocess, ...]:
    """Parse the preprocessing of the command line: a name, `bgr+NAME`, `mean=R,G,B/std=R,G,B`, or "try" for several.

    >>> [p.name for p in parse_preprocess("try")]
    ['none', 'imagenet', 'half', 'bytes']
    >>> parse_preprocess("mean=0.5,0.5,0.5/std=0.25,0.25,0.25")[0].std
    (0.25, 0.25, 0.25)

    Raises:
        SuspectError: if the text is none of these.
    """
    if text == "try":
        return tuple(PREPROCESSES[name] for name in TRIED)
    bgr = text.startswith("bgr+")
    bare = text.removeprefix("bgr+")
    if bare in PREPROCESSES:
        known = PREPROCESSES[bare]
        if not bgr:
            return (known,)
        return (Preprocess(name=text, mean=known.mean, std=known.std, scale=known.scale, bgr=not known.bgr),)
    try:
        parts = dict(part.split("=", 1) for part in bare.split("/"))
        mean, std = (tuple(float(x) for x in parts.pop(key).split(",")) for key in ("mean", "std"))
        if parts or len(mean) != 3 or len(std) != 3 or not all(0 < s < 1e4 for s in std) or max(map(abs, mean)) > 1e4:
            raise ValueError(text)
    except (KeyError, ValueError) as e:
        raise SuspectError(
            f"unknown preprocessing {printable(text)!r}",
            f"one of: {', '.join(PREPROCESSES)}, bgr+NAME, mean=R,G,B/std=R,G,B, or try",
        ) from e
    return (Preprocess(name=text, mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]), bgr=bgr),)
