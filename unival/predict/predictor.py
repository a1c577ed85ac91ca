"""Three lines from a file to a result: ``unival.load(checkpoint).caption("photo.jpg")``."""

from __future__ import annotations

import json
import math
import numbers
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unival.checkpoint.load import Loaded, load_checkpoint
from unival.core.device import device_named
from unival.errors import ConfigError, nearest
from unival.media import MediaError
from unival.media.memory import EXPECTED
from unival.media.source import DEFAULT_LIMITS, Limits
from unival.predict.request import Call, ahead
from unival.predict.results import Drawing, Encoding, Result

if TYPE_CHECKING:
    from unival.predict.inference import Inference, Prediction

PRECISIONS = ("float32", "bfloat16", "float16")
MOST = 1000  # outputs per input: as many beams as that are searched
KEPT = 32  # prepared decoders per predictor; each new list of answers makes one

Results = Result | list[Result]


def load(
    checkpoint: str | Path,
    device: str | None = None,
    precision: str = "float32",
    weights: str = "auto",
    bpe_dir: str | Path | None = None,
    batch_size: int = 16,
    limits: Limits = DEFAULT_LIMITS,
    **options: Any,
) -> Predictor:
    """Return a predictor for a checkpoint: a folder, a ``.pt`` file, or the name of a published one.

    device: "cpu", "cuda", "cuda:1"; by default the GPU when there is one. precision: float32, bfloat16 or
    float16. weights: "raw", "ema", or "auto" (averaged when the file has them). bpe_dir: vocabulary folder,
    for released files. limits: sizes above which media are refused (unival.media.Limits). options: task
    options that replace the checkpoint's, such as patch_image_size, num_frames, max_audio_len,
    eval_audio_crop, prompts (unival.specs.SpecOptions).
    Raises CheckpointError and ConfigError. Nothing is downloaded.
    """
    from unival.checkpoint.catalogue import local_path

    if not isinstance(checkpoint, str | os.PathLike):
        raise ConfigError(f"checkpoint is {checkpoint!r}: expected a path or the name of a published one")
    path = local_path(checkpoint)
    return Predictor(
        load_checkpoint(path, weights, bpe_dir=bpe_dir),
        device=device,
        precision=precision,
        batch_size=batch_size,
        limits=limits,
        name=str(path),
        **options,
    )


