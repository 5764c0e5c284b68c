"""Any bytes: loaded, or refused by an `OwnershipError`; good models of many makes: the same answers in every form."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from support import hostile_files as g
from support import hostile_onnx
from support.command import Audit
from support.warm_sandbox import Open, WarmSandbox
from torch import nn
from torchvision import models

from ownership.encoders.images import represent
from ownership.errors import OwnershipError, SuspectError
from ownership.suspects.formats.model_file import LoadOptions, detect_format, open_model
from ownership.suspects.formats.torch_export_vetting import is_arithmetic, vet_archive
from ownership.suspects.preprocessing import NONE, of_channels
from ownership.suspects.sandbox.encoder import Limits
from ownership.suspects.suspect import load_suspect

PREFIXES = [b"", b"PK\x03\x04", b"\x80\x02", b"\x08\x07\x12", (64).to_bytes(8, "little") + b"{", b"\x93NUMPY", b"<html"]
SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SETTINGS
@given(prefix=st.sampled_from(PREFIXES), data=st.binary(max_size=300))
def test_any_bytes_are_loaded_or_refused(prefix: bytes, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(prefix + data or b"x")
    with suppress(OwnershipError):
        detect_format(path)
        open_model(path, LoadOptions(), missing_layers=("all",))


@SETTINGS
@given(data=st.binary(max_size=200), name=st.text(max_size=40))
def test_any_archive_is_vetted_or_refused(data: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pt2"
    path.write_bytes(g.archive(**{"a/archive_format": b"pt2", "a/models/model.json": data, "a/" + (name or "x"): data}))
    with suppress(OwnershipError):
        vet_archive(path)


@SETTINGS
@given(st.text(max_size=60))
def test_is_arithmetic_accepts_arithmetic_only(text: str) -> None:
    """What is called harmless names nothing but sizes and the functions on the list."""
    if is_arithmetic(text):
        import ast

        names = {n.id for n in ast.walk(ast.parse(text, mode="eval")) if isinstance(n, ast.Name)}
        assert not names & {"__import__", "eval", "exec", "open", "getattr"}
        assert not any(isinstance(n, ast.Attribute) for n in ast.walk(ast.parse(text, mode="eval")))


def mutations(count: int, most: int, seed: int) -> Iterator[bytes]:
    """Files of each format in turn with up to so many bytes changed."""
    rng = np.random.default_rng(seed)
    files = (g.pt(g.STATE), save(g.STATE), hostile_onnx.flat(), g.pt2())
    for i in range(count):
        changed = bytearray(files[i % len(files)])
        for at in rng.integers(0, min(len(changed), 4000), int(rng.integers(1, most))):
            changed[at] = rng.integers(256)
        yield bytes(changed)


def test_mutated_files(open_hostile: Open, tmp_path: Path) -> None:
    """A few here; 10,000 a format: benchmarks.fuzz."""
    for data in mutations(40, 6, seed=0):
        (tmp_path / "m").write_bytes(data)
        assert open_hostile(tmp_path / "m").exit_code in (1, 2)


@pytest.mark.parametrize("count", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_mutated_files_through_the_command(count: int, audit_hostile: Audit, tmp_path: Path) -> None:
    for data in mutations(count, 6, seed=1):
        (tmp_path / "m").write_bytes(data)
        code, said = audit_hostile(tmp_path / "m")
        assert code in (0, 1, 2), said
        for old in (tmp_path / "report").glob("*"):
            old.unlink()


class Normalised(nn.Module):
    """A library's network with its preprocessing, without its classifier."""

    def __init__(self, body: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body((images - self.mean) / self.std)
        return out


def library_model(name: str) -> tuple[nn.Module, nn.Module]:
    """The library's own model, classifier and all, and its encoder."""
    library, _, model = name.partition(":")
    torch.manual_seed(0)
    whole: Any = models.get_model(model) if library == "torchvision" else timm.create_model(model)
    torch.manual_seed(0)
    bare: Any = models.get_model(model) if library == "torchvision" else timm.create_model(model)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    if library == "timm":
        bare.reset_classifier(0)
        mean, std = whole.pretrained_cfg["mean"], whole.pretrained_cfg["std"]
    elif hasattr(bare, "fc"):
        bare.fc = nn.Identity()
    elif hasattr(bare, "heads"):
        bare.heads = nn.Identity()
    else:
        bare.classifier[-1] = nn.Identity()
    return whole.eval(), Normalised(bare, mean, std).eval()


def forms(name: str, size: int, folder: Path, opsets: tuple[int, ...]) -> dict[str, tuple[Path, LoadOptions]]:
    """Every form of one model."""
    whole, bare = library_model(name)
    out = {}
    (folder / "m.safetensors").write_bytes(save(whole.state_dict()))
    torch.save(whole.state_dict(), folder / "m.pt")
    for form in ("safetensors", "pt"):
        out[form] = (folder / f"m.{form}", LoadOptions(arch=name))
    shapes = ({0: torch.export.Dim("n", min=1, max=4096)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(
            torch.export.export(bare, (torch.rand(2, 3, size, size),), dynamic_shapes=shapes), folder / "m.pt2"
        )
        out["pt2"] = (folder / "m.pt2", LoadOptions())
        for opset in opsets:
            program = torch.onnx.export(
                bare,
                (torch.rand(2, 3, size, size),),
                dynamo=True,
                opset_version=opset,
                verbose=False,
                dynamic_shapes=shapes,
            )
            path = folder / f"m{opset}.onnx"
            path.write_bytes(program.model_proto.SerializeToString())
            out[f"onnx {opset}"] = (path, LoadOptions())
    outside = folder / "outside"
    outside.mkdir()
    onnx.save(onnx.load(path), outside / "m.onnx", save_as_external_data=True, location="m.data")
    out["onnx, external"] = (outside / "m.onnx", LoadOptions(external_data=True))
    return out


MODELS = {
    "torchvision:resnet18": 64,
    "torchvision:resnet50": 64,
    "torchvision:mobilenet_v2": 64,
    "torchvision:vit_b_16": 224,
    "timm:vit_tiny_patch16_224": 224,
}


@pytest.mark.parametrize(
    ("name", "opsets"),
    [
        ("torchvision:resnet18", (18,)),
        *(
            pytest.param(name, (18, 20, 23), marks=pytest.mark.slow)
            for name in MODELS
            if name != "torchvision:resnet18"
        ),
        pytest.param("torchvision:resnet18", (18, 20), marks=pytest.mark.slow),
    ],
)
def test_good_models_answer_alike_in_every_form(
    name: str, opsets: tuple[int, ...], warm_sandbox: WarmSandbox, tmp_path: Path
) -> None:
    size = MODELS[name]
    _, bare = library_model(name)
    images = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wanted = represent(bare, images)
    for form, (path, options) in forms(name, size, tmp_path, opsets).items():
        warm_sandbox.reopen(path, options, Limits())
        known = warm_sandbox.described  # bare weights hold no normalisation: the library's is applied before them
        prepare = NONE if known.mean is None or known.std is None else of_channels(known.mean, known.std)
        got = represent(prepare.before(warm_sandbox), images)
        largest = float(wanted.abs().max())
        torch.testing.assert_close(
            got, wanted, atol=1e-4 * max(1.0, largest), rtol=1e-4, msg=lambda m, f=form: f"{f}: {m}"
        )


def test_a_better_architecture_is_suggested(warm_sandbox: WarmSandbox, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(models.resnet34().state_dict(), tmp_path / "m.pt")
    with pytest.raises(SuspectError, match="does not fit torchvision:resnet18") as e:
        warm_sandbox.reopen(tmp_path / "m.pt", LoadOptions(arch="torchvision:resnet18"), Limits())
    assert e.value.hint == "did you mean torchvision:resnet34?"
    warm_sandbox.reopen(tmp_path / "m.pt", LoadOptions(), Limits())
    assert warm_sandbox.architecture == "torchvision:resnet34"


@pytest.mark.slow
def test_a_file_of_two_gibibytes(tmp_path: Path) -> None:
    """Loaded in the sandbox; this process's memory does not grow with it."""
    import resource

    torch.save({**g.STATE, "body.padding": torch.zeros(2**29)}, tmp_path / "big.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SuspectError, match="fit no known architecture"):
        load_suspect(tmp_path / "big.pt")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


FOREIGN = """
import sys
sys.platform = {platform!r}
sys.modules["resource"] = None
sys.path.insert(0, {root!r})
import ownership.suspects.sandbox.frames, ownership.suspects.sandbox.copying, ownership.errors
from ownership.suspects.sandbox.layers import lock
assert lock(readable=[], writable=[], memory=1 << 40, without=frozenset()) == {{}}
"""


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_have_no_layers_and_no_error(platform: str) -> None:
    """What the sandbox needs of Linux is not imported elsewhere; test_sandbox.py tests a sandbox without layers."""
    code = FOREIGN.format(platform=platform, root=str(Path(__file__).parents[2]))
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="setpriv is Linux's")
def test_an_ordinary_user_has_the_sandbox(tmp_path: Path) -> None:
    """As root, audits run in the other tests; here as the user 65534, who can read only the libraries."""
    import os
    import shutil

    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from ownership.suspects.sandbox.check import layers_here
on = layers_here()
assert {{"landlock", "seccomp", "limits"}} <= set(on), on
"""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    pythons = [p for p in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}") if Path(p).exists()]
    libraries = str(Path(torch.__file__).parents[1])
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "PYTHONPATH": libraries}

    def as_ordinary_user(python: str, program: str) -> subprocess.CompletedProcess[str]:
        as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-c", program]
        return subprocess.run(as_user, capture_output=True, text=True, check=False, env=environment, cwd="/")

    reads = "import numpy, importlib.util as i; open(i.find_spec('torch').origin)"
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {reads!r}], check=True)"
    python = next((p for p in pythons if as_ordinary_user(p, starts).returncode == 0), None)
    if python is None:
        pytest.skip("an ordinary user cannot run Python with these libraries here")
    ran = as_ordinary_user(python, code)
    assert ran.returncode == 0, ran.stderr[-800:]
