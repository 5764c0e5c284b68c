"""Loading suspects: every good form gives the same representations; every bad input is one clear line."""

from __future__ import annotations

import io
import pickle
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from safetensors.torch import save, save_file
from support.encoders import encoder
from support.sampling import number
from torchvision import models

from ownership.encoders.architectures import ARCHITECTURES, Encoder
from ownership.encoders.images import represent, three_channels
from ownership.errors import OwnershipError, SuspectError, UnsafeSuspectError
from ownership.io.canonical import sha256
from ownership.suspects.formats.adapter import AdaptedEncoder
from ownership.suspects.suspect import load_encoder
from watermark_training.data import Data
from watermark_training.encoder_files import onnx_bytes, weights_bytes


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One encoder in every form, in a folder with a space and non-ASCII letters."""
    folder = tmp_path_factory.mktemp("Verdächtige 嫌疑")
    e = encoder(3)
    forms = {
        "a.safetensors": weights_bytes(e, "tiny"),
        "bare.safetensors": save(e.state_dict()),
        "wrong extension.pt": save(e.state_dict()),
        "a.onnx": onnx_bytes(e, (16, 16)),
    }
    for name, data in forms.items():
        (folder / name).write_bytes(data)
    torch.save(e.state_dict(), folder / "a.pt")
    torch.save({"state_dict": e.state_dict()}, folder / "wrapped.pth")
    torch.save(e.state_dict(), folder / "legacy.pt", _use_new_zipfile_serialization=False)
    return {path.name: path for path in folder.iterdir()}


def test_every_form_gives_the_same_representations(files: dict[str, Path], digits: Data) -> None:
    expected = represent(encoder(3), digits.images[:70])
    for name, path in files.items():
        suspect = load_encoder(path)
        torch.testing.assert_close(represent(suspect.encoder, digits.images[:70]), expected, atol=1e-4, rtol=1e-4)
        assert suspect.sha256 == sha256(path.read_bytes()), name
        assert suspect.architecture == (None if name.endswith("onnx") else "tiny")


@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_every_architecture_is_recognised_from_its_weights(arch: str, tmp_path: Path) -> None:
    made = ARCHITECTURES[arch]()
    (tmp_path / "x.safetensors").write_bytes(save(made.state_dict()))
    suspect = load_encoder(tmp_path / "x.safetensors")
    assert suspect.architecture == arch
    responses = suspect.encoder(torch.rand(2, 3, 16, 16))
    assert responses.shape == (2, made.dim)


class _Payload:
    """A pickle that would write a file when loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (open, (str(self.marker), "w"))


