"""Our side of the cage: a suspect's file copied and hashed, its process started, asked, and killed."""

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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ownership.errors import OwnershipError, SandboxError, SuspectError, SuspectFailure, UnsafeSuspectError
from ownership.io.text import printable
from ownership.suspects.formats.adapter import resized
from ownership.suspects.formats.open import LoadOptions
from ownership.suspects.sandbox.copying import SuspectCopy, copy_named, copy_suspect
from ownership.suspects.sandbox.frames import BadFrame, read_exactly, read_header, write_frame

MAX_DIM = 65_536
"""Longest representation that is taken from a suspect."""

FRAME_BYTES = 32 << 20
"""Most bytes of images in a frame: what both processes hold at once, and what a cold one must find memory for."""

LAUNCH = Path(__file__).with_name("launch.py")
"""What the process runs."""

_ERRORS = {"suspect": SuspectError, "unsafe": UnsafeSuspectError, "sandbox": SandboxError, "failure": SuspectFailure}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a suspect may take."""

    seconds: float = 300.0  # wall clock, until it is loaded (and a second for 20 MB), and for a frame of images
    memory_bytes: int | None = None  # address space; 12 GiB and four times the file if not given
    file_bytes: int = 8 << 30  # largest file that is opened


class SandboxedEncoder:
    """An encoder in a process of its own that is locked in; called like any other.

    The file is copied and hashed once; the cage reads the copy. The process can be closed at any time, the next call
    starts it again. On Linux it dies with the thread that started it: close it before that thread ends.

    Args:
        path: of the suspect, a file or a folder of `config.json` and weights.
        options: how to load it.
        limits: what it may take.
        without: layers to leave off, to see what a system without them does.

    Raises:
        SuspectError: if it cannot be loaded as an encoder.
        UnsafeSuspectError: if loading it would run code that came with it.
        SandboxError: if a layer is missing without which this kind of file is not opened.
    """

    def __init__(
        self, path: Path, options: LoadOptions, limits: Limits | None = None, *, without: frozenset[str] = frozenset()
    ) -> None:
        self._options, self.limits, self._without = options, limits or Limits(), without
        private = _private_folder()
        self._private, self._running = private, _Running()
        self._finish = weakref.finalize(self, _end, self._running, private)  # at the interpreter's end, too
        self._source = path
        self.layers: dict[str, str] = {}
        self.format = ""
        self.architecture: str | None = None
        self._size: tuple[int, int] | None = None
        try:
            for name in ("model", "work"):
                (private / name).mkdir()
            self.copied: SuspectCopy = copy_suspect(path, private / "model", self.limits.file_bytes)
            self._start()
        except BaseException:
            self._finish()
            raise

    def __call__(self, images: Tensor) -> Tensor:
        """Returns representations `(n, d)` of images `(n, 3, h, w)` float32 in `[0, 1]`.

        Raises:
            SuspectFailure: if the process died, hung or answered nonsense.
        """
        most = max(1, FRAME_BYTES // max(1, images[0].nbytes)) if len(images) else 1
        return torch.cat([self._ask(part) for part in torch.split(images, most)])

    def _ask(self, images: Tensor) -> Tensor:
        """One frame of images and the frame that answers it."""
        if self._running.process is None:
            self._start()
        header, raw = {"op": "ask", "shape": list(images.shape)}, memoryview(images.contiguous().numpy().data).cast("B")
        with self._watched(self.limits.seconds):
            reply = self._exchange(header, raw)
            rows, dim, dtype = (reply.get(k) for k in ("rows", "dim", "dtype"))
            if type(dim) is not int or not 1 <= dim <= MAX_DIM or rows != len(images) or dtype != "<f4":
                raise BadFrame("answers of another shape")
            if reply["raw"] != 4 * rows * dim:
                raise BadFrame("answers of another length")
            answer = read_exactly(self._pipes()[1], reply["raw"])
        return torch.frombuffer(answer, dtype=torch.float32).reshape(rows, dim)

    def resizes(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """Returns the size that images of this shape `(n, 3, h, w)` are resized to for it, or None."""
        return None if self._size is None else resized(self._size, shape)

    def close(self) -> None:
        """Ends the process and every other of its group; the copy stays until this object goes."""
        self._running.stop()

    def discard(self) -> None:
        """Ends the process and removes the copy: nothing of the suspect is left."""
        self._finish()

    def _start(self) -> None:
        """Starts the process, sees which layers it put on, has it load the copy."""
        private, size = self._private, self.copied.size
        start = {
            "path": _library_folders(),
            "readable": [str(private / "model")],
            "writable": [str(private / "work")],
            "memory": self.limits.memory_bytes or (12 << 30) + 4 * size,
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
        try:
            with self._watched(self.limits.seconds + size / 20e6):
                on = self._exchange(start).get("layers")
                if not isinstance(on, dict) or not all(isinstance(x, str) for kv in on.items() for x in kv):
                    raise BadFrame("no layers")
                self.layers = {printable(k, 40): printable(v, 80) for k, v in on.items()}
                reply = self._load(private / "model")
        except SuspectFailure as e:
            raise SuspectError(f"suspect: {e.message.removeprefix('suspect: ')}", e.hint) from e
        size_stated = reply.get("size")
        if isinstance(size_stated, list) and len(size_stated) == 2 and all(type(x) is int for x in size_stated):
            self._size = (size_stated[0], size_stated[1])
        self.format = printable(reply.get("format"), 40)
        architecture = reply.get("architecture")
        self.architecture = printable(architecture) if isinstance(architecture, str) else None

    def _load(self, folder: Path) -> dict[str, Any]:
        """Has the copy loaded; other files that the model names are copied where the options allow it."""
        header = {"op": "load", "folder": str(folder), "name": self.copied.name, "options": asdict(self._options)}
        reply = self._exchange(header)
        wanted = reply.get("wants")
        if isinstance(wanted, list):
            self.copied = copy_named(self.copied, self._source, wanted, folder, self.limits.file_bytes)
            reply = self._exchange(header)
        return reply

    def _pipes(self) -> tuple[Any, Any]:
        if self._running.process is None:
            raise BadFrame("the process is gone")
        return self._running.process.stdin, self._running.process.stdout

    def _exchange(self, header: dict[str, Any], raw: bytes | memoryview = b"") -> dict[str, Any]:
        """Sends a frame and returns the reply's header; an error that the other side states is raised."""
        to, back = self._pipes()
        write_frame(to, header, raw)
        reply = read_header(back)
        if "error" in reply:
            error = _ERRORS.get(str(reply["error"]), SuspectError)
            raise error(printable(reply.get("message"), 400), printable(reply.get("hint"), 300))
        return reply

    @contextmanager
    def _watched(self, seconds: float) -> Iterator[None]:
        """Kills the process after so many seconds; turns whatever ends the talk early into one line."""
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
            raise  # stated by a process that is well
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()

    def _failure(self, expired: bool, seconds: float, what: str) -> SuspectFailure:
        process = self._running.process
        code = None
        if process is not None and not expired:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(2)  # it may be about to die
        self.close()
        if expired:
            return SuspectFailure(
                f"suspect: stopped after {seconds:.0f} s without an answer", "if it is only slow: --time-limit"
            )
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return SuspectFailure(f"suspect: its process died ({name})", "out of memory, or the model crashes")
        if code is not None:
            return SuspectFailure(f"suspect: its process ended ({code})", "out of memory, or the model crashes")
        return SuspectFailure(f"suspect: bad reply from its process ({printable(what)})", "the model is broken")


