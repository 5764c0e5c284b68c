"""One picture file as 8-bit RGB: turned as EXIF says, its range of values kept; or the error that says why not."""

from __future__ import annotations

import io
import re
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ownership.errors import DataError
from ownership.io.text import printable
from watermark_training.image_sources import Picture

OPTIONAL = {".avif", ".heic", ".heif", ".jp2", ".jxl"}
"""Suffixes of pictures that not every Pillow can open."""

LEAVE_OUT = "turnmark train --on-bad-image skip leaves it out"


def decode(picture: Picture, size: int | None) -> NDArray[np.uint8] | DataError:
    """Return an image as RGB `(h, w, 3)`, converted from any other mode; or the error that prevents it.

    An orientation in EXIF is applied. 16-bit gray is scaled to 8 bits. Values whose range the file does not state
    (floating point, 32-bit integers) are refused.
    """
    from PIL import Image, UnidentifiedImageError

    shown = printable(picture.name, 300)
    try:
        with Image.open(io.BytesIO(picture.read())) as image:
            largest = _largest_value(image)
            if largest is None:
                what = "floating-point numbers" if image.mode == "F" else "32-bit numbers"
                return DataError(f"{shown} holds {what}, whose range is unknown", "save it with 8 or 16 bits")
            turned = _turned(image)
            rgb = (turned if largest == 255 else _scaled(turned, largest)).convert("RGB")
            if size is not None:
                rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(rgb)
    except Image.DecompressionBombError as e:
        return DataError(f"{shown} is too large: {_pixels(e)}", f"scale it down ({LEAVE_OUT})")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return _unreadable(picture.name)


def _pixels(e: Exception) -> str:
    """Return size and limit from Pillow's message, which also speaks of an attack."""
    numbers = [f"{int(n):,}" for n in re.findall(r"\d+", str(e))]
    return f"{numbers[0]} pixels, at most {numbers[1]}" if len(numbers) == 2 else printable(e)


def _unreadable(name: str) -> DataError:
    suffix = PurePosixPath(name).suffix.lower()
    advice = f"not every Pillow opens {suffix}: convert it" if suffix in OPTIONAL else "remove it"
    return DataError(f"{printable(name, 300)} is not a readable image", f"{advice} ({LEAVE_OUT})")


def _largest_value(image: Any) -> int | None:
    """Return the largest value that a picture's type can hold; None if that is unknown."""
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(258, (16,))[0]  # BitsPerSample of a TIFF, which may be 12
        return int(2 ** min(bits, 16) - 1)
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # 16 bits, too, in some versions of Pillow
        return 65_535
    return None if image.mode in ("I", "F") else 255


def _turned(image: Any) -> Any:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF, of which the parser raises anything, does not damage the picture
        return image


def _scaled(image: Any, largest: int) -> Any:
    """Return gray values in 8 bits; Pillow's own conversion cuts them off at 255."""
    from PIL import Image

    values = np.asarray(image).astype(np.float64).clip(0, largest)
    return Image.fromarray(np.rint(values * (255 / largest)).astype(np.uint8))