class Predictor:
    """A model with the tasks it can be asked. Made by :func:`load`.

    Every method takes one input or a list: a path, bytes, a binary file object, a PIL image, an array or
    tensor (unival.media.inputs). A list is predicted in batches of similar text length and returned in its own
    order; texts are one for all or one per input; one input with a list of texts is decoded once.
    Results do not depend on the batch. ``n_best`` keeps that many outputs per input; ``**decoding`` are
    settings of generation (beam, max_len_b, no_repeat_ngram_size, sampling, ...).
    Methods may be called from several threads at once.

    All raise MediaError for an input that cannot be read, DataError for a text that cannot be used (both name
    the list item) and ConfigError for a modality that the model does not have.
    """

    def __init__(
        self,
        loaded: Loaded,
        device: str | None = None,
        precision: str = "float32",
        batch_size: int = 16,
        limits: Limits = DEFAULT_LIMITS,
        name: str = "",
        **options: Any,
    ) -> None:
        import torch

        from unival.checkpoint.resolve import laid_over
        from unival.specs import all_options
        from unival.specs.inputs import check_pixels

        if precision not in PRECISIONS:
            raise ConfigError(
                f"precision '{precision}' is not one of {', '.join(PRECISIONS)}.{nearest(precision, PRECISIONS)}"
            )
        _count("batch_size", batch_size)
        self.device, self.precision, self.batch_size = device_named(device), precision, batch_size
        self.loaded, self.name, self.limits = loaded, name, limits
        self.given = options
        self.options = all_options().from_options(**laid_over(loaded.header.kept_options(), options))
        check_pixels(self.options, loaded.model.config.image)
        self.model = loaded.model.to(self.device).to(getattr(torch, precision)).eval()
        self._decoders: dict[str, Inference] = {}
        self._lock = threading.Lock()

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities beside text that the model has networks for."""
        return self.loaded.model.modalities

    @property
    def info(self) -> dict[str, Any]:
        """What is in use: checkpoint, family, size, weights, device, precision, sampling of long media."""
        from unival.checkpoint.identify import size_of

        options, config = self.options, self.loaded.model.config
        return {
            "checkpoint": self.name,
            "family": self.loaded.family,
            "size": size_of(config),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "vocabulary": len(self.loaded.vocabulary),
            "weights": self.loaded.weights,
            "device": self.device,
            "precision": self.precision,
            "modalities": self.modalities,
            "trained_for": self.loaded.task or None,
            "prompts": dict(options.prompts),
            "image_size": options.patch_image_size,
            "video": f"{options.num_frames} frames of {options.patch_frame_size} pixels, {options.eval_sample_type}",
            "audio": f"{options.max_audio_len / options.sample_rate:g} s at {options.sample_rate} Hz, "
            f"{options.eval_audio_crop} of longer ones",
        }

    def caption(self, media: Any, modality: str | None = None, n_best: int = 1, **decoding: Any) -> Results:
        """Describe an image, a video or a sound: a Result, or a list of them. ``modality`` overrules what
        the input looks like, for example "audio" for the sound of a video file."""
        return self._predict("caption", media, {}, modality, n_best, decoding=decoding)

    def answer(
        self,
        media: Any,
        question: str | list[str],
        answers: Sequence[str] | None = None,
        modality: str | None = None,
        n_best: int = 1,
        mode: str | None = None,
        **decoding: Any,
    ) -> Results:
        """Answer a question about an image or a video.

        With ``answers`` every one of them is scored, the best wins, and the result has a distribution.
        Without, the checkpoint's own list counts when it has one (mode "open": any text).
        """
        from unival.specs.options import answer_texts

        chosen = {"answers": answer_texts(answers)} if answers is not None else {}
        mode = mode or ("rank" if answers is not None else None)
        return self._predict("vqa", media, {"question": question}, modality, n_best, mode, chosen, decoding)

    def ground(self, image: Any, text: str | list[str], n_best: int = 1, **decoding: Any) -> Results:
        """Find the region that a phrase names: results have a box in pixels of the input and ``draw()``."""
        return self._predict("grounding", image, {"text": text}, None, n_best, decoding=decoding)

    def entails(self, image: Any, text: str | list[str], premise: str | list[str] | None = None) -> Results:
        """Judge a statement: yes (it follows from the image), no (it contradicts it) or maybe, with a
        distribution. ``premise``: a caption that joins the image."""
        texts = {"hypothesis": text, **({"caption": premise} if premise is not None else {})}
        chosen = {"add_caption": premise is not None}
        return self._predict("entailment", image, texts, None, 1, "rank", chosen)

    def matches(self, media: Any, text: str | list[str], modality: str | None = None) -> Results:
        """Say whether a text describes an image, a video or a sound: yes or no, with a distribution."""
        return self._predict("matching", media, {"text": text}, modality, 1, "rank")

    def ask(
        self,
        task: str,
        media: Any,
        texts: Mapping[str, str | list[str]] | None = None,
        modality: str | None = None,
        n_best: int = 1,
        mode: str | None = None,
        **decoding: Any,
    ) -> Results:
        """Ask any task about media, one of your own too: ``texts`` holds what its rows hold beside the medium, such
        as ``{"question": "how many?"}``."""
        from unival.specs import get_spec

        spec = get_spec(task)
        if not spec.reads_media:
            raise ConfigError(f"task '{task}' reads no media; see draw and encode")
        names, asked = [field.name for field in spec.asked], dict(texts or {})
        if missing := [name for name in names if name not in asked]:
            raise ConfigError(f"task '{task}' needs the texts {', '.join(names)}: {missing[0]} is missing")
        known = {field.name for field in spec.fields} - set(spec.modalities)
        if unknown := sorted(asked.keys() - known):
            raise ConfigError(f"task '{task}' has no field '{unknown[0]}'.{nearest(unknown[0], known)}")
        return self._predict(task, media, asked, modality, n_best, mode, decoding=decoding)

    def encode(
        self, media: Any = None, text: str | list[str] | None = None, modality: str | None = None
    ) -> Encoding | list[Encoding]:
        """Return the encoder's states of an input (unival.predict.results.Encoding), or a list of them.

        Without ``text`` the source is the captioning prompt; without ``media`` it is the text alone.
        """
        if media is None and text is None:
            raise ConfigError("encode needs media, a text, or both")
        return self._encode(media, text, modality)

    def draw(
        self, text: str | list[str], n_best: int = 1, vqgan: str | Path | None = None, **decoding: Any
    ) -> Drawing | list[Drawing]:
        """Generate an image for a text: ``beam`` samples, of which the best ``n_best`` are returned, judged by
        CLIP when ``clip_model_path`` was given to :func:`load`, else by probability.

        vqgan: weights that turn image codes into pixels, unless ``vqgan_model_path`` was given to
        :func:`load`; ConfigError without either.
        """
        from unival.imagegen.grid import read_grids
        from unival.imagegen.scorer import ImageScorer

        chosen: dict[str, Any] = {"code_image_size": self.loaded.model.config.transformer.code_image_size}
        if vqgan is not None:
            chosen["vqgan_model_path"] = str(vqgan)
        call = Call(None, {"text": text})
        everything = {"image": list(range(len(call)))}
        drawings: list[Any] = [None] * len(call)
        scorer = ImageScorer.of(replace(self.options, **chosen), self.device)
        for row, _, _, found in self._decoded(call, everything, "image_gen", None, chosen, decoding, n_best):
            outputs = [output for output, _ in found.n_best or ((found.output, found.score),)]
            grids = read_grids([output["codes"] for output in outputs], chosen["code_image_size"])
            drawings[row] = Drawing(tuple(scorer.render(grids)), tuple(grids), outputs[0].get("similarity"))
        return drawings if call.several else drawings[0]

    # one path for all tasks

    def _predict(
        self,
        task: str,
        media: Any,
        texts: dict[str, Any],
        modality: str | None,
        n_best: int,
        mode: str | None = None,
        chosen: dict[str, Any] | None = None,
        decoding: dict[str, Any] | None = None,
    ) -> Results:
        if media is None:
            raise MediaError("None", f"expected {EXPECTED}")
        call = Call(media, texts, self.limits)
        results: list[Any] = [None] * len(call)
        groups = call.groups(task, modality, self.modalities)
        for row, kind, decoder, found in self._decoded(
            call, groups, task, mode, chosen or {}, decoding or {}, n_best
        ):
            results[row] = _result(found, kind, call.medium(row), n_best, decoder.mode == "allcand")
        return results if call.several else results[0]

    def _decoded(
        self,
        call: Call,
        groups: dict[str, list[int]],
        task: str,
        mode: str | None,
        chosen: dict[str, Any],
        decoding: dict[str, Any],
        n_best: int,
    ) -> Iterator[tuple[int, str, Inference, Prediction]]:
        """Yield (row, modality, decoder, prediction) of every row, batch after batch."""
        _count("n_best", n_best, MOST)
        for kind, places in groups.items():
            decoder = self._decoder(task, kind, mode, chosen, decoding, n_best)
            scored = len(decoder.candidates or ()) if decoder.mode == "allcand" else 0
            prepare = partial(call.batch, decoder)
            for rows, batch in ahead(prepare, call.batches(places, self.batch_size)):
                found = decoder(self.model, self._moved(batch), max(n_best, scored))
                for row, prediction in zip(rows, found, strict=True):
                    yield row, kind, decoder, prediction

    def _encode(self, media: Any, text: Any, modality: str | None) -> Encoding | list[Encoding]:
        import torch

        from unival.generate.run import encode

        call = Call(media, {} if text is None else {"text": text}, self.limits)
        groups = (
            {None: list(range(len(call)))}
            if media is None
            else call.groups("caption", modality, self.modalities)
        )
        results: list[Any] = [None] * len(call)
        for kind, places in groups.items():
            decoder = self._decoder("caption", kind or "image", None, {}, {}, 1)
            prepare = partial(call.source, decoder, text is not None)
            for rows, batch in ahead(prepare, call.batches(places, self.batch_size)):
                with torch.no_grad():
                    out = encode(self.model, self._moved(batch)["net_input"])
                states = out.states.float().cpu()
                used = ~out.padding.cpu()
                before = states.size(1) - batch["net_input"]["src_tokens"].size(1)
                for row, own, kept in zip(rows, states, used, strict=True):
                    results[row] = Encoding(kind, own[kept], int(kept[:before].sum()))
        return results if call.several else results[0]

    def _decoder(
        self,
        task: str,
        modality: str,
        mode: str | None,
        chosen: dict[str, Any],
        decoding: dict[str, Any],
        n_best: int,
    ) -> Inference:
        """Return the task's decoder, prepared once per combination of arguments.

        For the task that the checkpoint was trained for, the decoding of its validation is the default.
        """
        key = json.dumps([task, modality, mode, chosen, decoding, n_best], sort_keys=True, default=str)
        with self._lock:
            if key in self._decoders:
                return self._decoders[key]
        from unival.checkpoint.resolve import Wanted, laid_over, resolve
        from unival.generate import GenerationSettings
        from unival.predict.inference import Inference

        asked = Wanted(task, modality, mode, laid_over(self.given, chosen), decoding)
        what = resolve(self.loaded.header, asked)
        settings = what.decoding
        beams = GenerationSettings.of({**what.spec.generation, **settings}).beam
        if n_best > beams and "beam" not in decoding:
            settings["beam"] = n_best
        made = Inference(what.spec, what.options, self.loaded.vocabulary, settings, what.mode)
        _enough(made, n_best)
        with self._lock:
            if len(self._decoders) >= KEPT:
                self._decoders.pop(next(iter(self._decoders)))
            return self._decoders.setdefault(key, made)

    def _moved(self, batch: dict[str, Any]) -> dict[str, Any]:
        from unival.batching.batch import to_device

        return to_device(batch, self.device, self.precision)


def _count(name: str, value: Any, most: int | None = None) -> None:
    """Raise ConfigError for anything but a whole number from 1 to ``most``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < 1:
        raise ConfigError(f"{name} is {value!r}: a whole number of at least 1 is needed")
    if most is not None and int(value) > most:
        raise ConfigError(f"{name} is {value}: at most {most} outputs are kept")


