"""ONNX files as exporters and tools write them: opened rightly, or refused with the choices in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from support import hostile_onnx
from support.encoders import encoder
from support.exported import EXAMPLE, IMAGES, Model, onnx_file
from torch import Tensor

from ownership.errors import SuspectError
from ownership.suspects.formats.adapter import AdaptedEncoder
from ownership.suspects.formats.onnx_file import open_onnx


@pytest.fixture(scope="module")
def expected() -> Tensor:
    with torch.no_grad():
        return encoder(3)(IMAGES)


@pytest.fixture(scope="module")
def plain() -> bytes:
    return onnx_file(Model())


def opened(data: bytes, folder: Path, output: str | None = None, pooling: str = "auto") -> AdaptedEncoder:
    (folder / "m.onnx").write_bytes(data)
    return open_onnx(folder / "m.onnx", output=output, pooling=pooling)


def close(answer: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(answer, expected, atol=tolerance, rtol=tolerance)


# Several outputs


def scores_first(names: tuple[str, ...]) -> bytes:
    return onnx_file(Model(last=lambda y: (y[:, :3], y)), outputs=names)


@pytest.mark.parametrize("name", ["embedding", "pooler_output", "image_embeds", "Identity/features:0"])
def test_an_output_that_is_named_so_is_the_representation(name: str, tmp_path: Path, expected: Tensor) -> None:
    model = opened(scores_first(("quality", name)), tmp_path)
    close(model(IMAGES), expected)
    assert model.choices == {"output": name}


def test_several_outputs_are_refused_and_named(tmp_path: Path, expected: Tensor) -> None:
    data = scores_first(("quality", "y"))
    with pytest.raises(SuspectError, match=r"has 2 outputs: quality \(n, 3\), y \(n, 64\)$") as e:
        opened(data, tmp_path)
    assert e.value.hint == "choose with --onnx-output"
    close(opened(data, tmp_path, "y")(IMAGES), expected)
    assert opened(data, tmp_path, "quality")(IMAGES).shape == (5, 3)
    with pytest.raises(SuspectError, match=r"no output 'z' of floats, it has quality \(n, 3\), y \(n, 64\)"):
        opened(data, tmp_path, "z")


def test_two_outputs_that_are_named_so_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SuspectError, match="has 2 outputs"):
        opened(scores_first(("embedding", "features")), tmp_path)


def test_outputs_of_integers_are_no_choice(tmp_path: Path, expected: Tensor) -> None:
    data = onnx_file(Model(last=lambda y: (y.argmax(1), y)), outputs=("label", "y"))
    model = opened(data, tmp_path)
    close(model(IMAGES), expected)
    assert model.choices == {"output": "y"}


# Tokens and maps

LAYOUTS = {
    "nchw": lambda y: y,
    "nhwc": lambda y: y.permute(0, 2, 3, 1),
    "nd11": lambda y: y.mean((2, 3), keepdim=True),
    "n11d": lambda y: y.mean((2, 3), keepdim=True).permute(0, 2, 3, 1),
    "n1d": lambda y: y.mean((2, 3))[:, None],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_maps_whose_shape_tells_are_averaged(
    layout: str, channels_last: bool, tmp_path: Path, expected: Tensor
) -> None:
    """NCHW or NHWC images in, and either out."""
    first = (lambda x: x.permute(0, 3, 1, 2)) if channels_last else (lambda x: x)
    example = EXAMPLE.permute(0, 2, 3, 1).contiguous() if channels_last else EXAMPLE
    model = opened(onnx_file(Model(first=first, last=LAYOUTS[layout], maps=True), example), tmp_path)
    close(model(IMAGES), expected)
    assert ("mean of (n, " in model.choices["pooling"]) == (layout in ("nchw", "nhwc"))


def test_maps_of_any_size_open_with_an_option(tmp_path: Path, expected: Tensor) -> None:
    wide = onnx_file(Model(last=lambda y: y[:, :, :1], maps=True))  # (n, 64, 1, 2)
    with pytest.raises(SuspectError, match=r"shape \(n, 64, 1, 2\), and nothing says which axis") as e:
        opened(wide, tmp_path)(IMAGES)
    assert e.value.hint == "--pooling channels-first for (n, d, h, w), channels-last for (n, h, w, d)"
    first = opened(wide, tmp_path, pooling="channels-first")(IMAGES)
    last = onnx_file(Model(last=lambda y: y[:, :, :1].permute(0, 2, 3, 1), maps=True))
    close(opened(last, tmp_path, pooling="channels-last")(IMAGES), first)
    with pytest.raises(SuspectError, match="nothing says"):  # maps have no first token
        opened(onnx_file(Model(maps=True)), tmp_path, pooling="cls")(IMAGES)


def test_maps_of_images_that_are_not_square_tell_nothing(tmp_path: Path) -> None:
    model = opened(onnx_file(Model(maps=True), torch.rand(2, 3, 16, 32)), tmp_path)
    with pytest.raises(SuspectError, match=r"\(n, 64, 2, 4\), and nothing says"):
        model(IMAGES)


def test_tokens_need_an_option(tmp_path: Path, expected: Tensor) -> None:
    tokens = onnx_file(Model(last=lambda y: y.flatten(2).transpose(1, 2), maps=True))  # (n, t, d)
    with pytest.raises(SuspectError, match=r"shape \(n, 4, 64\), and nothing says") as e:
        opened(tokens, tmp_path)(IMAGES)
    assert e.value.hint == "--pooling cls or mean for (n, tokens, d), channels-first for (n, d, positions)"
    model = opened(tokens, tmp_path, pooling="mean")
    close(model(IMAGES), expected)
    assert model.choices == {"pooling": "mean of (n, 4, 64), channels last"}
    close(opened(tokens, tmp_path, pooling="channels-last")(IMAGES), expected)
    first = opened(onnx_file(Model(last=lambda y: y[:, :, 0, 0], maps=True)), tmp_path)(IMAGES)
    model = opened(tokens, tmp_path, pooling="cls")
    close(model(IMAGES), first)
    assert model.choices == {"pooling": "first token of (n, 4, 64)"}
    positions = onnx_file(Model(last=lambda y: y.flatten(2), maps=True))  # (n, d, t)
    close(opened(positions, tmp_path, pooling="channels-first")(IMAGES), expected)


def test_the_pooled_one_of_two_outputs(tmp_path: Path, expected: Tensor) -> None:
    def both(y: Tensor) -> tuple[Tensor, Tensor]:
        return y.flatten(2).transpose(1, 2), y.mean((2, 3))

    data = onnx_file(Model(last=both, maps=True), outputs=("last_hidden_state", "pooler_output"))
    close(opened(data, tmp_path)(IMAGES), expected)
    close(opened(data, tmp_path, "last_hidden_state", "mean")(IMAGES), expected)


@pytest.mark.parametrize(
    ("last", "shape"),
    [
        (lambda y: y.mean(), r"\(\)"),
        (lambda y: y[:, 0], r"\(5,\)"),
        (lambda y: y[:, :, None, None, None], "64, 1, 1, 1"),
    ],
)
def test_answers_of_other_dimensions_are_refused(last: object, shape: str, tmp_path: Path) -> None:
    model = opened(onnx_file(Model(last=last)), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(SuspectError, match=rf"has shape .*{shape}\)?, expected \(n, d\)"):
        model(IMAGES)


# Types of input


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_half_and_double_images_are_cast(dtype: torch.dtype, tmp_path: Path, expected: Tensor) -> None:
    data = onnx_file(Model(first=lambda x: x.float(), last=lambda y: y.to(dtype)), EXAMPLE.to(dtype))
    close(opened(data, tmp_path)(IMAGES), expected, 1e-4 if dtype == torch.float64 else 5e-3)


def test_an_operator_without_doubles_is_named(tmp_path: Path) -> None:
    with pytest.raises(SuspectError, match=r"onnxruntime [\d.]+ cannot run it on the CPU \(.*Conv") as e:
        opened(onnx_file(Model().double(), EXAMPLE.double()), tmp_path)
    assert e.value.hint == "export it in float32, with standard operators"


@pytest.mark.parametrize("channels_last", [False, True])
def test_bytes_are_rounded(channels_last: bool, tmp_path: Path) -> None:
    images = (255 * IMAGES).round() / 255
    if channels_last:
        example = (255 * EXAMPLE).byte().permute(0, 2, 3, 1).contiguous()
        data = onnx_file(Model(first=lambda x: x.permute(0, 3, 1, 2).float() / 255), example)
    else:
        data = onnx_file(Model(first=lambda x: x.float() / 255), (255 * EXAMPLE).byte())
    model = opened(data, tmp_path)
    with torch.no_grad():
        close(model(IMAGES), encoder(3)(images))
    with pytest.raises(SuspectError, match="takes bytes, and the preprocessing leaves"):
        model(2 * IMAGES - 1)


def test_preprocessed_images_are_not_cut_when_resized(tmp_path: Path) -> None:
    """A model of a fixed size behind a mean and a standard deviation: what lies outside [0, 1] counts."""
    model = opened(hostile_onnx.flat(shape=["n", 3, 8, 8]), tmp_path)
    far = 10 * IMAGES - 5
    small = torch.nn.functional.interpolate(far, size=(8, 8), mode="bilinear", antialias=True)
    close(model(far), small.flatten(1))


# What tools write


def test_dynamic_quantization_is_asked_one_image_at_a_time(plain: bytes, tmp_path: Path, expected: Tensor) -> None:
    (tmp_path / "plain.onnx").write_bytes(plain)
    quantize_dynamic(tmp_path / "plain.onnx", tmp_path / "q.onnx")
    model = open_onnx(tmp_path / "q.onnx")
    assert model.choices == {"batch": "one image at a time"}
    answers = model(IMAGES)
    assert torch.equal(answers[:1], model(IMAGES[:1]))
    assert torch.equal(answers.flip(0), model(IMAGES.flip(0)))
    assert torch.cosine_similarity(answers, expected).min() > 0.99


class Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        self.batches = iter([{"images": IMAGES.numpy()}] * 2)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator], ids=str)
def test_static_quantization(form: QuantFormat, plain: bytes, tmp_path: Path, expected: Tensor) -> None:
    (tmp_path / "plain.onnx").write_bytes(plain)
    quantize_static(tmp_path / "plain.onnx", tmp_path / "q.onnx", Calibration(), quant_format=form)
    model = open_onnx(tmp_path / "q.onnx")
    assert model.choices == {}
    assert torch.cosine_similarity(model(IMAGES), expected).min() > 0.98


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED", "ALL"])
def test_what_onnxruntime_saved(level: str, plain: bytes, tmp_path: Path, expected: Tensor) -> None:
    """It imports every operator set that it knows, used or not."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(tmp_path / "m.onnx")
    onnxruntime.InferenceSession(plain, options, providers=["CPUExecutionProvider"])
    close(open_onnx(tmp_path / "m.onnx")(IMAGES), expected)


