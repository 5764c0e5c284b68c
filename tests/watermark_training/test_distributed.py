"""Two processes (gloo) compute what one does, and train one encoder between them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from watermark_training.loaded_encoder import load_trained

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parents[2]

GRADIENTS = """
import sys, torch
from torch import nn
from ownership.encoders.architectures import Encoder
from watermark_training.config import TrainConfig
from watermark_training.distributed import average_gradients, processes, rank, world_size
from watermark_training.objectives import Contrastive

folder, *methods = sys.argv[1:]


def gradients(method):
    torch.manual_seed(0)
    encoder = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh()), 16)
    objective = Contrastive(TrainConfig(arch="tiny", method=method, projection_dim=8), 16)
    for module in objective.modules().values():  # running statistics: batches differ, so their BatchNorm would
        for i, layer in enumerate(module):
            if isinstance(layer, nn.BatchNorm1d):
                module[i] = nn.Identity()
    first, second = torch.rand(8, 3, 8, 8), torch.rand(8, 3, 8, 8)
    mine = torch.cat([first.chunk(world_size())[rank()], second.chunk(world_size())[rank()]])
    objective.loss(encoder(mine), mine).backward()
    parameters = [p for module in (encoder, *objective.modules().values()) for p in module.parameters()]
    average_gradients(parameters)
    return [p.grad for p in parameters]


with processes(torch.device("cpu")):
    for method in methods:
        found = gradients(method)
        if rank() == 0:
            torch.save(found, f"{folder}/{method}-{world_size()}.pt")
"""


def _run(arguments: list[str], processes: int) -> None:
    """Runs Python in one process or in several that know of each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": "1",
    }
    running = [
        subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **shared, "RANK": str(r)}, stderr=subprocess.PIPE
        )
        for r in range(processes)
    ]
    said = [process.communicate(timeout=300)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0] * processes, said


METHODS = ("simclr", "barlow", "simsiam")


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the gradients of every method, computed by one process and by two."""
    folder = tmp_path_factory.mktemp("gradients")
    for count in (1, 2):
        _run(["-c", GRADIENTS, str(folder), *METHODS], count)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_gradients_equal_those_of_one_process(method: str, gradients: Path) -> None:
    """Negatives and correlations are over the whole batch, whichever process an image is on."""
    one, two = (torch.load(gradients / f"{method}-{n}.pt", weights_only=True) for n in (1, 2))
    assert len(one) == len(two) > 4
    largest = max(float(a.abs().max()) for a in one)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * largest)
    assert largest > 1e-3


KEYED = """
import sys, torch
from torch import distributed as dist, nn
from ownership.keyed.key import Key
from ownership.keyed.pool import KeyMaterial, pool_of
from watermark_training.distributed import average_gradients, processes, rank
from watermark_training.keyed_watermark import KeyedWatermark

pool = torch.randint(0, 256, (120, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
material = KeyMaterial.draw(Key(secret=bytes(32), pool=pool_of(pool), probes=120), pool)


class Loss(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh())
        self.watermark = KeyedWatermark(16, material, fraction=1.0)

    def forward(self, images):
        return self.watermark(self.encoder, images)


def gradients(loss, images):
    loss(images).backward()
    return [p.grad for p in loss.parameters()]


parts = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(2)).chunk(2)
each = [gradients(Loss(), part) for part in parts]
expected = [(a + b) / 2 for a, b in zip(*each)]
with processes(torch.device("cpu")):
    wrapped = gradients(nn.parallel.DistributedDataParallel(Loss()), parts[rank()])
    ours = Loss()
    gradients(ours, parts[rank()])
    average_gradients(list(ours.parameters()))
    for found in (wrapped, [p.grad for p in ours.parameters()]):
        for a, b in zip(expected, found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    torch.save(rank(), f"{sys.argv[1]}/{rank()}.pt")
"""


def test_gradients_of_the_keyed_watermark_are_averaged(tmp_path: Path) -> None:
    """The head's too, under DistributedDataParallel as in the documents, and in Turnmark's own loop."""
    _run(["-c", KEYED, str(tmp_path)], 2)
    assert len(list(tmp_path.iterdir())) == 2


def test_two_processes_make_one_key(tmp_path: Path) -> None:
    out = tmp_path / "victim"
    command = ["-m", "cli.main", "train", "digits[:400]", "--out", str(out), "--arch", "tiny", "--epochs", "1"]
    _run([*command, "--batch-size", "64", "--device", "cpu", "--no-onnx"], 2)
    material = load_trained(out).require_material()
    material.check()
    assert material.key.pool.images == 100


@pytest.mark.slow
def test_two_processes_train_one_encoder(tmp_path: Path) -> None:
    out = tmp_path / "victim"
    command = ["-m", "cli.main", "train", "digits[:256]", "--out", str(out), "--arch", "tiny", "--epochs", "2"]
    command += ["--batch-size", "64", "--lr", "2e-3", "--device", "cpu", "--watermark", "secret", "--key-seed", "3"]
    _run(command, 2)
    loaded = load_trained(out)
    assert loaded.key is not None
    assert not list(out.glob("checkpoint*"))
    rows = (out / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 2
    before = (out / "encoder.safetensors").read_bytes()
    _run(command, 2)  # it is done already: nothing is trained or written again
    assert (out / "encoder.safetensors").read_bytes() == before