@pytest.mark.parametrize("raw", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_nothing_runs(tmp_path: Path, raw: bool) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "evil.pt"
    if raw:
        path.write_bytes(pickle.dumps(_Payload(marker), protocol=2))
    else:
        torch.save({"w": _Payload(marker)}, path)
    with pytest.raises(UnsafeSuspectError, match=r"would run code \(io.open\); nothing ran"):
        load_encoder(path)
    assert not marker.exists()
    if raw:  # the payload does fire where nothing stops it
        pickle.loads(path.read_bytes()).close()
        assert marker.exists()


def test_the_environment_cannot_switch_the_guard_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"w": _Payload(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(UnsafeSuspectError):
        load_encoder(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def _pt(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _zip(compression: int, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _graph(shape: list[object], out: list[object], op: str = "Flatten", kind: int = TensorProto.FLOAT) -> bytes:
    nodes = [helper.make_node(op, ["images"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info("y", kind, out)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def _external() -> bytes:
    model = onnx.load_model_from_string(_graph(["n", 3, 16, 16], ["n", 768]))
    tensor = TensorProto(name="w", dims=[4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.initializer.append(tensor)
    return bytes(model.SerializeToString())


STATE = encoder(3).state_dict()

BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "random bytes": (bytes(range(200, 256)) * 9, "unknown format"),
    "text": (b"hello world, this is no model", "unknown format"),
    "almost protobuf": (b"\x08\x07hello", "unknown format, or a damaged ONNX"),
    "html": (b"<!doctype html><html>404</html>", "an HTML page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "Git-LFS pointer"),
    "npy": (b"\x93NUMPY\x01\x00", "NumPy file"),
    "zip of something": (_zip(0, **{"readme.txt": b"x"}), "no PyTorch file"),
    "truncated zip": (_pt(STATE)[:2000], "damaged"),
    "torchscript": (_zip(0, **{"a/constants.pkl": b"x", "a/data.pkl": b"x"}), "TorchScript"),
    "zip bomb": (_zip(zipfile.ZIP_DEFLATED, **{"a/data.pkl": bytes(50_000_000)}), "expands"),
    "pt of a list": (_pt([torch.zeros(2)]), "expected a mapping"),
    "pt of numbers": (_pt({"a": 1}), "no named tensor"),
    "pt with integer keys": (_pt({1: torch.zeros(2)}), "no named tensor"),
    "pt of an expanded view": (_pt({"a": torch.zeros(1).expand(10**6)}), "unsupported layout"),
    "pt of a sparse tensor": (_pt({"a": torch.eye(3).to_sparse()}), "unsupported layout"),
    "another architecture": (save({"w": torch.zeros(2)}), "fit no known architecture"),
    "safetensors cut short": (save(STATE)[:-10], "damaged"),
    "safetensors header": ((10).to_bytes(8, "little") + b"{not json}" + bytes(20), "damaged"),
    "onnx of one channel": (_graph(["n", 1, 16, 16], ["n", 256]), "takes 1 channels"),
    "onnx without an image": (_graph(["n", 16], ["n", 16]), "one image input"),
    "onnx of integers": (_graph(["n", 3, 16, 16], ["n", 768], kind=TensorProto.INT32), "one image input"),
    "onnx unknown operator": (_graph(["n", 3, 16, 16], ["n", 768], "Hack"), "graph is invalid"),
    "onnx external data": (_external(), "lies in another file"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_files_are_one_clear_line(name: str, tmp_path: Path) -> None:
    data, said = BAD[name]
    path = tmp_path / "suspect.bin"
    path.write_bytes(data)
    with pytest.raises(SuspectError, match=said) as e:
        load_encoder(path)
    assert "\n" not in e.value.message
    assert e.value.hint
    assert e.value.exit_code == 2


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(SuspectError, match="does not exist"):
        load_encoder(tmp_path / "nothing")
    with pytest.raises(SuspectError, match="a folder without weights"):
        load_encoder(tmp_path)
    with pytest.raises(SuspectError, match="not a regular file"):
        load_encoder("/dev/null")


def test_a_wrong_architecture_is_named(files: dict[str, Path]) -> None:
    with pytest.raises(SuspectError, match=r"does not fit small: .* missing"):
        load_encoder(files["a.pt"], arch="small")
    with pytest.raises(SuspectError, match="unknown architecture"):
        load_encoder(files["a.pt"], arch="resnet9000")


def test_onnx_of_another_size_and_of_fixed_batch(digits: Data, tmp_path: Path) -> None:
    (tmp_path / "big.onnx").write_bytes(_graph(["n", 3, 32, 32], ["n", 3072]))
    big = load_encoder(tmp_path / "big.onnx")
    assert isinstance(big.encoder, AdaptedEncoder)
    assert big.resizes((4, 3, 16, 16)) == (32, 32)
    assert big.resizes((4, 3, 32, 32)) is None
    enlarged = three_channels(F.interpolate(digits.images[:4].float() / 255, size=(32, 32), mode="bilinear"))
    torch.testing.assert_close(represent(big.encoder, digits.images[:4]), enlarged.flatten(1))
    (tmp_path / "fixed.onnx").write_bytes(_graph([4, 3, 16, 16], [4, 768]))
    responses = represent(load_encoder(tmp_path / "fixed.onnx").encoder, digits.images[:7])
    expected = (digits.images[:7].float() / 255).expand(-1, 3, -1, -1).flatten(1)
    np.testing.assert_allclose(responses.numpy(), expected.numpy(), atol=1e-6)


@pytest.mark.sampled
def test_no_other_exception_escapes_a_mutated_file(files: dict[str, Path], tmp_path: Path) -> None:
    """A few hundred single-byte changes: accepted, or refused with our own error."""
    rng = np.random.default_rng(0)
    for name in ("a.pt", "a.safetensors", "a.onnx"):
        original = files[name].read_bytes()
        for _ in range(number(60, 15)):
            data = bytearray(original)
            data[rng.integers(0, min(len(data), 3000))] = rng.integers(0, 256)
            (tmp_path / "m").write_bytes(bytes(data))
            try:
                suspect = load_encoder(tmp_path / "m")
                assert isinstance(suspect.encoder, Encoder) or name == "a.onnx"
            except OwnershipError:
                pass


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "timm:mobilenetv3_small_050"])
def test_backbones_of_the_libraries_load_by_name(name: str, tmp_path: Path) -> None:
    """The library's own file, classifier and all, and our form of it, give the library's features."""
    library, _, model = name.partition(":")
    torch.manual_seed(0)
    own: Any = models.get_model(model) if library == "torchvision" else timm.create_model(model)
    own.eval()
    torch.save(own.state_dict(), tmp_path / "own.pth")
    loaded = load_encoder(tmp_path / "own.pth", name)
    assert isinstance(loaded.encoder, Encoder)
    x = torch.rand(2, 3, 64, 64)
    mean, std = loaded.encoder.mean, loaded.encoder.std
    with torch.no_grad():
        features = own.forward_features((x - mean) / std) if library == "timm" else own.features((x - mean) / std)
        if library == "timm":
            expected = own.forward_head(features, pre_logits=True)
        else:
            expected = own.classifier[:-1](own.avgpool(features).flatten(1))
        torch.testing.assert_close(loaded.encoder(x), expected)
    assert mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    (tmp_path / "ours.safetensors").write_bytes(weights_bytes(loaded.encoder, name))
    again = load_encoder(tmp_path / "ours.safetensors")
    assert again.architecture == name
    with torch.no_grad():
        assert torch.equal(again.encoder(x), loaded.encoder(x))


def test_a_small_file_cannot_ask_for_a_large_network(tmp_path: Path) -> None:
    """A thousand million parameters by name: refused from their shapes, before any memory is taken for them."""
    save_file(
        {"x": torch.zeros(1)}, tmp_path / "m.safetensors", metadata={"architecture": "timm:vit_giant_patch14_dinov2"}
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SuspectError, match="tensors missing"):
        load_encoder(tmp_path / "m.safetensors")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB; the network takes four times that


@pytest.mark.parametrize("name", ["timm:hf-hub:someone/model", "timm:local-dir:x", "torchvision:squeezenet1_0", "x:y"])
def test_a_name_in_a_file_reaches_no_hub_and_no_folder(name: str, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "m.safetensors", metadata={"architecture": name})
    with pytest.raises(SuspectError, match="fit no known architecture"):
        load_encoder(tmp_path / "m.safetensors")
    with pytest.raises(SuspectError, match="unknown architecture"):
        load_encoder(tmp_path / "m.safetensors", name)


def test_a_single_file_does_not_read_what_lies_beside_it(tmp_path: Path) -> None:
    """In our own process as in the sandbox: a configuration counts only where the suspect is a folder."""
    (tmp_path / "config.json").write_text("no json")
    (tmp_path / "a.safetensors").write_bytes(save(encoder(3).state_dict()))
    assert load_encoder(tmp_path / "a.safetensors").architecture == "tiny"
