"""Hostile and broken ONNX files, made on the spot; see hostile_files.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from safetensors.torch import save
from support.encoders import SIDE

FLOAT = TensorProto.FLOAT


def graph(
    nodes: list[onnx.NodeProto],
    *,
    out: list[object] | None = None,
    shape: list[object] | None = None,
    kind: int = FLOAT,
    out_kind: int = FLOAT,
    initializers: list[TensorProto] | None = None,
    functions: list[onnx.FunctionProto] | None = None,
    domains: tuple[str, ...] = (),
    names: tuple[str, ...] = ("y",),
) -> bytes:
    """A model from `images` to `y`, whatever the nodes are; never checked."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", kind, ["n", 3, SIDE, SIDE] if shape is None else shape)],
        [helper.make_tensor_value_info(n, out_kind, ["n", "d"] if out is None else out) for n in names],
        initializer=initializers or [],
    )
    imports = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(made, opset_imports=imports, ir_version=9, functions=functions or [])
    return bytes(model.SerializeToString())


def node(op: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, **attributes)


FLATTEN = node("Flatten", ["images"], ["y"])


def flat(**arguments: Any) -> bytes:
    return graph([FLATTEN], **arguments)


def external(**about: str) -> bytes:
    """A model with one tensor `w` (3072 x 4) in another file, added to the answers."""
    side = 3 * SIDE * SIDE
    tensor = TensorProto(name="w", dims=[side, 4], data_type=FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in about.items():
        tensor.external_data.add(key=key, value=value)
    return graph(
        [node("Flatten", ["images"], ["f"]), node("MatMul", ["f", "w"], ["y"])], out=["n", 4], initializers=[tensor]
    )


def weights_beside(seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    return bytes(rng.standard_normal((3 * SIDE * SIDE, 4)).astype("<f4").tobytes())


def declares(dims: list[int]) -> bytes:
    tensor = TensorProto(name="w", dims=dims, data_type=FLOAT)
    return flat(initializers=[tensor])


def endless_loop() -> bytes:
    body = helper.make_graph(
        [node("Identity", ["c"], ["c_out"]), node("Sin", ["x"], ["x_out"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_out", FLOAT, None),
        ],
    )
    count = helper.make_tensor("count", TensorProto.INT64, [], [2**60])
    go_on = helper.make_tensor("go", TensorProto.BOOL, [], [True])
    nodes = [node("Flatten", ["images"], ["f"]), helper.make_node("Loop", ["count", "go", "f"], ["y"], body=body)]
    return graph(nodes, initializers=[count, go_on])


def huge_constant() -> bytes:
    shape = helper.make_tensor("s", TensorProto.INT64, [2], [10**6, 10**6])
    nodes = [
        node("ConstantOfShape", ["s"], ["c"]),
        node("ReduceSum", ["c"], ["r"], keepdims=0),
        node("Flatten", ["images"], ["f"]),
        node("Add", ["f", "r"], ["y"]),
    ]
    return graph(nodes, initializers=[shape])


def doubling() -> bytes:
    """Forty times the answers beside themselves."""
    nodes = [node("Flatten", ["images"], ["x0"])]
    nodes += [node("Concat", [f"x{i}", f"x{i}"], [f"x{i + 1}"], axis=1) for i in range(40)]
    return graph([*nodes, node("Identity", ["x40"], ["y"])])


def giant_product() -> bytes:
    """A product of two 30,000 x 30,000 matrices out of a file of some hundred bytes."""
    shape = helper.make_tensor("s", TensorProto.INT64, [2], [30_000, 30_000])
    nodes = [
        node("RandomNormal", [], ["a"], shape=[30_000, 30_000]),
        node("ConstantOfShape", ["s"], ["b"]),
        node("MatMul", ["a", "b"], ["c"]),
        node("MatMul", ["c", "b"], ["e"]),
        node("ReduceSum", ["e"], ["r"], keepdims=0),
        node("Flatten", ["images"], ["f"]),
        node("Add", ["f", "r"], ["y"]),
    ]
    return graph(nodes, initializers=[shape])


def cycle() -> bytes:
    return graph(
        [node("Add", ["b", "images"], ["a"]), node("Add", ["a", "images"], ["b"]), node("Flatten", ["b"], ["y"])]
    )


def recursive() -> bytes:
    function = helper.make_function(
        "local", "F", ["x"], ["z"], [helper.make_node("F", ["x"], ["z"], domain="local")],
        [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)],
    )  # fmt: skip
    nodes = [helper.make_node("F", ["images"], ["a"], domain="local"), node("Flatten", ["a"], ["y"])]
    return graph(nodes, functions=[function], domains=("local",))


def deep(levels: int = 80) -> bytes:
    """Graphs in attributes of nodes of graphs, written byte by byte: the libraries' own builders refuse."""

    def field(number: int, content: bytes) -> bytes:
        size, length = len(content), b""
        while size >= 128:
            length, size = length + bytes([size % 128 + 128]), size // 128
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    inner = b""
    for _ in range(levels):
        inner = field(1, field(4, b"If") + field(5, field(1, b"then_branch") + field(6, inner)))
    return b"\x08\x09" + field(7, inner)


def sparse(dims: list[int]) -> bytes:
    model = onnx.load_model_from_string(flat())
    values = helper.make_tensor("w", FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, dims))
    return bytes(model.SerializeToString())


def after_flatten(*nodes: onnx.NodeProto, **numbers: float) -> bytes:
    """Nodes from the flattened images `f` to `y`, with named numbers at hand."""
    constants = [helper.make_tensor(name, FLOAT, [], [value]) for name, value in numbers.items()]
    return graph([node("Flatten", ["images"], ["f"]), *nodes], initializers=constants)


def constant_output() -> bytes:
    return after_flatten(node("Mul", ["f", "zero"], ["m"]), node("Add", ["m", "one"], ["y"]), zero=0.0, one=1.0)


def scaled(factor: float) -> bytes:
    """Answers times a number: infinite, or of a norm near float32's end."""
    return after_flatten(node("Mul", ["f", "c"], ["y"]), c=factor)


def one_direction() -> bytes:
    mean = node("ReduceMean", ["f"], ["m"], axes=[1], keepdims=1)
    return after_flatten(mean, node("Mul", ["m", "a"], ["u"]), node("Concat", ["m", "u"], ["y"], axis=1), a=2.0)


def random_output() -> bytes:
    return after_flatten(node("RandomNormalLike", ["f"], ["r"]), node("Add", ["f", "r"], ["y"]))


def batch_dependent() -> bytes:
    return after_flatten(node("ReduceMean", ["f"], ["m"], axes=[0], keepdims=1), node("Sub", ["f", "m"], ["y"]))


def two_outputs() -> bytes:
    """A map first, then the representation."""
    nodes = [node("Relu", ["images"], ["map"]), node("Flatten", ["images"], ["representation"])]
    return graph(nodes, names=("map", "representation"))


def two_embeddings(name: str = "a") -> bytes:
    """Two outputs, of which no name states a representation."""
    return graph([node("Flatten", ["images"], [name]), node("Flatten", ["images"], ["b"])], names=(name, "b"))


def tokens() -> bytes:
    """48 tokens of 16 numbers, or 16 positions of 48."""
    shape = helper.make_tensor("s", TensorProto.INT64, [3], [-1, 3 * SIDE, SIDE])
    return graph([node("Reshape", ["images", "s"], ["y"])], out=["n", "t", "d"], initializers=[shape])


def maps() -> bytes:
    """Maps whose three sides differ: which one is the channels?"""
    shape = helper.make_tensor("s", TensorProto.INT64, [4], [-1, 6, 4, 32])
    return graph([node("Reshape", ["images", "s"], ["y"])], out=["n", "a", "b", "c"], initializers=[shape])


def of_version(ir: int, opset: int = 17) -> bytes:
    model = onnx.load_model_from_string(flat())
    model.ir_version, model.opset_import[0].version = ir, opset
    return bytes(model.SerializeToString())


def dynamic() -> bytes:
    """Dynamic quantization: one scale for a whole batch."""
    return after_flatten(
        node("DynamicQuantizeLinear", ["f"], ["q", "s", "z"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])
    )


STRINGS = "text\x1b[31m\n<script>alert(1)</script>\u202e../../x"
"""A tensor name that would colour a terminal, run in a page, turn a line around and leave a folder."""


def odd_names() -> bytes:
    return save({STRINGS: torch.zeros(3)})
