"""Hostile and broken files: the documented exit code, one line, no side effect, in bounded time.

Each file goes through one warm sandbox; some, and in `make slow` all, through the real command.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from support import hostile_files as g
from support import hostile_onnx, scripted
from support.command import Audit
from support.encoders import encoder
from support.warm_sandbox import Open

from ownership.suspects.formats.model_file import LoadOptions
from ownership.suspects.sandbox.encoder import Limits

Made = Callable[[Path], bytes]


def _just(data: Callable[[], bytes]) -> Made:
    return lambda _: data()


# name -> (bytes, options, exit code, what is said)
CASES: dict[str, tuple[Made, tuple[str, ...], int, str]] = {
    # 2 to 5: no model, or a damaged one
    "empty": (_just(lambda: b""), (), 2, "is empty (0 bytes)"),
    "lfs pointer": (_just(lambda: b"version https://git-lfs.github.com/spec/v1\noid x"), (), 2, "a Git-LFS pointer"),
    "html": (_just(lambda: b"<!DOCTYPE html><title>404</title>"), (), 2, "an HTML page"),
    "npy": (_just(lambda: b"\x93NUMPY\x01\x00"), (), 2, "a NumPy file"),
    "random bytes": (_just(lambda: bytes(range(200, 256)) * 9), (), 2, "unknown format"),
    "truncated zip": (_just(lambda: g.pt(g.STATE)[:2000]), (), 2, "damaged"),
    "missing record": (_just(g.missing_record), (), 2, "damaged"),
    "short record": (_just(g.short_record), (), 2, "damaged"),
    # 6, 7: pickles that are programs
    "pickle, raw": (lambda m: pickle.dumps(g.Payload(m), protocol=2), (), 2, "would run code (io.open); nothing ran"),
    "pickle, zipped": (lambda m: g.pt({"w": g.Payload(m)}), (), 2, "would run code (io.open); nothing ran"),
    "pickled module": (_just(lambda: g.pt(torch.nn.Linear(2, 2))), (), 2, "would run code"),
    # 8 to 10: bombs
    "hash bomb": (_just(g.hash_bomb), ("--time-limit", "5"), 2, "stopped after 5 s"),
    "zip bomb": (
        _just(lambda: g.archive(zipfile.ZIP_DEFLATED, **{"a/data.pkl": bytes(50_000_000)})), (), 2, "expands to many times"
    ),
    "allocation bomb, tensor": (_just(lambda: g.pt({"w": g.Call(torch.Tensor, 10**6, 10**6)})), (), 2, "no named tensor"),
    "allocation bomb, bytes": (_just(lambda: g.pt({"w": g.Call(bytearray, 10**11)})), (), 2, "no named tensor"),
    # 11 to 16: no plain weights
    "expanded view": (_just(lambda: g.pt({"w": torch.zeros(1).expand(10**12)})), (), 2, "a shape too large"),
    "sparse": (_just(lambda: g.pt({"w": torch.eye(3).to_sparse()})), (), 2, "unsupported layout"),
    "meta": (_just(lambda: g.pt({"w": torch.zeros(3, device="meta")})), (), 2, "unsupported layout"),
    "complex": (_just(lambda: g.pt({"w": torch.zeros(3, dtype=torch.complex64)})), (), 2, "unsupported layout"),
    "list": (_just(lambda: g.pt([torch.zeros(2)])), (), 2, "expected a mapping of name to tensor, got list"),
    "number": (_just(lambda: g.pt(3)), (), 2, "got int"),
    "integer keys": (_just(lambda: g.pt({1: torch.zeros(2)})), (), 2, "no named tensor"),
    "odd names": (_just(hostile_onnx.odd_names), (), 2, "text\\x1b[31m\\n<script>alert(1)</script>\\u202e../../x"),
    "two members of one name": (_just(g.twice), (), 2, "two members of one name"),
    "nan weights": (
        _just(lambda: save({**g.STATE, "mean": torch.full((1, 3, 1, 1), float("nan"))})), (), 2,
        "tensor mean has 3 values that are not finite",
    ),
    "odd name of a damaged tensor": (
        _just(lambda: save({hostile_onnx.STRINGS: torch.full((2,), float("nan"))})), (), 2,
        "text\\x1b[31m\\n<script>alert(1)</script>\\u202e../../x has 2 values that are not finite",
    ),
    "a name that sounds like memory": (_just(lambda: g.pt({"alloc": torch.eye(3).to_sparse()})), (), 2, "tensor alloc has an unsupported layout"),
    "another architecture": (
        _just(lambda: save(g.STATE)), ("--arch", "small"), 2, "does not fit small: ",
    ),
    # 17, 18: safetensors
    "header of 2^63 bytes": (_just(lambda: (2**63).to_bytes(8, "little") + b"{" + bytes(99)), (), 2, "unknown format"),
    "header no json": (_just(lambda: g.header(b"{not json}", bytes(20))), (), 2, "damaged"),
    "header nested": (_just(lambda: g.header(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")), (), 2, "damaged"),
    "overlap": (_just(lambda: g.header({"a": g.entry([2], [0, 8]), "b": g.entry([2], [4, 12])}, bytes(12))), (), 2, "damaged"),
    "hole": (_just(lambda: g.header({"a": g.entry([1], [0, 4]), "b": g.entry([1], [8, 12])}, bytes(12))), (), 2, "damaged"),
    "trailing bytes": (_just(lambda: save(g.STATE) + bytes(9)), (), 2, "damaged"),
    "shape overflow": (_just(lambda: g.header({"a": g.entry([2**62, 2**62], [0, 4])}, bytes(4))), (), 2, "damaged"),
    "key twice": (_just(lambda: g.header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4))), (), 2, ""),
    "no elements, 2^62 long": (_just(lambda: g.header({"a": g.entry([0, 2**62], [0, 0])})), (), 2, "shape too large"),
    # 19, 20: TorchScript
    "torchscript": (_just(lambda: g.script(scripted.Loops())), (), 2, "this is TorchScript, a program"),
    "torchscript loops": (
        _just(lambda: g.script(scripted.Loops())), ("--allow-torchscript", "--time-limit", "6"), 1, "stopped after 6 s"
    ),
    "torchscript writes": (lambda m: g.script(scripted.Writes(str(m))), ("--allow-torchscript",), 1, "NOT_SUPPORTED"),
    "torchscript reads": (
        lambda m: g.script(scripted.MapsFile(str(m.parent / "secret"))), ("--allow-torchscript",), 2, "cannot take the images"
    ),
    "torchscript counts": (_just(lambda: g.script(scripted.Counts())), ("--allow-torchscript",), 1, "random, stateful or depends"),
    # 21 to 23: torch.export
    "pt2 pickled weights": (g.pt2_pickled_weights, (), 2, "is pickled, not raw tensor data"),
    "pt2 sample inputs": (g.pt2_sample_inputs, (), 2, "the sample inputs are pickled code"),
    "pt2 expression": (g.pt2_expression, (), 2, "symbolic expression __import__"),
    "pt2 argument": (g.pt2_argument, (), 2, "the name x): return 0\\nopen"),
    "pt2 parameter": (g.pt2_parameter, (), 2, "the name body\"), open("),
    "pt2 operator": (_just(lambda: g.pt2_operator("torch.os.system")), (), 2, "operator torch.os.system is not allowed"),
    "pt2 file operator": (_just(lambda: g.pt2_operator("torch.ops.aten.from_file.default")), (), 2, "is not allowed"),
    "pt2 native code": (_just(lambda: g.pt2_member("data/aotinductor/m/x.so", b"\x7fELF")), (), 2, "contains native code"),
    "pt2 pickled object": (
        _just(lambda: g.pt2_member("data/constants/opaque_obj_0", b"\x80\x02.")), (), 2, "unexpected member"
    ),
    "pt2 way out": (_just(lambda: g.pt2_member("../../x", b"")), (), 2, "unexpected member"),
    "pt2 key twice": (_just(g.pt2_key_twice), (), 2, "one key twice"),
    "pt2 damaged": (_just(lambda: g.pt2_with(**{"models/model.json": lambda _: b"{}"})), (), 2, "cannot read the archive"),
    # 25, 26: ONNX that is not what it says
    "onnx domain": (
        _just(lambda: hostile_onnx.graph([hostile_onnx.node("Hack", ["images"], ["y"], domain="evil.corp")], domains=("evil.corp",))), (), 2,
        "operator domain 'evil.corp' is not supported",
    ),
    "onnx compiled": (_just(lambda: hostile_onnx.graph([hostile_onnx.node("EPContext", ["images"], ["y"], domain="com.microsoft")])), (), 2, "EPContext"),
    "ort file": (_just(lambda: bytes(4) + b"ORTM" + bytes(99)), (), 2, "onnxruntime's compiled form"),
    "onnx without data": (_just(lambda: hostile_onnx.declares([10**6, 10**6])), (), 2, "initializer w declares"),
    "onnx negative": (_just(lambda: hostile_onnx.declares([-1, 4])), (), 2, "initializer w declares"),
    "onnx overflow": (_just(lambda: hostile_onnx.declares([2**40, 2**40])), (), 2, "initializer w declares"),
    "onnx sparse": (_just(lambda: hostile_onnx.sparse([10**6, 10**6])), (), 2, "sparse initializer declares"),
    # 27: ONNX that takes all there is
    "onnx loop": (_just(hostile_onnx.endless_loop), ("--time-limit", "6"), 1, "stopped after 6 s"),
    "onnx constant": (_just(hostile_onnx.huge_constant), (), 1, "more memory than it may take"),
    "onnx doubling": (_just(hostile_onnx.doubling), (), 1, "more memory than it may take"),
    "onnx product": (_just(hostile_onnx.giant_product), ("--time-limit", "8", "--memory-limit", "24"), 1, "suspect: stopped after 8 s"),
    # 28: no graph
    "onnx cycle": (_just(hostile_onnx.cycle), (), 2, "graph is invalid"),
    "onnx recursive": (_just(hostile_onnx.recursive), (), 2, "graph is invalid"),
    "onnx deep": (_just(hostile_onnx.deep), (), 2, "ONNX"),
    "onnx garbage": (_just(lambda: b"\x08\x07" + bytes(range(256))), (), 2, "damaged ONNX"),
    "onnx empty": (_just(lambda: hostile_onnx.graph([])), (), 2, "graph is invalid"),
    # 29: no encoder
    "onnx of integers": (_just(lambda: hostile_onnx.flat(kind=hostile_onnx.TensorProto.INT32, out_kind=hostile_onnx.TensorProto.INT32)), (), 2, "one image input"),
    "onnx of one channel": (_just(lambda: hostile_onnx.flat(shape=["n", 1, 16, 16])), (), 2, "takes 1 channels"),
    "onnx of strings": (
        _just(lambda: hostile_onnx.graph([hostile_onnx.node("Cast", ["images"], ["y"], to=hostile_onnx.TensorProto.STRING)], out_kind=hostile_onnx.TensorProto.STRING)),
        (), 2, "no float output",
    ),
    "onnx of one number": (
        _just(lambda: hostile_onnx.graph([hostile_onnx.node("ReduceMean", ["images"], ["y"], axes=[1, 2, 3], keepdims=0)], out=["n"])), (), 2,
        "expected (n, d)",
    ),
    "onnx rows off": (
        _just(lambda: hostile_onnx.graph([hostile_onnx.node("Flatten", ["images"], ["f"]), hostile_onnx.node("Concat", ["f", "f"], ["y"], axis=0)])), (), 2,
        "answers to",
    ),
    "onnx of no dimension": (
        _just(lambda: hostile_onnx.graph([hostile_onnx.node("ReduceMean", ["images"], ["y"], keepdims=0)], out=[])), (), 2,
        "the output has shape (), expected (n, d)",
    ),
    "onnx of two outputs": (_just(hostile_onnx.two_embeddings), (), 2, "has 2 outputs: a (n, 768), b (n, 768)"),
    "onnx of tokens": (_just(hostile_onnx.tokens), (), 2, "has shape (n, 48, 16), and nothing says which axis"),
    "onnx of tokens, pooled": (_just(hostile_onnx.tokens), ("--pooling", "channels-first"), 1, "NOT_SUPPORTED"),
    "onnx of maps": (_just(hostile_onnx.maps), (), 2, "--pooling channels-first for (n, d, h, w)"),
    "onnx of names that harm": (
        _just(lambda: hostile_onnx.two_embeddings(hostile_onnx.STRINGS)), (), 2, "2 outputs: text\\x1b[31m\\n<script>alert"
    ),
    "onnx too new": (_just(lambda: hostile_onnx.of_version(99)), (), 2, "has ONNX IR version 99"),
    "onnx opset too new": (_just(lambda: hostile_onnx.of_version(9, 99)), (), 2, "has opset 99 of ai.onnx"),
    "onnx dynamic": (_just(hostile_onnx.dynamic), (), 1, "NOT_SUPPORTED"),
    "onnx no such output": (_just(hostile_onnx.two_outputs), ("--onnx-output", "nothing"), 2, "no output 'nothing'"),
    # 29 to 31: answers that cannot be tested end in a report
    "onnx infinite": (_just(lambda: hostile_onnx.scaled(float("inf"))), (), 1, "not finite"),
    "onnx constant answers": (_just(hostile_onnx.constant_output), (), 1, "constant"),
    "onnx one direction": (_just(hostile_onnx.one_direction), (), 1, "one direction only"),
    "onnx random": (_just(hostile_onnx.random_output), (), 1, "random, stateful or depends"),
    "onnx batch": (_just(hostile_onnx.batch_dependent), (), 1, "random, stateful or depends"),
}  # fmt: skip


THROUGH_THE_COMMAND = (  # one of each way to end; `make slow` sends the others, too
    "empty",
    "pickle, zipped",
    "odd name of a damaged tensor",
    "another architecture",
    "torchscript writes",
    "pt2 expression",
    "onnx no such output",
    "onnx random",
)
WARM = [name for name in CASES if "--memory-limit" not in CASES[name][1]]  # which is set when a process starts


# "doubling" fills its memory step by step, which takes long; "onnx constant" asks for too much at once
SLOW = {"onnx doubling"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in WARM])
def test_bad_file(name: str, open_hostile: Open, tmp_path: Path) -> None:
    make, arguments, code, said = CASES[name]
    path = bad_file(tmp_path, make)
    outcome = open_hostile(path, load_options(arguments), limits(arguments))
    assert outcome.exit_code == code, outcome
    if said == "NOT_SUPPORTED":  # what wrote in vain is an encoder like any other
        assert not outcome.problems
    else:
        assert re.sub(r"after \d+ s", "after 2 s", said) in outcome.said
        assert bool(outcome.problems) == (code == 1)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in THROUGH_THE_COMMAND else pytest.mark.slow) for n in CASES]
)
def test_bad_file_through_the_command(name: str, audit_hostile: Audit, tmp_path: Path) -> None:
    make, arguments, code, said = CASES[name]
    ended, output = audit_hostile(bad_file(tmp_path, make), *arguments)
    assert ended == code, output
    assert said in output
    if code == 1:  # what cannot be tested is never "not supported"
        assert ("INCONCLUSIVE" in output) == (said != "NOT_SUPPORTED")


def bad_file(folder: Path, make: Made) -> Path:
    (folder / "secret").write_bytes(bytes(range(64)))
    (folder / "suspect.bin").write_bytes(make(folder / "marker"))
    return folder / "suspect.bin"


def load_options(arguments: tuple[str, ...]) -> LoadOptions:
    """The options of a suspect's file that arguments of the command mean."""
    given = dict(itertools.pairwise(arguments))
    return LoadOptions(
        arch=given.get("--arch"),
        output=given.get("--onnx-output"),
        pooling=given.get("--pooling", "auto"),
        allow_torchscript="--allow-torchscript" in arguments,
    )


