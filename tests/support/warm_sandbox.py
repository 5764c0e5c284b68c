"""One sandboxed process that opens one file after another: the sandbox without a launch for each file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from support.encoders import encoder

from ownership.evidence.querying import ProblemCode
from ownership.suspects.formats.model_file import LoadOptions
from ownership.suspects.sandbox.copying import copy_suspect
from ownership.suspects.sandbox.encoder import Limits, SandboxedEncoder


class WarmSandbox(SandboxedEncoder):
    """A sandbox that is started once; `reopen` does for another file what `SandboxedEncoder` does when it is made."""

    def __init__(self, folder: Path, *, without: frozenset[str] = frozenset()) -> None:
        save_file(encoder(3).state_dict(), folder / "good.safetensors")
        super().__init__(folder / "good.safetensors", LoadOptions(), without=without)

    def private_folder(self) -> Path:
        return self._private

    def reopen(self, path: Path, options: LoadOptions, limits: Limits) -> None:
        """Copy another suspect into the sandbox's folder and load it; start the process if it has died."""
        model = self._private / "model"
        for old in model.iterdir():
            old.unlink()
        self._source, self.options, self.limits = path, options, limits
        self.copy = copy_suspect(path, model, limits.file_bytes)
        if self._running.process is None:
            self._start()
        else:
            with self._until_loaded():
                self._load()

    def process_ids(self) -> set[int]:
        """Return the process id, while the process runs."""
        return set() if self._running.process is None else {self._running.process.pid}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a hostile file."""

    exit_code: int  # of the error; 1 where the suspect was queried and a report would follow
    said: str  # message and hint of the error, or the problems of the responses
    problems: tuple[ProblemCode, ...] = ()  # why the responses cannot be tested


Open = Callable[..., Outcome]
"""The fixture `open_hostile`: path, `LoadOptions` or None, `Limits` or None -> `Outcome`."""
