"""A claim from train folders: what `turnmark claim build` and the demo do between loading and writing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from torch import Tensor

from attacks_for_eval.claims.references import MIN_QUERIES, ReferenceConfig, pick_architecture, reference_surrogates
from ownership.claims.build import build_claim
from ownership.claims.claim import Claim
from ownership.claims.probes import ClaimImages, split_public
from ownership.claims.record import NamedEncoder
from ownership.claims.twins import Twins
from ownership.errors import ClaimError
from ownership.io.progress import Progress, silent
from ownership.plan import Plan
from ownership.watermark import Watermark
from watermark_training.augment import fixed_view
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.loaded_encoder import LoadedEncoder


def claim_with_references(
    victim: LoadedEncoder,
    private: Data | None,
    public: Data,
    panel: Sequence[NamedEncoder],
    plan: Plan,
    *,
    keys_tried: int = 1,
    twins: Twins | None = None,
    twins_tried: int = 1,
    references: ReferenceConfig | None = None,
    base_checkpoint_is_private: bool = False,
    progress: Progress = silent,
) -> Claim:
    """Return a claim with reference surrogates extracted from the public images that are not probes.

    The claim has no references if `references` is None, if fewer than `MIN_QUERIES` images are left, or if no known
    architecture has the victim's dimension.

    Args:
        victim: with its key, predictor and projection head where it has them.
        private: images it was trained on, for dataset inference against a panel; None for none.
        public: images it was not trained on; with a key, the images of its pool.
        panel: records and encoders of the reference panel; with a key it may be empty.
        plan: of the claim.
        keys_tried: commitments that the owner made for this victim.
        twins: commitment that the victim was picked from; None without one.
        twins_tried: picks that the owner had made for this victim.
        references: how reference surrogates are extracted; None for none.
        base_checkpoint_is_private: states that the base checkpoint is the owner's and was never published. An encoder
            derived from it is then derived from the owner's, and the claim may call it a copy. The claim records this
            statement.
        progress: called as it goes.

    Raises:
        SuspectError: if the victim was trained with a watermark and its predictor is missing.
        ClaimError: if the victim's base checkpoint is not in the panel, or the public images are private ones; as in
            `build_claim`.
    """
    victim.require_watermark()
    if victim.material is None and not panel:  # before anything long
        raise ClaimError(
            "the victim has no key, and there is no panel",
            "train it with one (turnmark train), or put one into it (turnmark embed); or give --panel",
        )
    if private is not None:
        _refuse_overlap(private, public)
    base_checkpoint = victim.config.get("base_checkpoint")
    in_panel = base_checkpoint in {record.sha256 for record, _ in panel}
    # the key test needs no such member: the base checkpoint does not know the key
    if panel and base_checkpoint is not None and not base_checkpoint_is_private and not in_panel:
        # measured (benchmarks.retrofit): a retrofitted encoder keeps the representations of its base checkpoint
        raise ClaimError(
            "the base checkpoint of the victim is not in the panel: the claim would call it a copy",
            "--panel sibling:PATH for it and four fine-tunes of it; or --base-checkpoint-is-private",
        )
    training = victim.config.get("train", {})
    defaults = TrainConfig()
    stated = {"public": public.name} | ({} if private is None else {"private": private.name})
    if training.get("predictor") == "frozen":
        stated["predictor"] = "frozen"
    if base_checkpoint and base_checkpoint_is_private:
        stated["base_checkpoint"] = "stated to be the owner's own, never published"
    view = fixed_view(float(training.get("min_crop", defaults.min_crop)), bool(training.get("flip", defaults.flip)))
    return build_claim(
        NamedEncoder(victim.member("victim", "victim"), victim.encoder),
        ClaimImages(None if private is None else private.images, public.images, view=view, description=stated),
        panel,
        material=victim.material,
        keys_tried=keys_tried,
        twins=twins,
        twins_tried=twins_tried,
        plan=plan,
        watermark=None if victim.predictor is None else Watermark(key=victim.key, predictor=victim.predictor),
        projection_head=victim.projection_head,
        references=_references(victim, public, plan, references, progress),
        progress=progress,
    )


def _digest(image: Tensor) -> bytes:
    return hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()


def _refuse_overlap(private: Data, public: Data) -> None:
    """Raise ClaimError if more than a tenth of the public images are private ones; data sets have some duplicates."""
    inside = {_digest(image) for image in private.images}
    shared = sum(_digest(image) in inside for image in public.images)
    if 10 * shared > len(public):
        raise ClaimError(
            f"{shared} of {len(public)} public images are among the private ones",
            "give public images that the victim was not trained on",
        )


def _references(
    victim: LoadedEncoder, public: Data, plan: Plan, config: ReferenceConfig | None, progress: Progress
) -> list[NamedEncoder]:
    if config is None:
        return []
    _, rest = split_public(public.images, plan, victim.material)
    arch = pick_architecture(victim.encoder, victim.architecture, public.images)
    if arch is None or len(rest) < MIN_QUERIES:
        return []
    return reference_surrogates(victim.encoder, arch, rest, config, progress=progress)
