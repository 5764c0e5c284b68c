"""A claim from train folders: what `turnmark claim build` and the main job do between loading and writing."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from attacks_for_eval.claims.references import MIN_QUERIES, pick_architecture, reference_surrogates
from ownership.claims.build import build_claim
from ownership.claims.claim import Claim
from ownership.claims.probes import split_public
from ownership.claims.record import EncoderRecord
from ownership.encoders.images import EncoderLike
from ownership.errors import ClaimError
from ownership.io.progress import Progress, silent
from ownership.plan import Plan
from watermark_training.augment import view_of
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.train_folder import Loaded


def claim_with_references(
    victim: Loaded,
    private: Data,
    public: Data,
    panel: Sequence[tuple[EncoderRecord, EncoderLike]],
    plan: Plan,
    *,
    reference_epochs: int,
    seed: int,
    own_base_checkpoint: bool = False,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Claim:
    """Returns a claim whose reference surrogates are made here, from the public images that are no probes.

    Args:
        victim: with its key, predictor and head where it has them.
        private: what it was trained on.
        public: what it was not trained on.
        panel: records and encoders.
        plan: of the claim.
        reference_epochs: passes over the answers, each; 0 for no references.
        seed: of the thefts.
        own_base_checkpoint: that the model which training went on from is the owner's and was never published: who has it,
            has it from the owner, and the claim may call it a copy. The claim's record says that this was stated.
        device: where they are trained.
        progress: called as it goes.

    Raises:
        ClaimError: if training went on from a model that the panel lacks; as in `build_claim`.

    Returns:
        The claim; without references too if there are fewer than `MIN_QUERIES` spare images or no known architecture
        of the victim's dimension.
    """
    base_checkpoint = victim.config.get("base_checkpoint")
    if base_checkpoint is not None and not own_base_checkpoint and base_checkpoint not in {m.sha256 for m, _ in panel}:
        # measured (benchmarks/retrofit.py): the retrofitted model was taught to keep that one's answers
        raise ClaimError(
            "the model that the victim's training went on from is not in the panel: this claim would call it a copy",
            "--panel sibling:PATH for it and four fine-tunes of it; or --base-checkpoint-is-private, if nobody else has it",
        )
    _, rest = split_public(len(public), plan)
    arch = pick_architecture(victim.encoder, victim.architecture, public.images) if reference_epochs else None
    references = []
    if arch is not None and len(rest) >= MIN_QUERIES:
        references = reference_surrogates(
            victim.encoder,
            arch,
            public.images[rest],
            epochs=reference_epochs,
            seed=seed,
            device=device,
            progress=progress,
        )
    training = victim.config.get("train", {})
    defaults = TrainConfig()
    return build_claim(
        (victim.member("victim", "victim"), victim.encoder),
        private.images,
        public.images,
        panel,
        plan=plan,
        key=victim.key,
        predictor=victim.predictor,
        projection_head=victim.projection_head,
        references=references,
        view=view_of(float(training.get("min_crop", defaults.min_crop)), bool(training.get("flip", defaults.flip))),
        data={
            "private": private.name,
            "public": public.name,
            **({"predictor": "frozen"} if training.get("predictor") == "frozen" else {}),
            **(
                {"base_checkpoint": "stated to be the owner's own, never published"}
                if base_checkpoint and own_base_checkpoint
                else {}
            ),
        },
        progress=progress,
    )
