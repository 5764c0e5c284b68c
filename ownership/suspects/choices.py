"""Values of the options of a suspect, as types. Imports nothing large, so that the command line can list them."""

from __future__ import annotations

from typing import Literal

OutputKind = Literal["representations", "logits", "posteriors", "labels"]
"""What a model returns, a key of `suspects.suspect.OUTPUT_KINDS`; class scores and labels cannot support a claim."""
Pooling = Literal["auto", "cls", "mean", "channels-first", "channels-last"]
"""How tokens or maps become one vector per image, one of `suspects.formats.adapter.POOLINGS`."""
Protocol = Literal["turnmark", "openai", "base64"]
"""Protocol of an HTTP endpoint, a key of `suspects.endpoint.protocols.APIS`."""

PreprocessingSource = Literal["option", "files", "library", "assumed"]
"""Where a suspect's preprocessing comes from: declared for the audit; stated in its files, or part of the model; what
the library of its architecture uses, where its files state none; none, where its file states none."""
