"""Images as uint8 tensors, their digests, and their conversion to the input of an encoder."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ownership.errors import OwnershipError


def check_images(images: Tensor, error: type[OwnershipError], minimum: int = 1) -> None:
    """Raises `error` unless `images` is `(n, c, h, w)` uint8 with c = 1 or 3, 8 <= h, w and n >= minimum."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise error(
            f"images must be uint8 (n, c, h, w) with 1 or 3 channels, got {images.dtype} {tuple(images.shape)}",
            "use an image folder, or an .npz with uint8 x",
        )
    if min(images.shape[-2:]) < 8:
        raise error(f"images of {images.shape[-2]}x{images.shape[-1]} pixels are too small", "at least 8x8")
    if len(images) < minimum:
        raise error(f"{len(images)} images are too few", f"at least {minimum}")


def images_sha256(images: Tensor) -> str:
    """Return the SHA-256 of uint8 images: their shape, then their bytes in order."""
    digest = hashlib.sha256(repr(tuple(images.shape)).encode())
    for part in torch.split(images, 4096):  # images may be memory-mapped from a file larger than memory
        digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()


def image_bytes(image: Tensor) -> bytes:
    """Return the bytes whose SHA-256 is `images_sha256` of one uint8 image `(c, h, w)`."""
    return repr(tuple(image.shape)).encode() + image.contiguous().numpy().tobytes()


def as_input(images: Tensor) -> Tensor:
    """Return uint8 images `(n, c, h, w)` as float32 in `[0, 1]`, same shape."""
    return images.float() / 255


def as_uint8(images: Tensor) -> Tensor:
    """Return float images in `[0, 1]` as uint8, rounded."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def beside(drawn: Tensor, images: Tensor) -> Tensor:
    """Move a tensor that was drawn on the CPU to the images' device, without synchronizing with the device."""
    if images.device.type == "cuda" and drawn.device.type == "cpu":
        return drawn.pin_memory().to(images.device, non_blocking=True)
    return drawn.to(images.device)


def three_channels(images: Tensor) -> Tensor:
    """Return images `(n, 3, h, w)`; the channel of gray images `(n, 1, h, w)` is repeated."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def png_bytes(image: Tensor) -> bytes:
    """Return one uint8 image `(3, h, w)` as a PNG file, which contains only size and pixels."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(out, format="PNG")
    return out.getvalue()


def pixel_digests(images: Tensor) -> list[bytes]:
    """Return the SHA-256 of each uint8 image's pixels `(3, h, w)`, channel by channel, row by row."""
    return [hashlib.sha256(image.contiguous().numpy().tobytes()).digest() for image in three_channels(images).cpu()]


EncoderLike = Callable[[Tensor], Tensor]
"""Images `(n, 3, h, w)` float32 in `[0, 1]` -> representations `(n, d)` float32."""


def represent(encoder: EncoderLike, images: Tensor, *, batch_size: int = 256) -> Tensor:
    """Return the representations of uint8 images, in float32 on the CPU, without gradients.

    Args:
        encoder: the encoder; a module is set to eval mode and used on its device.
        images: `(n, c, h, w)` uint8, c = 1 or 3.
        batch_size: images per call.

    Returns:
        `(n, d)` float32.
    """
    device = torch.device("cpu")
    if isinstance(encoder, nn.Module):
        encoder.eval()
        device = next((p.device for p in encoder.parameters()), device)
    with torch.inference_mode():
        parts = [
            encoder(three_channels(as_input(chunk.to(device))).contiguous()).float().cpu()
            for chunk in torch.split(images, batch_size)
        ]
    return torch.cat(parts)