def limits(arguments: tuple[str, ...]) -> Limits:
    """The same time limit for all that are stopped: the process runs already, so that it need not be long."""
    return Limits(seconds=2) if "--time-limit" in arguments else Limits()


def test_the_environment_cannot_switch_the_guard_off(
    audit_hostile: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    (tmp_path / "evil.pt").write_bytes(g.pt({"w": g.Payload(tmp_path / "marker")}))
    assert audit_hostile(tmp_path / "evil.pt")[0] == 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "folder without weights"),
        (os.mkfifo, "not a regular file"),
        (lambda p: p.symlink_to("/dev/zero"), "not a regular file"),
        (lambda p: p.symlink_to("/nowhere"), "does not exist"),
    ],
    ids=["missing", "directory", "pipe", "device", "dangling"],
)
def test_bad_path(make: Callable[[Path], None], said: str, open_hostile: Open, tmp_path: Path) -> None:
    make(tmp_path / "x")
    outcome = open_hostile(tmp_path / "x")
    assert outcome.exit_code == 2
    assert said in outcome.said


@pytest.mark.parametrize(
    ("make", "said"), [(lambda p: p.symlink_to("/dev/zero"), "not a regular file")], ids=["device"]
)
def test_bad_path_through_the_command(
    make: Callable[[Path], None], said: str, audit_hostile: Audit, tmp_path: Path
) -> None:
    make(tmp_path / "x")
    code, output = audit_hostile(tmp_path / "x")
    assert code == 2
    assert said in output


