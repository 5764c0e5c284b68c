"""This process's side of the sandbox: copy the suspect's file, start its process, query it, end it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ownership.errors import OwnershipError, SandboxError, SuspectError, SuspectFailure, UnsafeSuspectError
from ownership.io.text import printable
from ownership.suspects.formats.adapter import resized
from ownership.suspects.formats.model_file import LoadOptions
from ownership.suspects.sandbox.copying import SuspectCopy, copy_external_data, copy_suspect
from ownership.suspects.sandbox.description import Description, choices_in
from ownership.suspects.sandbox.frames import BadFrame, read_exactly, read_header, write_frame

MAX_DIM = 65_536
"""Largest dimension of a representation that is accepted from a suspect."""

FRAME_BYTES = 32 << 20
"""Most bytes of images in a frame, which both processes hold at once."""

LAUNCH = Path(__file__).with_name("launch.py")
"""The program of the sandboxed process."""

_ERRORS = {"suspect": SuspectError, "unsafe": UnsafeSuspectError, "sandbox": SandboxError, "failure": SuspectFailure}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Resources that a suspect may use."""

    seconds: float = 300.0  # wall clock for loading (plus 1 s per 20 MB), and for each frame of images
    memory_bytes: int | None = None  # address space; if None, 12 GiB plus four times the file's size
    file_bytes: int = 8 << 30  # largest file


