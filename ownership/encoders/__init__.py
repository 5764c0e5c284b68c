"""Encoders: architectures, backbones, image conversion, the projection head. May import: io, errors."""