def test_a_file_larger_than_the_limit(audit_hostile: Audit, tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as f:
        f.truncate(2 << 30)  # a hole: takes no space
    code, output = audit_hostile(tmp_path / "big", "--max-model-gib", "1")
    assert code == 2
    assert "has 2.0 GiB, the limit is 1.0" in output


EXTERNAL: dict[str, tuple[dict[str, str], str]] = {
    "parent": ({"location": "../weights"}, "leaves the model's folder"),
    "absolute": ({"location": "/etc/passwd"}, "leaves the model's folder"),
    "missing": ({"location": "nothing"}, "is not beside the model"),
    "symlink": ({"location": "link"}, "cannot be read"),
    "hard link": ({"location": "hard"}, "not a regular file"),
    "device": ({"location": "pipe"}, "not a regular file"),
    "short": ({"location": "weights", "offset": "64"}, "expected"),
    "negative": ({"location": "weights", "offset": "-64"}, "expected"),
    "huge": ({"location": "weights", "length": str(2**62)}, "expected"),
    "no number": ({"location": "weights", "offset": "x"}, "described wrongly"),
    "itself": ({"location": "suspect"}, "expected"),
}


@pytest.mark.parametrize("name", EXTERNAL)
def test_external_data_that_leads_elsewhere(name: str, open_hostile: Open, tmp_path: Path) -> None:
    path, said = external_data(name, tmp_path)
    outcome = open_hostile(path, LoadOptions(external_data=True))
    assert outcome.exit_code == 2
    assert said in outcome.said
    outcome = open_hostile(path)
    assert outcome.exit_code == 2
    assert "lies in another file" in outcome.said


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "symlink" else pytest.mark.slow) for n in EXTERNAL])
def test_external_data_that_leads_elsewhere_through_the_command(
    name: str, audit_hostile: Audit, tmp_path: Path
) -> None:
    path, said = external_data(name, tmp_path)
    code, output = audit_hostile(path, "--external-data")
    assert code == 2
    assert said in output
    code, output = audit_hostile(path)
    assert code == 2
    assert "lies in another file" in output