@dataclass(slots=True)
class _Running:
    """The process, apart from the encoder, so that it can be ended when the encoder is gone."""

    process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        _kill(process)
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


def _end(running: _Running, folder: Path) -> None:
    running.stop()
    shutil.rmtree(folder, ignore_errors=True)


def _private_folder() -> Path:
    """A fresh folder that only we can enter."""
    try:
        return Path(tempfile.mkdtemp(prefix="turnmark-"))
    except OSError as e:
        raise OwnershipError(f"no private folder can be made ({e.strerror})", "free space, or set TMPDIR") from e


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kills the process with its whole group, and waits."""
    if hasattr(os, "killpg"):
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    with suppress(OSError):
        process.kill()
    process.wait()


def _environment(work: Path) -> dict[str, str]:
    """The cage's environment: nothing of ours but what the system needs to start a program at all."""
    kept = {k: v for k in ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if (v := os.environ.get(k))}
    return {
        **kept,
        **dict.fromkeys(("HOME", "TMPDIR", "TEMP", "TMP", "XDG_CACHE_HOME"), str(work)),
        "LC_ALL": "C.UTF-8",
        "ORT_DISABLE_TELEMETRY": "1",  # before onnxruntime is imported: the Linux wheels phone home
        "HF_HUB_OFFLINE": "1",
    }


def _library_folders() -> list[str]:
    """Where the libraries that the cage needs are installed."""
    folders = set()
    for name in ("torch", "torchvision", "timm", "numpy", "safetensors", "onnx", "onnxruntime"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            folders.add(str(Path(spec.origin).parents[1]))
    return sorted(folders)
