"""What the rotation predictor should read: representations, or their direction only (docs/adr/0002).

    python benchmarks/predictor_scale.py --seeds 0 1 2

Trains a victim on 500 digits with the predictor reading representations scaled to length sqrt(d) ("direction") and as
they are ("raw", the paper), steals it with three losses, and prints the watermark success rate of each on held-out
digits, raw and without any alignment. Development data only: nothing here judges a verdict.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch import Tensor

from attacks_for_eval.black_box import BlackBox
from attacks_for_eval.config import ExtractionConfig
from attacks_for_eval.demo import demo_config, train_config
from attacks_for_eval.extraction import extract
from attacks_for_eval.losses import REFERENCE_LOSSES
from ownership.architectures import Encoder
from ownership.images import as_input, as_uint8, represent
from ownership.watermark import RotationPredictor, rotated_pairs, secret_key
from watermark_training.data import load_data
from watermark_training.train import train


def raw_forward(self: RotationPredictor, representations: Tensor) -> Tensor:
    """The predictor without the scaling."""
    x = representations
    for layer in self.layers[:-1]:
        x = torch.relu(layer(x))
    out: Tensor = self.layers[-1](x)
    return out


def success(encoder: Encoder, predictor: RotationPredictor, views: Tensor, labels: Tensor) -> float:
    """Returns the watermark success rate of an encoder on rotated views."""
    with torch.no_grad():
        logits = predictor(represent(encoder, as_uint8(views)))
    return float((logits.argmax(1) == labels).float().mean())


def main() -> None:
    """Parses the command line, trains, prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    scaled_forward = RotationPredictor.forward
    print("| predictor reads | seed | victim | " + " | ".join(REFERENCE_LOSSES) + " |")
    print("|---|---|---|" + "---|" * len(REFERENCE_LOSSES))
    for seed in arguments.seeds:
        images = load_data("digits").images[torch.randperm(1797, generator=torch.Generator().manual_seed(seed))]
        private, queries, held_out = images[:500], images[500:1200], images[1200:]
        for name, forward in (("direction", scaled_forward), ("raw", raw_forward)):
            RotationPredictor.forward = forward  # type: ignore[method-assign]
            job = replace(demo_config(seed), seed=seed)
            key = secret_key(torch.Generator().manual_seed(seed))
            victim = train(private, train_config(job, "secret", seed, job.epochs), key=key)
            predictor = victim.predictor
            views, labels, _ = rotated_pairs(as_input(held_out), key, torch.Generator().manual_seed(seed + 1))

            assert predictor is not None
            rates = [success(victim.encoder, predictor, views, labels)]
            for loss in REFERENCE_LOSSES:
                theft = ExtractionConfig(
                    loss=loss, arch=job.arch, queries=700, epochs=job.steal_epochs, batch_size=128, lr=job.lr, seed=seed
                )
                surrogate = extract(BlackBox(victim.encoder), queries, theft)
                rates.append(success(surrogate, predictor, views, labels))
            print(f"| {name} | {seed} | " + " | ".join(f"{r:.3f}" for r in rates) + " |", flush=True)


if __name__ == "__main__":
    main()