def _enough(decoder: Inference, n_best: int) -> None:
    """Raise ConfigError for more outputs than a search can give."""
    settings = decoder.settings
    rounds = decoder.options.sampling_times if settings.sampling else 1
    if decoder.mode != "allcand" and n_best > settings.beam * rounds:
        raise ConfigError(
            f"n_best {n_best} is above the {settings.beam * rounds} outputs of a search with beam {settings.beam}: "
            "give a larger beam, or none"
        )


def _result(prediction: Any, modality: str, medium: Any, n_best: int, closed: bool) -> Result:
    output = prediction.output
    text, box = (output, None) if isinstance(output, str) else (None, output)
    listed = prediction.n_best or ((output, prediction.score),)
    return Result(
        modality=modality,
        text=text,
        box=box,
        log_prob=prediction.score,
        n_best=listed[:n_best] if n_best > 1 else (),
        distribution=_distribution(listed) if closed else None,
        medium=medium,
    )


def _distribution(scored: Sequence[tuple[Any, float]]) -> dict[str, float]:
    """Softmax of log-probabilities; most probable first."""
    best = max(score for _, score in scored)
    shares = {str(answer): math.exp(score - best) for answer, score in scored}
    total = sum(shares.values())
    return {answer: share / total for answer, share in shares.items()}
