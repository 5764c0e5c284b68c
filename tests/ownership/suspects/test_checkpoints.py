"""Checkpoints as public code writes them: each opens, and gives the representations of the encoder in it.

The layouts are those of the code bases that are named, as their users' bug reports show them.
"""

from __future__ import annotations

import argparse
import collections
import json
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from support.encoders import encoder
from torch import Tensor, nn

from ownership.encoders.architectures import ARCHITECTURES, Encoder, make_encoder
from ownership.encoders.images import as_input, represent
from ownership.errors import SuspectError, UnsafeSuspectError
from ownership.suspects.formats.model_file import LoadedModel, LoadOptions, open_model
from ownership.suspects.suspect import load_suspect
from watermark_training.loaded_encoder import load_trained

State = dict[str, Any]
OPTIMIZER = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]}


def images(side: int = 16) -> Tensor:
    return torch.randint(0, 256, (3, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def tiny(prefix: str = "", seed: int = 1) -> State:
    return {prefix + k: v.clone() for k, v in encoder(seed).state_dict().items()}


def opened(value: object, path: Path, **options: Any) -> LoadedModel:
    torch.save(value, path, **({"_use_new_zipfile_serialization": False} if options.pop("legacy", False) else {}))
    return open_model(path, LoadOptions(**options), missing_layers=())


WRAPPERS = (
    *("net", "encoder", "backbone", "network", "weights", "params", "module"),
    *("teacher", "student", "ema", "model_ema", "state_dict_ema", "online_network"),
)
WITHOUT_COUNTERS = {k: v for k, v in tiny().items() if not k.endswith("num_batches_tracked")}
CONTAINERS: dict[str, Any] = {
    "plain": tiny(),
    "state_dict": {"epoch": 3, "state_dict": tiny(), "optimizer": OPTIMIZER},
    "model": {"model": tiny(), "epoch": 2},
    "tutorial": {"epoch": 5, "model_state_dict": tiny(), "optimizer_state_dict": OPTIMIZER, "loss": 0.1},
    **{name: {name: tiny(), "epoch": 1} for name in WRAPPERS},
    "DDP": tiny("module."),
    "torch.compile": tiny("_orig_mod."),
    "DDP of compiled": tiny("module._orig_mod."),
    "compiled DDP": tiny("_orig_mod.module."),
    "compiled inside": {k.replace("body.", "body._orig_mod."): v for k, v in tiny("module.").items()},
    "FSDP": tiny("_fsdp_wrapped_module."),
    "DeepSpeed": {"state_dict": tiny("_forward_module.encoder.")},
    "Lightning": {
        "state_dict": {**tiny("encoder."), "head.weight": torch.zeros(32, 64), "head.bias": torch.zeros(32)},
        "pytorch-lightning_version": "2.6",
        "hyper_parameters": {"lr": 0.1},
    },
    "Namespace": {"model": tiny(), "args": argparse.Namespace(lr=0.1, arch="tiny"), "epoch": 1},
    "numpy scalar": {"state_dict": tiny(), "best_acc1": np.float64(71.2)},
    "numpy random state": {
        "state_dict": tiny(),
        "rng": np.random.RandomState(0).get_state(),
        "old": np.ones(3),
    },
    "defaultdict": {"state_dict": tiny(), "log": collections.defaultdict(list, {"loss": [1.0]})},
    "path": {"state_dict": tiny(), "out": PosixPath("/x")},
    "no counters": WITHOUT_COUNTERS,
    "half precision": {k: v.half() if v.is_floating_point() else v for k, v in tiny().items()},
    "parameters": {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in tiny().items()},
    "extra number": {**tiny(), "epoch": 3},
    "extra None": {**tiny(), "fc": None},
    "projection head": {**tiny(), "projection.0.weight": torch.zeros(64, 64), "projection.0.bias": torch.zeros(64)},
    "metadata": collections.OrderedDict(tiny()),
    "optimizer diverged": {"model": tiny(), "optimizer": {"state": {"x": {"m": torch.tensor([float("nan")])}}}},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_an_encoder_is_found_in_every_container(name: str, tmp_path: Path) -> None:
    model = opened(CONTAINERS[name], tmp_path / "x.pt")
    assert model.architecture == "tiny"
    tolerance = 2e-2 if name == "half precision" else 1e-6
    torch.testing.assert_close(
        represent(model.encoder, images()), represent(encoder(1), images()), atol=tolerance, rtol=0
    )


def test_the_format_before_zip_archives_opens(tmp_path: Path) -> None:
    model = opened({"state_dict": tiny("module."), "args": argparse.Namespace()}, tmp_path / "x.pth.tar", legacy=True)
    torch.testing.assert_close(represent(model.encoder, images()), represent(encoder(1), images()))


@cache
def resnet() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torchvision.models.resnet18().eval()


def body(prefix: str = "") -> State:
    return {prefix + k: v for k, v in resnet().state_dict().items() if not k.startswith("fc.")}


def mlp(prefix: str) -> State:
    sizes = {"0.weight": (32, 512), "0.bias": (32,), "2.weight": (8, 32), "2.bias": (8,)}
    return {prefix + k: torch.zeros(shape) for k, shape in sizes.items()}


def children() -> State:
    return nn.Sequential(*list(resnet().children())[:-1]).state_dict()


PUBLIC: dict[str, Callable[[], Any]] = {
    "torchvision": lambda: dict(resnet().state_dict()),
    "torchvision without fc": body,
    "torchvision, fc an MLP": lambda: {**body(), **mlp("fc.")},
    "pytorch/examples": lambda: {
        "arch": "resnet18",
        "state_dict": {f"module.{k}": v for k, v in resnet().state_dict().items()},
        "best_acc1": torch.tensor(3.0),
        "optimizer": {},
    },
    "moco v2": lambda: {
        "epoch": 199,
        "state_dict": {**body("module.encoder_q."), **mlp("module.encoder_q.fc."), "module.queue": torch.zeros(8, 4)},
    },
    "moco v3": lambda: {
        "state_dict": {**body("module.base_encoder."), **mlp("module.base_encoder.fc."), **mlp("module.predictor.")},
        "args": argparse.Namespace(),
    },
    "simsiam": lambda: {
        "state_dict": {**body("module.encoder."), **mlp("module.encoder.fc."), **mlp("module.predictor.")}
    },
    "DINO": lambda: {
        "student": {**body("module.backbone."), **mlp("module.head.mlp.")},
        "teacher": {**body("backbone."), **mlp("head.mlp.")},
        "args": argparse.Namespace(arch="resnet18"),
    },
    "Barlow Twins": lambda: {"model": {**body("module.backbone."), **mlp("module.projector.")}, "optimizer": {}},
    "VICReg": lambda: {"epoch": 1, "model": {**body("module.backbone."), **mlp("module.projector.")}},
    "BYOL": lambda: {
        "online_network_state_dict": {**body("encoder."), **mlp("projection.net.")},
        "target_network_state_dict": body("encoder."),
    },
    "solo-learn": lambda: {
        "state_dict": {**body("backbone."), **body("momentum_backbone."), **mlp("projector.")},
        "hyper_parameters": {"method": "simclr"},
    },
    "lightly": lambda: {
        "state_dict": {**{f"backbone.{k}": v for k, v in children().items()}, **mlp("projection_head.")}
    },
    "lightly, backbone alone": children,
    "sthalles/SimCLR": lambda: {"arch": "resnet18", "state_dict": {**body("backbone."), **mlp("backbone.fc.")}},
    "VISSL": lambda: {"classy_state_dict": {"base_model": {"model": {"trunk": body("_feature_blocks."), "heads": {}}}}},
    "mmselfsup": lambda: {"meta": {"epoch": 3}, "state_dict": {**body("backbone."), **mlp("head.")}},
    "mmpretrain": lambda: {"state_dict": body("backbone."), "ema_state_dict": body("module.backbone.")},
}


@pytest.mark.parametrize("name", PUBLIC)
def test_checkpoints_of_public_code_open(name: str, tmp_path: Path) -> None:
    model = opened(PUBLIC[name](), tmp_path / "x.pth")
    assert model.architecture == "torchvision:resnet18"
    assert model.weights is not None
    assert model.weights.others == ()  # encoders of the same weights count once
    assert model.weights.normalisation is not None
    assert not model.weights.normalisation.stated
    wanted = nn.Sequential(*list(resnet().children())[:-1], nn.Flatten())
    torch.testing.assert_close(
        represent(model.encoder, images(32)), represent(wanted, images(32)), atol=1e-4, rtol=1e-4
    )


def test_a_resnet_for_small_images_opens_by_the_names_of_torchvision(tmp_path: Path) -> None:
    network = torchvision.models.resnet18()
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()  # type: ignore[assignment]
    network.eval()
    model = opened({"state_dict": network.state_dict()}, tmp_path / "x.pth")
    assert model.architecture == "resnet18"
    network.fc = nn.Identity()  # type: ignore[assignment]
    torch.testing.assert_close(represent(model.encoder, images()), represent(network, images()), atol=1e-4, rtol=1e-4)


@cache
def vit(**settings: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model("vit_tiny_patch16_224", num_classes=0, **settings).eval()


VITS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "DINO": (lambda: {"teacher": {f"backbone.{k}": v for k, v in vit().state_dict().items()}}, {}),
    "MAE": (
        lambda: {
            "model": {
                **vit().state_dict(),
                "mask_token": torch.zeros(1, 1, 64),
                "decoder_pos_embed": torch.zeros(1, 197, 64),
                "decoder_embed.weight": torch.zeros(64, 192),
            }
        },
        {},
    ),
    "open_clip": (lambda: {f"visual.trunk.{k}": v for k, v in vit().state_dict().items()}, {}),
    "96 pixels": (lambda: vit(img_size=96).state_dict(), {"img_size": 96}),
    "mean over tokens": (lambda: vit(global_pool="avg").state_dict(), {"global_pool": "avg"}),
}


@pytest.mark.parametrize("name", VITS)
def test_transformers_of_timm_open_with_the_settings_that_their_tensors_tell(name: str, tmp_path: Path) -> None:
    state, settings = VITS[name]
    model = opened(state(), tmp_path / "x.pth")
    side = settings.get("img_size", 224)
    assert model.size == (side, side)
    torch.testing.assert_close(
        represent(model.encoder, images(side)), represent(vit(**settings), images(side)), atol=1e-4, rtol=1e-4
    )


def test_further_layers_mean_another_architecture(tmp_path: Path) -> None:
    """A ResNet-34 holds every tensor of a ResNet-18."""
    network = torchvision.models.resnet34().eval()
    assert opened(network.state_dict(), tmp_path / "x.pth").architecture == "torchvision:resnet34"


def test_encoders_with_different_weights_are_all_named(tmp_path: Path) -> None:
    value = {"state_dict": tiny("module.", 2), "state_dict_ema": tiny("module.")}
    model = opened(value, tmp_path / "x.pt")
    assert model.weights is not None
    assert (model.weights.entry, model.weights.others) == ("state_dict.module", ("state_dict_ema.module",))
    for wanted in ("state_dict_ema", "state_dict_ema.module"):
        second = opened(value, tmp_path / "x.pt", entry=wanted)
        torch.testing.assert_close(represent(second.encoder, images()), represent(encoder(1), images()))
    with pytest.raises(SuspectError, match=r"no entry 'nope'; there are: state_dict.module, state_dict_ema.module"):
        opened(value, tmp_path / "x.pt", entry="nope")
    many = {f"e{i}": {k: v + i for k, v in tiny().items()} for i in range(9)}
    with pytest.raises(SuspectError, match="more than 8 encoders"):
        opened(many, tmp_path / "x.pt")


@pytest.mark.heavy
def test_the_entries_of_a_suspect_are_all_variants(tmp_path: Path) -> None:
    torch.save({"state_dict": tiny(seed=2), "state_dict_ema": tiny()}, tmp_path / "x.pt")
    with load_suspect(tmp_path / "x.pt") as suspect:
        variants = suspect.variants()
        assert [v.entry for v in variants] == ["state_dict", "state_dict_ema"]
        for one, seed in zip(variants, (2, 1), strict=True):
            torch.testing.assert_close(represent(one.asked(), images()), represent(encoder(seed), images()))
        torch.testing.assert_close(represent(variants[0].asked(), images()), represent(encoder(2), images()))


class Payload:
    """A pickle that would write a file when loaded."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.made = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.made


def test_code_beside_weights_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for payload in (Payload(open, str(marker), "w"), Payload(eval, f"open({str(marker)!r}, 'w')")):
        with pytest.raises(UnsafeSuspectError, match="would run code"):
            opened({"model": tiny(), "args": payload}, tmp_path / "x.pt")
    assert not marker.exists()


def test_nothing_is_called_but_what_tensors_are_made_of(tmp_path: Path) -> None:
    """A function of a module that is in no list is not called either: what stands for it keeps and does nothing."""
    marker = tmp_path / "ran"
    opened({"model": tiny(), "args": Payload(np.save, str(marker), 1)}, tmp_path / "x.pt")
    assert not list(tmp_path.glob("ran*"))
    with pytest.raises(UnsafeSuspectError, match=r"argparse.Namespace"):
        opened(argparse.Namespace(a=1), tmp_path / "x.pt")


@pytest.mark.parametrize("state", [b"}X\x08\x00\x00\x00__code__K\x01s", b"N}X\x04\x00\x00\x00callK\x01s\x86"])
def test_a_function_can_be_given_no_state(state: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + state + b"b.")
    with pytest.raises(SuspectError, match="damaged"):
        open_model(tmp_path / "x.pt", LoadOptions(), missing_layers=())
    assert pickle.loads(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n.")  # the name itself is one that pickle finds


def folder(path: Path, state: State, config: dict[str, Any], shards: int = 1) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    names = list(state)
    parts = [names[i::shards] for i in range(shards)]
    files = ["model.safetensors"] if shards == 1 else [f"model-{i}-of-{shards}.safetensors" for i in range(shards)]
    for file, part in zip(files, parts, strict=True):
        save_file({k: state[k].contiguous() for k in part}, path / file)
    if shards > 1:
        places = {k: file for file, part in zip(files, parts, strict=True) for k in part}
        (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return path


@pytest.mark.heavy
@pytest.mark.parametrize(("shards", "prefix"), [(1, "timm_model."), (3, "")])
def test_folders_of_timm_open_and_images_are_resized_to_what_they_state(
    tmp_path: Path, shards: int, prefix: str
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model("test_resnet", num_classes=10).eval()
    state = {prefix + k: v for k, v in network.state_dict().items()}
    stated = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1], "input_size": [3, 32, 32]}
    path = folder(tmp_path / "hub", state, {"architecture": "test_resnet", "pretrained_cfg": stated}, shards)
    with load_suspect(path) as suspect:
        assert suspect.architecture == "timm:test_resnet"
        assert suspect.preprocess_from == "files"
        assert suspect.resizes((3, 3, 16, 16)) == (32, 32)
        shown = torch.nn.functional.interpolate(as_input(images()), (32, 32), mode="bilinear")
        mean, std = (torch.tensor(stated[k]).reshape(1, 3, 1, 1) for k in ("mean", "std"))
        network.reset_classifier(0)
        wanted = network((shown - mean) / std).detach()
        torch.testing.assert_close(represent(suspect.asked(), images()), wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.heavy
def test_weights_of_a_library_without_a_stated_normalisation_are_tried(tmp_path: Path) -> None:
    """None adds nothing: the network is given images in [0, 1]."""
    network = timm.create_model("test_resnet", num_classes=0).eval()
    torch.save(network.state_dict(), tmp_path / "x.pth")
    with load_suspect(tmp_path / "x.pth", options=LoadOptions(arch="timm:test_resnet")) as suspect:
        assert [v.preprocess.name for v in suspect.variants()] == ["half", "none", "imagenet", "bytes"]
        none = next(v for v in suspect.variants() if v.preprocess.name == "none")
        torch.testing.assert_close(
            represent(none.asked(), images()), represent(network, images()), atol=1e-5, rtol=1e-4
        )


@pytest.mark.heavy
def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "hub", tiny(), {"architecture": "tiny"}, 2)
    (path / "model-1-of-2.safetensors").unlink()
    with pytest.raises(SuspectError, match=r"model-1-of-2.safetensors is missing"):
        load_suspect(path)


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "timm:test_resnet"])
def test_an_own_encoder_of_a_library_is_one_entry(name: str, tmp_path: Path) -> None:
    """It holds mean and std; behind the prefix `body` alone it would fit a second time."""
    made = make_encoder(name).eval()
    model = opened(made.state_dict(), tmp_path / "x.pt", arch=name)
    assert model.weights is not None
    assert (model.weights.others, model.weights.normalisation) == ((), None)
    torch.testing.assert_close(represent(model.encoder, images(64)), represent(made, images(64)))


def test_every_architecture_of_the_table_keeps_its_weights_through_a_checkpoint(tmp_path: Path) -> None:
    """A round trip of what Turnmark itself makes, wrapped as DDP."""
    for name in ARCHITECTURES:
        made = make_encoder(name).eval()
        model = opened({"model": {f"module.{k}": v for k, v in made.state_dict().items()}}, tmp_path / "x.pt")
        assert model.architecture == name
        torch.testing.assert_close(represent(model.encoder, images()), represent(made, images()))


def test_folders_of_a_hub_load_as_the_owners_encoder(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=0).eval()
    stated = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]}
    path = folder(tmp_path / "hub", network.state_dict(), {"architecture": "test_resnet", "pretrained_cfg": stated})
    loaded = load_trained(path)
    assert isinstance(loaded.encoder, Encoder)
    mean, std = (torch.tensor(stated[k]).reshape(1, 3, 1, 1) for k in ("mean", "std"))
    wanted = network((as_input(images()) - mean) / std).detach()
    torch.testing.assert_close(represent(loaded.encoder, images()), wanted, atol=1e-5, rtol=1e-4)


def test_an_own_checkpoint_with_several_encoders_is_refused_with_their_names(tmp_path: Path) -> None:
    torch.save({"student": tiny(seed=2), "teacher": tiny()}, tmp_path / "x.pt")
    with pytest.raises(SuspectError, match="several encoders: student, teacher"):
        load_trained(tmp_path / "x.pt")


def test_tensors_that_belong_to_no_known_encoder_are_counted(tmp_path: Path) -> None:
    """An encoder of an unknown architecture beside a known one must not stay unseen."""
    unknown = {f"w{i}": torch.zeros(2) for i in range(5)}
    model = opened({"model": tiny(), "hidden": unknown, "optimizer": OPTIMIZER}, tmp_path / "x.pt")
    assert model.weights is not None
    assert model.weights.left_aside == f"5 of {len(tiny()) + 5} tensors, the first w0"
    assert opened(tiny(), tmp_path / "y.pt").weights.left_aside == ""  # type: ignore[union-attr]
