"""Runs commands in forked children and kills them: one line of JSON in, one out (tests/ownership/test_crash.py).

Everything is imported once; a child is a command from its first line on. `kill_at` N kills it (SIGKILL) before its N-th
change to the file system below `folder`, `after` S kills it S seconds after its start. `file_limit` B lets no file grow
beyond B bytes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.link", "os.symlink", "os.truncate"}


def watch(folder: str, kill_at: int | None, file_limit: int | None, counter: int) -> None:
    """Counts changes below `folder`, writes each as a byte to `counter`, and kills this process before the N-th.

    The limit on the size of files, which stands in for a full disk (both fail in the middle of a write), is set at the
    first change that is no lock.
    """
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "open":
            path, _, flags = arguments
            changes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            path, changes = (arguments[0] if arguments else None), event in CHANGES
        if not changes or not isinstance(path, str | os.PathLike):
            return
        if not os.path.abspath(os.fspath(path)).startswith(folder):
            return
        seen += 1
        if file_limit is not None and not str(path).endswith((".lock", "report")):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(counter, b".")

    sys.addaudithook(hook)


def child(case: dict[str, Any], counter: int) -> None:
    """Runs one command and ends with its exit code; nothing of it reaches this program's answers."""
    from cli.main import main

    os.chdir(case["folder"])
    with open(case["said"], "wb") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    watch(case["folder"], case.get("kill_at"), case.get("file_limit"), counter)
    sys.argv = ["turnmark", *case["argv"]]
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)


def serve() -> None:
    """Responses cases until the input ends."""
    responses = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        case = json.loads(line)
        read, write = os.pipe()
        Path(case["said"]).write_bytes(b"")
        start, pid = time.monotonic(), os.fork()
        if pid == 0:
            os.close(read)
            child(case, write)
        os.close(write)
        if case.get("after") is not None:
            time.sleep(case["after"])
            os.kill(pid, signal.SIGKILL)  # a process that ended is a zombie until it is waited for
        _, status = os.waitpid(pid, 0)
        seconds = time.monotonic() - start
        os.set_blocking(read, False)
        try:
            changes = len(os.read(read, 65536))
        except BlockingIOError:
            changes = 0
        os.close(read)
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        print(json.dumps({"code": code, "changes": changes, "seconds": seconds}), file=responses, flush=True)


if __name__ == "__main__":
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
    import torch

    import watermark_training.data  # noqa: F401

    torch.set_num_threads(1)  # no pool of threads that a fork would lose
    serve()