def test_an_operator_set_that_no_node_uses(plain: bytes, tmp_path: Path, expected: Tensor) -> None:
    model = onnx.load_model_from_string(plain)
    model.opset_import.append(helper.make_opsetid("ai.onnx.contrib", 1))
    close(opened(model.SerializeToString(), tmp_path)(IMAGES), expected)


def _branch() -> bytes:
    """A custom operator inside a branch."""
    inner = helper.make_graph(
        [helper.make_node("Hack", ["images"], ["z"], domain="evil.corp")],
        "then",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    choice = helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)
    return hostile_onnx.graph([choice], initializers=[yes], domains=("evil.corp",))


def _function() -> bytes:
    """A custom operator inside a function of the file, and one of the function's domain that is not defined."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("evil.corp", 1)]
    nodes = [helper.make_node("Hack", ["x"], ["z"], domain="evil.corp")]
    function = helper.make_function("evil.corp", "F", ["x"], ["z"], nodes, imports)
    calls = [helper.make_node("F", ["images"], ["y"], domain="evil.corp")]
    return hostile_onnx.graph(calls, functions=[function], domains=("evil.corp",))


@pytest.mark.parametrize("make", [_branch, _function], ids=["branch", "function"])
def test_custom_operators_are_found_everywhere(make: object, tmp_path: Path) -> None:
    with pytest.raises(SuspectError, match=r"domain 'evil.corp' is not supported \(Hack\)"):
        opened(make(), tmp_path)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("ir", "opset", "said"),
    [
        (99, 17, r"has ONNX IR version 99, and onnxruntime [\d.]+ reads up to \d+$"),
        (9, 99, r"has opset 99 of ai.onnx, and onnxruntime [\d.]+ reads up to \d+$"),
    ],
)
def test_a_file_that_is_too_new_says_so(ir: int, opset: int, said: str, tmp_path: Path) -> None:
    model = onnx.load_model_from_string(hostile_onnx.flat())
    model.ir_version, model.opset_import[0].version = ir, opset
    with pytest.raises(SuspectError, match=said) as e:
        opened(model.SerializeToString(), tmp_path)
    assert e.value.hint == "update onnxruntime, or ask for an export with an older opset"


def test_the_cause_is_said_however_long_the_message_is(tmp_path: Path) -> None:
    many = [f"x{i}" for i in range(200)]
    nodes = [helper.make_node("Identity", ["images"], [x]) for x in many] + [helper.make_node("Hack", many, ["y"])]
    with pytest.raises(SuspectError, match="No Op registered for Hack") as e:
        opened(hostile_onnx.graph(nodes), tmp_path)
    assert len(e.value.message) < 350


def test_an_exporters_fixed_batch_of_a_dynamic_graph(tmp_path: Path) -> None:
    """One image at a time fills a fixed batch with itself."""
    nodes = [
        helper.make_node("Flatten", ["images"], ["f"]),
        helper.make_node("DynamicQuantizeLinear", ["f"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    model = opened(hostile_onnx.graph(nodes, shape=[4, 3, 16, 16]), tmp_path)
    assert torch.equal(model(IMAGES)[2:3], model(IMAGES[2:3]))
    assert torch.isfinite(model(IMAGES)).all()