class SandboxedEncoder:
    """An encoder in a sandboxed process, called like any other encoder.

    The file is copied and hashed once, and the process reads the copy. The process can be paused at any time; the next
    call starts it again. On Linux the process dies with the thread that started it: pause it before that thread ends.

    Args:
        path: the suspect's file, or a folder with `config.json` and weights.
        options: how to load it.
        limits: resources that it may use.
        without: isolation layers to leave off, as on a system that lacks them.

    Raises:
        SuspectError: if the suspect cannot be loaded as an encoder.
        UnsafeSuspectError: if loading would run code from its files.
        SandboxError: if its format can contain code and an isolation layer is missing.
    """

    def __init__(
        self, path: Path, options: LoadOptions, limits: Limits | None = None, *, without: frozenset[str] = frozenset()
    ) -> None:
        self.options, self.limits, self._without = options, limits or Limits(), without
        private = _private_folder()
        self._private, self._running = private, _Running()
        self._finish = weakref.finalize(self, _end, self._running, private)  # at the interpreter's end, too
        self._source = path
        self.layers: dict[str, str] = {}
        self.format = ""
        self.architecture: str | None = None
        self.described = Description()
        self.choices: dict[str, str] = {}  # a name in CHOICES -> printable text; complete after the first query
        try:
            for name in ("model", "work"):
                (private / name).mkdir()
            self.copy: SuspectCopy = copy_suspect(path, private / "model", self.limits.file_bytes)
            self._start()
        except BaseException:
            self._finish()
            raise

    def __call__(self, images: Tensor) -> Tensor:
        """Return representations `(n, d)` of images `(n, 3, h, w)` float32 in `[0, 1]`.

        Raises:
            SuspectFailure: if the process died, hung or sent an invalid reply.
        """
        most = max(1, FRAME_BYTES // max(1, images[0].nbytes)) if len(images) else 1
        return torch.cat([self._query(part) for part in torch.split(images, most)])

    def _query(self, images: Tensor) -> Tensor:
        """Send one frame of images and read the reply."""
        if self._running.process is None:
            self._start()
        header = {"op": "query", "shape": list(images.shape)}
        raw = memoryview(images.contiguous().numpy().data).cast("B")
        with self._watched(self.limits.seconds):
            reply = self._exchange(header, raw)
            rows, dim, dtype = (reply.get(k) for k in ("rows", "dim", "dtype"))
            if type(dim) is not int or not 1 <= dim <= MAX_DIM or rows != len(images) or dtype != "<f4":
                raise BadFrame("representations of another shape")
            if reply["raw"] != 4 * rows * dim:
                raise BadFrame("representations of another length")
            self.choices = choices_in(reply)
            answer = read_exactly(self._pipes()[1], reply["raw"])
        return torch.frombuffer(answer, dtype=torch.float32).reshape(rows, dim)

    def resizes(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """Return height and width to which images `(n, 3, h, w)` are resized; None if they are not resized."""
        return None if self.described.size is None else resized(self.described.size, shape)

    def select(self, entry: str | None) -> None:
        """Load another entry of the checkpoint; None: the one that the options name, or the first."""
        if entry == self.options.entry:
            return
        self.options = replace(self.options, entry=entry)
        if self._running.process is not None:  # else the next call starts it
            with self._until_loaded():
                self._load()

    def pause(self) -> None:
        """End the process and its process group. The copy stays, and the next call starts the process again."""
        self._running.stop()

    def close(self) -> None:
        """End the process and remove the private copy. A closed encoder cannot be called."""
        self._finish()

    def _start(self) -> None:
        """Start the process and load the copy in it."""
        if not self._finish.alive:
            raise ValueError("this suspect is closed; load it again")
        with self._until_loaded():
            self._launch()
            self._load()

    def _launch(self) -> None:
        """Start the process and read which isolation layers it has applied."""
        private = self._private
        start = {
            "path": _library_folders(),
            "readable": [str(private / "model")],
            "writable": [str(private / "work")],
            "memory": self.limits.memory_bytes or (12 << 30) + 4 * self.copy.size,
            "threads": torch.get_num_threads(),
            "without": sorted(self._without),
        }
        debug = os.environ.get("TURNMARK_SANDBOX_STDERR") == "1"  # what the suspect prints is hostile text
        self._running.process = subprocess.Popen(
            [sys.executable, "-I", "-W", "ignore", str(LAUNCH)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if debug else subprocess.DEVNULL,
            cwd=private / "work",
            env=_environment(private / "work"),
            start_new_session=True,
            close_fds=True,
        )
        layers = self._exchange(start).get("layers")
        if not isinstance(layers, dict) or not all(isinstance(x, str) for kv in layers.items() for x in kv):
            raise BadFrame("no layers")
        self.layers = {printable(k, 40): printable(v, 80) for k, v in layers.items()}

    def _load(self) -> None:
        """Load the copy in the process, with the files that the model names where the options allow it."""
        folder = self._private / "model"
        header = {"op": "load", "folder": str(folder), "name": self.copy.name, "options": asdict(self.options)}
        reply = self._exchange(header)
        missing = reply.get("missing_files")
        if isinstance(missing, list):
            self.copy = copy_external_data(self.copy, self._source, missing, folder, self.limits.file_bytes)
            reply = self._exchange(header)
        self.described = Description.of(reply)
        self.format, self.architecture = self.described.format, self.described.architecture
        self.choices = choices_in(reply)

    @contextmanager
    def _until_loaded(self) -> Iterator[None]:
        """Limit the time of starting and loading. A process that fails meanwhile makes the suspect an unusable file."""
        try:
            with self._watched(self.limits.seconds + self.copy.size / 20e6):
                yield
        except SuspectFailure as e:
            raise SuspectError(f"suspect: {e.message.removeprefix('suspect: ')}", e.hint) from e

    def _pipes(self) -> tuple[Any, Any]:
        if self._running.process is None:
            raise BadFrame("the process is gone")
        return self._running.process.stdin, self._running.process.stdout

    def _exchange(self, header: dict[str, Any], raw: bytes | memoryview = b"") -> dict[str, Any]:
        """Send a frame and return the header of the reply; raise the error that the reply states."""
        to, back = self._pipes()
        write_frame(to, header, raw)
        reply = read_header(back)
        if "error" in reply:
            error = _ERRORS.get(str(reply["error"]), SuspectError)
            raise error(printable(reply.get("message"), 400), printable(reply.get("hint"), 300))
        return reply

    @contextmanager
    def _watched(self, seconds: float) -> Iterator[None]:
        """Kill the process when the time is over; report every broken exchange as one `SuspectFailure`."""
        expired, running = threading.Event(), self._running  # not self: the timer's thread would keep it alive

        def expire() -> None:
            expired.set()
            if (process := running.process) is not None:
                _kill(process)

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (BadFrame, OSError, ValueError) as e:
            raise self._failure(expired.is_set(), seconds, str(e)) from e
        except OwnershipError:
            raise  # stated by an intact process
        except BaseException:
            self.pause()
            raise
        finally:
            timer.cancel()

    def _failure(self, expired: bool, seconds: float, what: str) -> SuspectFailure:
        process = self._running.process
        code = None
        if process is not None and not expired:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(2)  # it may be ending
        self.pause()
        if expired:
            return SuspectFailure(
                f"suspect: stopped after {seconds:.0f} s without an answer", "if the model is slow: --time-limit"
            )
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return SuspectFailure(f"suspect: its process died ({name})", "out of memory, or the model crashes")
        if code is not None:
            return SuspectFailure(f"suspect: its process ended ({code})", "out of memory, or the model crashes")
        return SuspectFailure(f"suspect: bad reply from its process ({printable(what)})", "the model is broken")


@dataclass(slots=True)
class _Running:
    """Holds the process apart from the encoder, so that a finalizer of the encoder can end it."""

    process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        _kill(process)
        for pipe in filter(None, (process.stdin, process.stdout)):
            with suppress(OSError):
                pipe.close()


def _end(running: _Running, folder: Path) -> None:
    running.stop()
    shutil.rmtree(folder, ignore_errors=True)


def _private_folder() -> Path:
    """Make a folder that only this user can enter."""
    try:
        return Path(tempfile.mkdtemp(prefix="turnmark-"))
    except OSError as e:
        raise OwnershipError(f"no private folder can be made ({e.strerror})", "free space, or set TMPDIR") from e


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its process group, and wait for its end."""
    if hasattr(os, "killpg"):
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    with suppress(OSError):
        process.kill()
    process.wait()


def _environment(work: Path) -> dict[str, str]:
    """Return the environment of the sandboxed process: only what the system needs to start a program."""
    kept = {k: v for k in ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if (v := os.environ.get(k))}
    return {
        **kept,
        **dict.fromkeys(("HOME", "TMPDIR", "TEMP", "TMP", "XDG_CACHE_HOME"), str(work)),
        "LC_ALL": "C.UTF-8",
        "ORT_DISABLE_TELEMETRY": "1",  # before onnxruntime is imported: the Linux wheels phone home
        "HF_HUB_OFFLINE": "1",
    }


def _library_folders() -> list[str]:
    """Return the folders of the libraries that the sandboxed process imports."""
    folders = set()
    for name in ("torch", "torchvision", "timm", "numpy", "safetensors", "onnx", "onnxruntime"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            folders.add(str(Path(spec.origin).parents[1]))
    return sorted(folders)