def external_data(name: str, tmp_path: Path) -> tuple[Path, str]:
    """A model whose weights lie elsewhere, and what is said of it."""
    about, said = EXTERNAL[name]
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(hostile_onnx.weights_beside())
    (tmp_path / "weights").write_bytes(hostile_onnx.weights_beside())
    (folder / "link").symlink_to(tmp_path / "weights")
    os.link(tmp_path / "weights", folder / "hard")
    os.mkfifo(folder / "pipe")
    (folder / "m.onnx").write_bytes(hostile_onnx.external(**about))
    return folder / "m.onnx", said


def test_external_data_beside_the_model_is_read(audit_hostile: Audit, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(hostile_onnx.weights_beside())
    (tmp_path / "m.onnx").write_bytes(hostile_onnx.external(location="weights"))
    code, _ = audit_hostile(tmp_path / "m.onnx", "--external-data")
    assert code == 1  # an independent: a report
    recorded = json.loads((tmp_path / "report/report.json").read_text())["suspect"]
    assert sorted(recorded["files"]) == ["m.onnx", "weights"]


def test_another_extension_and_bfloat16_are_read(open_hostile: Open, tmp_path: Path) -> None:
    state = {k: v.bfloat16() if v.is_floating_point() else v for k, v in encoder(3).state_dict().items()}
    (tmp_path / "model.onnx").write_bytes(save(state))
    outcome = open_hostile(tmp_path / "model.onnx")
    assert outcome.exit_code == 1
    assert not outcome.problems


def test_names_are_escaped_in_every_output(audit_hostile: Audit, tmp_path: Path) -> None:
    """A suspect's own name, in terminal, page and JSON."""
    name = "<script>x\x1b[2J\u202e.onnx"
    (tmp_path / name).write_bytes(hostile_onnx.flat())
    code, said = audit_hostile(tmp_path / name)
    assert code == 1
    page = (tmp_path / "report/report.html").read_text()
    assert "<script>" not in page
    for text in (said, page, (tmp_path / "report/report.json").read_text()):
        assert "\x1b[2J" not in text
        assert "\u202e" not in text
