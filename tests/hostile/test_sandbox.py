"""The sandbox: what a process in it cannot do, that the same is possible outside, and that no reply is trusted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support import hostile_files as g
from support import hostile_onnx, scripted
from support.encoders import encoder
from support.warm_sandbox import Open, WarmSandbox

from ownership.encoders.images import represent
from ownership.errors import SandboxError, SuspectError, SuspectFailure
from ownership.suspects.formats.model_file import LoadOptions
from ownership.suspects.sandbox import encoder as sandbox_encoder
from ownership.suspects.sandbox.encoder import Limits, SandboxedEncoder
from ownership.suspects.sandbox.layers import STRICT
from ownership.suspects.suspect import load_suspect

linux = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")

ATTEMPTS = """
import ctypes, json, os, signal, socket, subprocess, sys, threading
from pathlib import Path
secret, outside, parent = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)


def number(code):  # a system call that fails as an error
    if code < 0:
        raise OSError(ctypes.get_errno(), "refused")


def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def unix():
    a, b = socket.socketpair()
    a.close(), b.close()


ATTEMPTS = {
    "read a file": lambda: secret.read_bytes(),
    "list a folder": lambda: list(secret.parent.iterdir()),
    "read /etc/passwd": lambda: open("/etc/passwd").read(),
    "read the parent's environment": lambda: open(f"/proc/{parent}/environ", "rb").read(),
    "read the parent's memory": lambda: open(f"/proc/{parent}/mem", "rb").close(),
    "write a file": lambda: (outside / "new").write_text("x"),
    "append to a file": lambda: secret.open("ab").close(),
    "truncate a file": lambda: os.truncate(secret, 64),
    "unlink a file": lambda: (outside / "victim").unlink(),
    "rename a file": lambda: (outside / "a").rename(outside / "b"),
    "make a folder": lambda: (outside / "folder").mkdir(),
    "make a link": lambda: (outside / "link").symlink_to(secret),
    "change a mode": lambda: os.chmod(secret, 0o600),
    "change times": lambda: os.utime(secret),
    "open a socket": lambda: socket.socket().close(),
    "open a pair of sockets": unix,
    "start a program": lambda: subprocess.run(["/bin/true"], check=True),
    "fork": fork,
    "signal the parent": lambda: os.kill(parent, 0),
    "signal a thread of the parent": lambda: number(libc.syscall(234, parent, parent, 0)),
    "limit the parent": lambda: number(libc.syscall(302, parent, 7, None, ctypes.create_string_buffer(16))),
    "memory file": lambda: os.close(os.memfd_create("x")),
}
done = {}
for name, attempt in ATTEMPTS.items():
    try:
        attempt()
        done[name] = True
    except (OSError, subprocess.SubprocessError):
        done[name] = False
threads = []
thread = threading.Thread(target=lambda: threads.append(1))
thread.start()
thread.join()
print(json.dumps({"done": done, "thread": bool(threads), "environment": sorted(os.environ)}))
"""


def attempts(tmp_path: Path, *, locked: bool) -> dict[str, object]:
    """Runs the attempts, in or out of the sandbox."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("secret", "victim", "a"):
        (outside / name).write_bytes(bytes(64))
    lock = ""
    if locked:
        root = str(Path(sandbox_encoder.__file__).parents[3])
        lock = f"""
import sys, os, importlib
sys.path.insert(0, {root!r})
from ownership.suspects.sandbox.layers import lock
null = open(os.devnull)
on = lock(readable=[sys.prefix, sys.base_prefix, "/usr", "/lib", "/lib64", "/proc/self"], writable=[],
          memory=4 << 30, without=frozenset())
assert set(on) >= {{"landlock", "seccomp"}}, on
"""
    code = textwrap.dedent(lock) + ATTEMPTS
    ran = subprocess.run(
        [sys.executable, "-I", "-c", code, str(outside / "secret"), str(outside), str(os.getpid())],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, object] = json.loads(ran.stdout)
    return found


@linux
def test_nothing_is_possible_inside(tmp_path: Path) -> None:
    found = attempts(tmp_path, locked=True)
    assert not [name for name, worked in found["done"].items() if worked]  # type: ignore[attr-defined]
    assert found["thread"]
    assert sorted(p.name for p in (tmp_path / "outside").iterdir()) == ["a", "secret", "victim"]


