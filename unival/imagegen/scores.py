"""Scores of a whole set of generated pictures, and of the trivial predictor beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from unival.core.seeding import rng_for
from unival.imagegen.grid import read_grids
from unival.imagegen.options import ImageGenOptions
from unival.imagegen.scorer import ImageScorer

if TYPE_CHECKING:
    from PIL.Image import Image


def set_scores(
    codes: Sequence[str], captions: Sequence[str], options: ImageGenOptions
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return (metrics, what they were computed with) of pictures given by their codes.

    r_precision with a CLIP, inception_score (one split, as the reference's) and fid with an Inception network.
    Pictures are drawn again for each network and never held all at once.
    """
    if not options.vqgan_model_path:
        return {}, {"skipped": "no vqgan_model_path: codes only, no pictures"}
    scorer = ImageScorer.of(options)
    grids = read_grids(codes, options.code_image_size)
    metrics: dict[str, float] = {}
    info: dict[str, Any] = dict(scorer.info)
    if scorer.clip is None:
        info["skipped"] = "no clip_model_path: no similarity"
    else:
        from unival.metrics.images import r_precision

        features = scorer.picture_features(scorer.stream(grids))
        metrics["r_precision"] = r_precision(features, scorer.text_features(captions))
        info["similarity"] = options.eval_clip_method
    if options.inception_model_path:
        from unival.metrics.inception import InceptionScorer

        network = InceptionScorer(options.inception_model_path, device=scorer.device)
        found = network.score(scorer.stream(grids), options.fid_statistics, splits=1, shuffle_seed=None)
        metrics |= {name: value for name, value in found.corpus.items() if name != "inception_score_std"}
        info["inception"] = found.info
    return metrics, info


def unrelated_score(
    grids: Sequence[Sequence[int]],
    captions: Sequence[str],
    pictures: Iterable[Image],
    options: ImageGenOptions,
    seed: int,
) -> dict[str, float]:
    """Mean similarity of drawn ``grids`` (real pictures of other captions) to each row's caption or picture.

    Empty without a CLIP.
    """
    scorer = ImageScorer.of(options)
    if scorer.clip is None:
        return {}
    rng = rng_for(seed, 0, len(captions), "unrelated pictures")
    drawn = scorer.stream(grids[k] for k in rng.integers(len(grids), size=len(captions)))
    if options.eval_clip_method == "ii_sim":
        return {"score": float(scorer.to_pictures(drawn, pictures).mean())}
    return {"score": float(scorer.to_text(drawn, captions).mean())}
