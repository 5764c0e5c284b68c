"""`torch.export` archives and TorchScript as people write them: opened rightly, or refused with the choices."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import hostile_files as g
from support.encoders import encoder
from support.exported import EXAMPLE, IMAGES, Model, exported
from torch import Tensor, nn

from ownership.errors import SuspectError, UnsafeSuspectError
from ownership.suspects.formats.adapter import AdaptedEncoder
from ownership.suspects.formats.torch_export import open_exported, open_torchscript


@pytest.fixture(scope="module")
def expected() -> Tensor:
    with torch.no_grad():
        return encoder(3)(IMAGES)


def opened(data: bytes, folder: Path, output: str | None = None, pooling: str = "auto") -> AdaptedEncoder:
    (folder / "m.pt2").write_bytes(data)
    return open_exported(folder / "m.pt2", output, pooling)


def close(answer: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(answer, expected, atol=tolerance, rtol=tolerance)


class Without(Model):
    """A gradient switched off and on inside."""

    def forward(self, images: Tensor) -> Any:
        with torch.no_grad():
            halves = super().forward(images) / 2
        return halves + halves


class Inside(Model):
    def forward(self, images: Tensor) -> Any:
        with torch.no_grad():
            return super().forward(images)


class Autocast(Model):
    def forward(self, images: Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            answer = super().forward(images)
        return answer.float()


@pytest.mark.parametrize(("model", "tolerance"), [(Without, 1e-4), (Inside, 1e-4), (Autocast, 3e-2)])
def test_wrappers_around_a_part_of_the_graph(
    model: Callable[[], nn.Module], tolerance: float, tmp_path: Path, expected: Tensor
) -> None:
    close(opened(exported(model(), EXAMPLE), tmp_path)(IMAGES), expected, tolerance)


def _injected(change: Callable[[dict[str, Any]], None], model: nn.Module | None = None) -> bytes:
    """A good archive whose model.json is changed."""

    def inject(name: str, data: bytes) -> list[tuple[str, bytes]]:
        if name.endswith("models/model.json"):
            value = json.loads(data)
            change(value["graph_module"])
            data = json.dumps(value).encode()
        return [(name, data)]

    return g.rewritten(exported(model or Without(), EXAMPLE), inject)


def _wrapper(module: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(n for n in module["graph"]["nodes"] if "higher_order" in n["target"])
    return found


def _subgraph(module: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(i["arg"]["as_graph"] for i in _wrapper(module)["inputs"] if "as_graph" in i["arg"])
    return found


def _operator(module: dict[str, Any]) -> None:
    _subgraph(module)["graph"]["nodes"][0]["target"] = "torch.os.system"


def _file_operator(module: dict[str, Any]) -> None:
    _subgraph(module)["graph"]["nodes"][0]["target"] = "torch.ops.aten.from_file.default"


def _another_wrapper(module: dict[str, Any]) -> None:
    _wrapper(module)["target"] = "torch.ops.higher_order.cond"


def _subgraph_name(module: dict[str, Any]) -> None:
    _subgraph(module)["name"] = "forward"


def _keyword(module: dict[str, Any]) -> None:
    _wrapper(module)["inputs"][0] |= {"name": "enable_grad", "kind": 2}


def _elsewhere(module: dict[str, Any]) -> None:
    other = next(n for n in module["graph"]["nodes"] if "aten" in n["target"])
    other["inputs"].append({"name": "x", "arg": {"as_graph": _subgraph(module)}, "kind": 1})


def _argument(module: dict[str, Any]) -> None:
    module["module_call_graph"][0]["signature"]["forward_arg_names"] = ["x=print(1)"]


def _key(module: dict[str, Any]) -> None:
    signature = module["module_call_graph"][0]["signature"]
    signature["in_spec"] = signature["in_spec"].replace('"context": "[]"', '"context": "[\\"x=print(1)\\"]"')


def _tensor_name(module: dict[str, Any]) -> None:
    module["graph"]["inputs"][0]["as_tensor"]["name"] = "x=print(1)"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_operator, "operator torch.os.system is not allowed"),
        (_file_operator, "from_file.default is not allowed"),
        (_another_wrapper, "operator torch.ops.higher_order.cond is not allowed"),
        (_subgraph_name, "subgraph forward"),
        (_keyword, "of other arguments than torch writes"),
        (_elsewhere, "is not allowed"),
        (_argument, r"the name x=print\(1\)"),
        (_key, r"the name x=print\(1\)"),
        (_tensor_name, r"the name x=print\(1\)"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_subgraphs_and_names_are_vetted(change: Callable[[dict[str, Any]], None], said: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeSuspectError, match=f"pt2 refused: .*{said}"):
        opened(_injected(change), tmp_path)


class Options(Model):
    """As models of a hub are called: by keyword, with inputs that may be left out."""

    def forward(self, pixel_values: Tensor, mask: Tensor | None = None, train: bool = False) -> Any:
        return super().forward(pixel_values if mask is None and not train else -pixel_values)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {"pixel_values": EXAMPLE}),
        ((EXAMPLE, None), {}),
        ((), {"pixel_values": EXAMPLE, "mask": None, "train": False}),
        ((EXAMPLE,), {"train": False}),
    ],
    ids=["keyword", "none", "all", "mixed"],
)
def test_inputs_by_keyword_and_inputs_left_out(
    args: tuple[Any, ...], kwargs: dict[str, Any], tmp_path: Path, expected: Tensor
) -> None:
    close(opened(exported(Options(), *args, **kwargs), tmp_path)(IMAGES), expected)


def test_two_tensors_are_no_image_encoder(tmp_path: Path) -> None:
    with pytest.raises(SuspectError, match=r"takes torch\.float32 of 4 dimensions, torch\.float32 of 2 dimensions"):
        opened(exported(Options(), EXAMPLE, torch.zeros(2, 2)), tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.uint8], ids=str)
def test_types_of_input(dtype: torch.dtype, tmp_path: Path) -> None:
    images = (255 * IMAGES).round() / 255
    scale = 255 if dtype == torch.uint8 else 1
    model = Model(first=lambda x: x.float() / scale)
    with torch.no_grad():
        wanted = encoder(3)(images)
    answer = opened(exported(model, (scale * EXAMPLE).to(dtype)), tmp_path)(images)
    close(answer, wanted, 5e-3 if dtype == torch.float16 else 1e-4)


def _dictionary(y: Tensor) -> dict[str, Tensor]:
    return {"logits": y[:, :3], "features": y}


def _two(y: Tensor) -> tuple[Tensor, Tensor]:
    return y[:, :3], y


def test_a_dictionarys_key_or_a_tuples_position(tmp_path: Path, expected: Tensor) -> None:
    model = opened(exported(Model(last=_dictionary), EXAMPLE), tmp_path)
    close(model(IMAGES), expected)
    assert model.choices == {"output": "features"}
    data = exported(Model(last=_two), EXAMPLE)
    with pytest.raises(SuspectError, match=r"has 2 outputs: 0 \(2, 3\), 1 \(2, 64\)$") as e:
        opened(data, tmp_path)(IMAGES)
    assert e.value.hint == "choose with --onnx-output"
    close(opened(data, tmp_path, "1")(IMAGES), expected)
    with pytest.raises(SuspectError, match="no output '2' of floats"):
        opened(data, tmp_path, "2")(IMAGES)
    nested = exported(Model(last=lambda y: (y[:, :3], {"x": y, "y": [y.argmax(1), y]})), EXAMPLE)
    close(opened(nested, tmp_path, "1.y.1")(IMAGES), expected)


def test_torchscript_of_several_outputs(tmp_path: Path, expected: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, last in (("dict", _dictionary), ("two", _two)):
            traced = torch.jit.trace(Model(last=last).eval(), EXAMPLE, strict=False)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, tmp_path / name)  # type: ignore[no-untyped-call]
    model = open_torchscript(tmp_path / "dict")
    with torch.inference_mode():
        close(model(IMAGES), expected)
        assert model.choices == {"output": "features"}
        with pytest.raises(SuspectError, match=r"0 \(5, 3\), 1 \(5, 64\)"):
            open_torchscript(tmp_path / "two")(IMAGES)
        close(open_torchscript(tmp_path / "two", "1")(IMAGES), expected)


def test_maps_of_an_archive(tmp_path: Path, expected: Tensor) -> None:
    model = opened(exported(Model(last=lambda y: y.permute(0, 2, 3, 1), maps=True), EXAMPLE), tmp_path)
    close(model(IMAGES), expected)
    assert model.choices == {"pooling": "mean of (n, 2, 2, 64), channels last"}