@linux
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="two attempts are by x86_64 numbers")
def test_all_of_it_is_possible_outside(tmp_path: Path) -> None:
    """The canary: what the test above says would be worth nothing if these attempts failed anyway."""
    found = attempts(tmp_path, locked=False)
    assert not [name for name, worked in found["done"].items() if not worked]  # type: ignore[attr-defined]


PAYLOADS = {
    "pickle": (lambda m: g.pt({"w": g.Payload(m)}), "torch.load({path!r}, weights_only=False)"),
    "pt2 pickled weights": (g.pt2_pickled_weights, "torch.export.load({path!r})"),
    "pt2 sample inputs": (g.pt2_sample_inputs, "torch.export.load({path!r})"),
    "pt2 expression": (g.pt2_expression, "torch.export.load({path!r})"),
    "pt2 guard": (g.pt2_guard, "torch.export.load({path!r}).module()(torch.rand(2, 3, 16, 16))"),
    "pt2 argument": (g.pt2_argument, "torch.export.load({path!r}).module()"),
    "pt2 parameter": (
        g.pt2_parameter,
        "torch.export.load({path!r}).module(check_guards=False)(torch.rand(2, 3, 16, 16))",
    ),
    "torchscript": (
        lambda m: g.script(scripted.Writes(str(m))),
        "torch.jit.load({path!r})(torch.rand(2, 3, 16, 16))",
    ),
}


def test_the_payloads_fire_where_nothing_stops_them(tmp_path: Path) -> None:
    """The canary of the files: loaded as their libraries load them, each touches its marker."""
    code = "import torch\n"
    for name, (make, load) in PAYLOADS.items():
        (tmp_path / name).write_bytes(make(tmp_path / f"marker of {name}"))
        code += f"try:\n    {load.format(path=str(tmp_path / name))}\nexcept Exception as e: print(repr(e)[:300])\n"
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    for name in PAYLOADS:
        assert (tmp_path / f"marker of {name}").exists(), name + ran.stdout + ran.stderr[-500:]


@linux
def test_a_guard_is_left_out_and_the_rest_works(open_hostile: Open, tmp_path: Path) -> None:
    """Python in an archive's guards would run when the program is called; it is dropped, the program is an encoder."""
    (tmp_path / "g.pt2").write_bytes(g.pt2_guard(tmp_path / "marker"))
    outcome = open_hostile(tmp_path / "g.pt2")
    assert outcome.exit_code == 1
    assert not outcome.problems


@linux
@pytest.mark.parametrize("layer", STRICT)
def test_a_missing_layer_refuses_code(layer: str, tmp_path: Path) -> None:
    sandbox = WarmSandbox(tmp_path, without=frozenset({layer}))
    for kind, data in {"pt2": g.pt2(), "torchscript": g.script(scripted.Counts())}.items():
        (tmp_path / kind).write_bytes(data)
        with pytest.raises(SandboxError, match=f"sandbox lacks: {layer}") as e:
            sandbox.reopen(tmp_path / kind, LoadOptions(allow_torchscript=True), Limits())
        assert e.value.exit_code == 4
    sandbox.close()


