"""A wrong preprocessing does not clear a surrogate: stated, or tried at its share of alpha."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from support.encoders import Noisy, as_suspect, encoder
from torch import Tensor, nn

from ownership import audit
from ownership.auditing.engine import share_of_alpha
from ownership.claims.claim import Claim
from ownership.encoders.architectures import Encoder
from ownership.errors import SuspectError
from ownership.reports.html import render_html
from ownership.suspects.preprocessing import NONE, PREPROCESSES, TRIED, Preprocess, parse_preprocess
from ownership.suspects.suspect import load_suspect
from ownership.verdict.records import AuditOptions
from ownership.verdict.rule import Verdict


class Expects(nn.Module):
    """An encoder that wants its images prepared: it undoes what was done to them."""

    def __init__(self, inner: nn.Module, done: Preprocess) -> None:
        super().__init__()
        self.inner, self.done = inner, done

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (self.done.mean, self.done.std))
        x = images.flip(1) if self.done.bgr else images
        out: Tensor = self.inner((x * std + mean) / self.done.scale)
        return out


def test_before_is_what_it_says() -> None:
    images, seen = torch.rand(2, 3, 8, 8), []
    done = Preprocess(name="x", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0), scale=255.0, bgr=True)
    done.before(lambda x: seen.append(x) or x.flatten(1))(images)  # type: ignore[func-returns-value]
    for channel, (mean, std) in enumerate(zip(done.mean, done.std, strict=True)):
        torch.testing.assert_close(seen[0][:, 2 - channel], (255 * images[:, channel] - mean) / std)
    identity = encoder(3)
    assert NONE.before(identity) is identity


@pytest.mark.parametrize("name", [n for n in PREPROCESSES if n != "none"])
def test_the_right_preprocessing_gives_the_right_answers(name: str, victim: Encoder) -> None:
    images = torch.rand(4, 3, 16, 16)
    done = PREPROCESSES[name]
    wanted = victim(images)
    torch.testing.assert_close(done.before(Expects(victim, done))(images), wanted, atol=1e-3, rtol=1e-3)


def test_a_surrogate_that_expects_other_images_is_found_by_trying(claim: Claim, victim: Encoder) -> None:
    surrogate = Expects(Noisy(victim, 7, 0.002), PREPROCESSES["imagenet"]).eval()
    stated = audit(claim, as_suspect(surrogate), AuditOptions(preprocessings=("imagenet",)))
    assert stated.verdict is Verdict.SUPPORTED
    assert stated.plan == claim.plan
    found = audit(claim, as_suspect(surrogate), AuditOptions(preprocessings=("try",)))
    assert found.verdict is Verdict.SUPPORTED
    assert found.suspect.preprocessing == "imagenet"
    assert found.suspect.preprocessings_tried == found.options.preprocessings == TRIED
    assert found.plan.alpha == pytest.approx(claim.plan.alpha / len(TRIED))
    assert found.findings.error_rate == pytest.approx(claim.plan.alpha)
    assert "in at most 1 % of audits" in render_html(found)
    single = audit(claim, as_suspect(surrogate))
    assert found.findings.queries == len(TRIED) * single.findings.queries


def test_the_others_are_asked_once_however_many_are_tried(claim: Claim) -> None:
    """The auditor's own encoders and the panel's files do not depend on what is tried for the suspect."""
    session = []

    class Counted(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            session.append(len(images))
            return encoder(204)(images)

    brought = [(replace(as_suspect(Counted()), name=f"own{i}"), "made by the auditor") for i in range(2)]
    one = audit(claim, as_suspect(encoder(205)), auditor_panel=brought)
    once, members = sum(session), len(brought)
    session.clear()
    several = audit(
        claim, as_suspect(encoder(205)), AuditOptions(preprocessings=("try",)), auditor_panel=brought, models=[]
    )
    assert sum(session) == once
    assert len(several.findings.auditor_panel) == members
    assert [m.values for m in several.findings.auditor_panel] == [m.values for m in one.findings.auditor_panel]
    assert not any(check.recomputed for check in (several.findings.models_checked or {}).values())


def test_trying_does_not_reject_an_independent(claim: Claim) -> None:
    for seed in (201, 202, 203):
        tried = audit(claim, as_suspect(encoder(seed)), AuditOptions(preprocessings=("try",)))
        assert tried.verdict is Verdict.NOT_SUPPORTED


def test_shares_sum_to_alpha() -> None:
    """H0 true of every try: the chance that any rejects is at most alpha (Bonferroni), on uniform p-values."""
    tried, alpha = parse_preprocess("try"), 0.05
    p = torch.rand(20_000, len(tried), generator=torch.Generator().manual_seed(0))
    assert float((p.min(1).values <= share_of_alpha(alpha, tried)).float().mean()) <= alpha + 0.005


@pytest.mark.parametrize(
    "text",
    ["", "imagnet", "mean=1,2/std=1,1,1", "mean=0,0,0/std=0,1,1", "mean=0,0,0", "std=1,1,1", "bgr+", "mean=a/std=b"],
)
def test_unknown_preprocessings_are_one_line(text: str) -> None:
    with pytest.raises(SuspectError, match="unknown preprocessing"):
        parse_preprocess(text)


def test_stated_forms() -> None:
    assert parse_preprocess("bgr+imagenet")[0].bgr
    assert not parse_preprocess("bgr+caffe")[0].bgr
    assert parse_preprocess("none") == (NONE,)


@pytest.mark.heavy
@pytest.mark.parametrize("by", ["timm", "transformers"])
def test_a_folder_says_its_mean_and_std(by: str, tmp_path: Path) -> None:
    """In config.json as timm writes it, or preprocessor_config.json as transformers does."""
    import json

    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=7).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    about = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.4], "input_size": [3, 64, 64]}
    if by == "timm":
        (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": about}))
    else:
        (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
        stated = {"image_mean": about["mean"], "image_std": about["std"]}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    loaded = load_suspect(tmp_path)
    assert loaded.architecture == "timm:resnet18"
    assert {"config.json", "model.safetensors"} <= set(loaded.files)
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(about[k]).reshape(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        wanted = model.forward_head(model.forward_features((images - mean) / std), pre_logits=True)
    torch.testing.assert_close(loaded.asked()(images), wanted, atol=1e-4, rtol=1e-4)


def _onnx(shape: list[object], nodes: list[onnx.NodeProto], rank: int) -> bytes:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [f"d{i}" for i in range(rank)])],
    )
    return bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString())


@pytest.mark.heavy
def test_layouts_tokens_and_maps(tmp_path: Path) -> None:
    """(n, h, w, 3) input; feature maps are averaged; of tokens the first, or their mean, as the user says."""
    from ownership.suspects.formats.model_file import LoadOptions

    images = torch.rand(5, 3, 16, 16)
    last = [helper.make_node("Relu", ["x"], ["y"])]
    (tmp_path / "last.onnx").write_bytes(_onnx(["n", 16, 16, 3], last, 4))
    torch.testing.assert_close(load_suspect(tmp_path / "last.onnx").encoder(images), images.mean((2, 3)))
    (tmp_path / "map.onnx").write_bytes(_onnx(["n", 3, 16, 16], last, 4))
    torch.testing.assert_close(load_suspect(tmp_path / "map.onnx").encoder(images), images.mean((2, 3)))
    rows = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)]  # (n, 16, 16): 16 tokens of 16 numbers
    (tmp_path / "tokens.onnx").write_bytes(_onnx(["n", 3, 16, 16], rows, 3))
    tokens = images.mean(1)
    with pytest.raises(SuspectError, match="nothing says which axis"):
        load_suspect(tmp_path / "tokens.onnx").encoder(images)
    first = load_suspect(tmp_path / "tokens.onnx", options=LoadOptions(pooling="cls"))
    torch.testing.assert_close(first.encoder(images), tokens[:, 0])
    mean = load_suspect(tmp_path / "tokens.onnx", options=LoadOptions(pooling="mean"))
    torch.testing.assert_close(mean.encoder(images), tokens.mean(1))
    with pytest.raises(SuspectError, match="unknown pooling"):
        LoadOptions(pooling="max")