def test_weights_open_without_layers_and_the_lack_is_known(tmp_path: Path) -> None:
    """As on macOS and Windows: the other formats run in the process with what there is."""
    save_file(encoder(3).state_dict(), tmp_path / "x.safetensors")
    without = frozenset({"limits", "namespaces", "landlock", "seccomp"})
    bare = SandboxedEncoder(tmp_path / "x.safetensors", LoadOptions(), without=without)
    assert bare.layers == {}
    images = torch.randint(0, 256, (9, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(represent(bare, images), represent(encoder(3), images))  # its kernels may be others
    bare.close()


def test_the_process_knows_nothing_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment and arguments hold no secret, and nothing of it outlives the encoder."""
    monkeypatch.setenv("TURNMARK_TOKEN", "s3cret")
    save_file(encoder(3).state_dict(), tmp_path / "x.safetensors")
    sandboxed = SandboxedEncoder(tmp_path / "x.safetensors", LoadOptions())
    process = sandboxed._running.process
    assert process is not None
    if sys.platform == "linux":
        assert b"s3cret" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert str(tmp_path).encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    folder = sandboxed._private
    del sandboxed
    assert process.poll() is not None
    assert not folder.exists()


def test_a_suspect_is_a_context_manager(tmp_path: Path) -> None:
    save_file(encoder(3).state_dict(), tmp_path / "x.safetensors")
    with load_suspect(tmp_path / "x.safetensors") as suspect:
        sandboxed = suspect.encoder
        assert isinstance(sandboxed, SandboxedEncoder)
        process, folder = sandboxed._running.process, sandboxed._private
        assert process is not None
        assert process.poll() is None
        suspect.pause()
        assert process.poll() is not None
        assert folder.is_dir()
        assert suspect.encoder(torch.rand(2, 3, 16, 16)).shape == (2, 64)
        process = sandboxed._running.process
        assert process is not None
    assert process.poll() is not None
    assert not folder.exists()
    with pytest.raises(ValueError, match="closed"):
        suspect.encoder(torch.rand(2, 3, 16, 16))


FRAME = """
import json, os, struct, sys, time
out, incoming = sys.stdout.buffer, sys.stdin.buffer
def frame(header, raw=b"", said=None):
    text = json.dumps({"raw": len(raw) if said is None else said, **header}).encode()
    out.write(struct.pack("<4sI", b"TMK1", len(text)) + text + raw)
    out.flush()
def read():
    magic, n = struct.unpack("<4sI", incoming.read(8))
    header = json.loads(incoming.read(n))
    incoming.read(header["raw"])
    return header
read()
frame({"layers": {}})
read()
frame({"format": "onnx", "architecture": None, "size": None})
query = read()
n = query["shape"][0]
"""

WORKERS = {
    "silent": "time.sleep(99)",
    "ends": "sys.exit(3)",
    "crashes": "os.kill(os.getpid(), 11)",
    "short": "frame({'rows': n, 'dim': 3, 'dtype': '<f4'}, bytes(12 * n - 4), 12 * n); sys.exit()",
    "other rows": "frame({'rows': n + 1, 'dim': 3, 'dtype': '<f4'}, bytes(12 * n + 12))",
    "huge dim": "frame({'rows': n, 'dim': 10**9, 'dtype': '<f4'}, said=4 * n * 10**9)",
    "negative": "frame({'rows': n, 'dim': -3, 'dtype': '<f4'})",
    "a boolean": "frame({'rows': n, 'dim': True, 'dtype': '<f4'}, bytes(4 * n))",
    "objects": "frame({'rows': n, 'dim': 3, 'dtype': '|O'}, bytes(12 * n))",
    "an unknown choice": "frame({'rows': n, 'dim': 3, 'dtype': '<f4', 'choices': {'verdict': 'x'}}, bytes(12 * n))",
    "a choice, no text": "frame({'rows': n, 'dim': 3, 'dtype': '<f4', 'choices': {'output': [1]}}, bytes(12 * n))",
    "choices that are a list": "frame({'rows': n, 'dim': 3, 'dtype': '<f4', 'choices': ['output']}, bytes(12 * n))",
    "huge header": "out.write(struct.pack('<4sI', b'TMK1', 2**32 - 1)); out.flush(); time.sleep(99)",
    "deep header": "t = b'[' * 9999; out.write(struct.pack('<4sI', b'TMK1', len(t)) + t); out.flush()",
    "no frame": "out.write(b'hello' * 99); out.flush()",
    "a pickle": "import pickle; out.write(pickle.dumps([1] * 99)); out.flush()",
    "flood": "\nwhile True: out.write(bytes(65536))",
    "drip": "\nfor _ in range(999): out.write(b'T'); out.flush(); time.sleep(1)",
    "leaves a child": "\nif os.fork() == 0: time.sleep(99)\nos._exit(0)",
}


def alive(group: int) -> list[str]:
    """Processes of a group that still run (Linux); those that wait to be collected by init do not."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        state, _, pgrp = text.rpartition(")")[2].split()[:3]
        if int(pgrp) == group and state not in "ZX":
            found.append(text)
    return found


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_that_was_taken_over(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the other side sends: a failure of the suspect, in bounded time and memory, and no process left."""
    (tmp_path / "worker.py").write_text(FRAME + WORKERS[name] + "\n")
    (tmp_path / "x.onnx").write_bytes(b"anything")
    monkeypatch.setattr(sandbox_encoder, "LAUNCH", tmp_path / "worker.py")
    sandboxed = SandboxedEncoder(tmp_path / "x.onnx", LoadOptions())
    sandboxed.limits = Limits(seconds=1)
    process = sandboxed._running.process
    assert process is not None
    with pytest.raises(SuspectFailure) as e:
        sandboxed(torch.rand(4, 3, 16, 16))
    assert "\n" not in e.value.message
    end = time.monotonic() + 5  # killed is not yet gone
    while alive(process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(process.pid)


def test_a_hostile_error_is_one_escaped_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "frame({'error': 'suspect', 'message': 'a\\n\\x1b[31mb' + 'x' * 9000, 'hint': '<b>'})"
    (tmp_path / "worker.py").write_text(FRAME + said + "\n")
    (tmp_path / "x.onnx").write_bytes(b"anything")
    monkeypatch.setattr(sandbox_encoder, "LAUNCH", tmp_path / "worker.py")
    sandboxed = SandboxedEncoder(tmp_path / "x.onnx", LoadOptions())
    sandboxed.limits = Limits(seconds=1)
    with pytest.raises(SuspectError) as e:
        sandboxed(torch.rand(4, 3, 16, 16))
    assert "\x1b" not in e.value.message
    assert "\n" not in e.value.message
    assert len(e.value.message) <= 400


def test_a_hostile_choice_is_one_escaped_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "{'output': 'a\\n\\x1b[31mb' + 'x' * 9000}"
    reply = f"frame({{'rows': n, 'dim': 3, 'dtype': '<f4', 'choices': {said}}}, bytes(12 * n))"
    (tmp_path / "worker.py").write_text(FRAME + reply + "\n")
    (tmp_path / "x.onnx").write_bytes(b"anything")
    monkeypatch.setattr(sandbox_encoder, "LAUNCH", tmp_path / "worker.py")
    sandboxed = SandboxedEncoder(tmp_path / "x.onnx", LoadOptions())
    assert sandboxed.choices == {}
    sandboxed(torch.rand(4, 3, 16, 16))
    assert sandboxed.choices["output"].startswith("a\\n\\x1b[31mbxx")
    assert len(sandboxed.choices["output"]) <= 120
    sandboxed.close()


def test_the_sandbox_says_what_was_chosen(warm_sandbox: WarmSandbox, tmp_path: Path) -> None:
    """Known in the auditor's process, after the first query."""
    (tmp_path / "maps.onnx").write_bytes(hostile_onnx.maps())
    warm_sandbox.reopen(tmp_path / "maps.onnx", LoadOptions(pooling="channels-first"), Limits())
    assert warm_sandbox.choices == {}
    warm_sandbox(torch.rand(2, 3, 16, 16))
    assert warm_sandbox.choices == {"pooling": "mean of (n, 6, 4, 32), channels first"}
    (tmp_path / "dynamic.onnx").write_bytes(hostile_onnx.dynamic())
    warm_sandbox.reopen(tmp_path / "dynamic.onnx", LoadOptions(), Limits())
    assert warm_sandbox.choices == {"batch": "one image at a time"}


def test_doctor_says_what_is_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from cli.main import main
    from ownership.suspects.sandbox import check

    def run() -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["turnmark", "doctor"])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, capsys.readouterr().out

    here = check.layers_here()
    monkeypatch.setattr(check, "layers_here", lambda: here)
    code, said = run()
    assert code == (0 if set(STRICT) <= set(here) else 4)
    for name in here:
        assert name in said
    monkeypatch.setattr(check, "layers_here", lambda: {"limits": "as"})
    code, said = run()
    assert code == 4
    assert "missing: landlock, seccomp" in said


@linux
def test_no_space_for_the_copy_is_one_line(tmp_path: Path, claim_folder: Path) -> None:
    """A file size limit stands in for a full disk: both fail in the middle of a write."""
    (tmp_path / "x").write_bytes(bytes(4 << 20))
    (tmp_path / "tmp").mkdir()
    code = (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        f"sys.argv = ['turnmark', 'audit', {str(tmp_path / 'x')!r}, '--claim', {str(claim_folder)!r}]\n"
        "from cli.main import main\nmain()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )
    assert ran.returncode == 2
    assert "error: no private copy of the suspect can be made" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not list((tmp_path / "tmp").iterdir())
