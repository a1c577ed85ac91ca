"""What task descriptions may be told, with the reference's option names: a dataclass per concern; defaults and
bounds stand in the fields and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from unival.core.options import check_fields, check_types, option
from unival.errors import ConfigError, nearest, shortened
from unival.imagegen.options import ImageGenOptions
from unival.vocabulary.prompts import check_overrides

PROMPT_TYPES = ("none", "src", "prev_output")
MASK_LENGTHS = ("span-poisson", "word", "subword")
REPLACEMENTS = (1, 0, -1)
PROTOCOLS = ("unival", "official")
AUDIO_CROPS = ("centre", "start", "rand")
RESIZE_BACKENDS = ("pillow", "torchvision")


def answer_texts(answers: Any) -> tuple[str, ...]:
    """Return a closed list of answers; ConfigError for a text, or for a list that holds something else than texts."""
    listed = (
        None
        if isinstance(answers, str | bytes | Mapping) or not hasattr(answers, "__iter__")
        else tuple(answers)
    )
    if listed is None:
        raise ConfigError(f"answers is {shortened(repr(answers), 80)}: expected a list of texts")
    if not listed:
        raise ConfigError("answers is an empty list: name at least one answer")
    for answer in listed:
        if not isinstance(answer, str) or not answer.strip():
            raise ConfigError(f"answers holds {shortened(repr(answer), 80)}: expected texts")
    return listed


@dataclass(frozen=True)
class InputOptions:
    """Sizes of media and how they are read; lengths in pixels, frames, samples."""

    patch_image_size: int = option(480, "side of the image given to the network, pixels", least=1, most=4096)
    patch_frame_size: int = option(224, "side of a video frame, pixels", least=1, most=4096)
    num_frames: int = option(4, "frames taken from a video", least=1, most=4096)
    sample_type: str = option("rand", "frame choice in training: rand, middle or fps<x>")
    eval_sample_type: str = option(
        "middle", "frame choice in evaluation: middle, fps<x>, or rand (reference behaviour, seeded)"
    )
    eval_audio_crop: str = option(
        "centre", "part of a long sound in evaluation: centre, start or rand", choices=AUDIO_CROPS
    )
    sample_rate: int = option(48000, "audio sample rate, Hz", least=1)
    max_audio_len: int = option(480000, "audio samples given to the network", least=1, most=100_000_000)
    imagenet_default_mean_and_std: bool = option(
        False, "ImageNet normalisation, not 0.5 (image_backbone brings its own)"
    )
    use_dataaug: bool | None = option(
        None, "random crops and colours in training; default: in pretraining only"
    )
    frame_resize: str = option("none", "video frames: none (crop only), short_side or square")
    video_flip: bool = option(True, "flip videos at random with use_dataaug")
    no_image_transform: bool = option(False, "centre crop instead of resizing")
    resize_backend: str = option(
        "pillow",
        "what resizes images: pillow (reference behaviour) or torchvision (faster, within 2 levels of 255; JPEG files "
        "of four times the size and more are decoded at a fraction)",
        choices=RESIZE_BACKENDS,
    )


@dataclass(frozen=True)
class TextOptions:
    """Lengths of texts and what the decoder begins with."""

    max_src_length: int = option(128, "words kept of a question or text in the source", least=1)
    max_tgt_length: int = option(30, "words kept of a caption that is learnt", least=1)
    max_source_positions: int = option(1024, "most tokens of a source, longer ones are cut", least=1)
    max_target_positions: int = option(1024, "most tokens of a target, longer ones are cut", least=1)
    prompt_type: str = option(
        "none", "what the decoder is made to begin with: none, src or prev_output", choices=PROMPT_TYPES
    )
    prompts: Mapping[str, str] = option(dict, "prompt templates replaced by name")


@dataclass(frozen=True)
class AnswerOptions:
    """Questions and closed lists of answers."""

    max_object_length: int = option(30, "object names appended to a question", least=1)
    add_object: bool = option(False, "append the row's object names to a question")
    answers: tuple[str, ...] | None = option(None, "closed list of answers")
    ans2label_dict: Mapping[str, int] | None = option(None, "closed list of answers as {answer: number}")
    ans2label_file: str | None = option(
        None, "file with the closed list of answers: text lines, JSON or the released pickle"
    )


@dataclass(frozen=True)
class EntailmentOptions:
    """Entailment."""

    add_caption: bool = option(False, "give the premise caption in entailment")


@dataclass(frozen=True)
class GroundingOptions:
    """Boxes."""

    max_image_size: int = option(512, "pixels that the coordinate bins span", least=1)
    acc_thresh: float = option(0.5, "IoU from which a box counts as right", above=0, most=1)


@dataclass(frozen=True)
class MatchingOptions:
    """Wrong captions and answers of pretraining."""

    neg_sample_dir: str | None = option(
        None, "folder with all_captions.txt, object.txt, type2ans.json for matching"
    )
    neg_captions_video: str | None = option(
        None,
        "captions for negatives of videos, default all_captions_video.txt in neg_sample_dir, else of images",
    )
    neg_captions_audio: str | None = option(
        None,
        "captions for negatives of audio, default all_captions_audio.txt in neg_sample_dir, else of images",
    )
    matching_prob: float = option(
        1.0, "share of pretraining rows that also give a matching example", least=0, most=1
    )


@dataclass(frozen=True)
class InfillingOptions:
    """Text infilling."""

    mask_ratio: float = option(0.3, "text infilling: share of the words that are hidden", least=0, most=1)
    random_ratio: float = option(
        0.0, "text infilling: share of spans shown as random tokens", least=0, most=1
    )
    keep_ratio: float = option(0.0, "text infilling: share of spans shown as they are", least=0, most=1)
    mask_length: str = option(
        "span-poisson", "text infilling hides span-poisson, word or subword", choices=MASK_LENGTHS
    )
    poisson_lambda: float = option(3.0, "text infilling: mean words of a span", above=0)
    replace_length: int = option(
        1, "text infilling: masks shown for a span: 1, 0, or -1 for one each token", choices=REPLACEMENTS
    )


@dataclass(frozen=True)
class ScoringOptions:
    """Scores and the seed."""

    protocol: str = option(
        "unival",
        "how predictions are scored: unival (as published: captions lose their punctuation) or official",
        choices=PROTOCOLS,
    )
    seed: int = option(7, "seed of all random choices of the data")


@dataclass(frozen=True)
class SpecOptions(
    InputOptions,
    TextOptions,
    AnswerOptions,
    EntailmentOptions,
    GroundingOptions,
    MatchingOptions,
    InfillingOptions,
    ScoringOptions,
    ImageGenOptions,
):
    """All of them in one object, since a mixture holds several tasks. Lengths are in words unless said otherwise.

    A task of one's own adds options by a frozen dataclass that inherits this one, named as its
    ``options_class`` (docs/adding-a-task.md).
    """

    def __post_init__(self) -> None:
        check_types(self, "task option", skip=("answers",))
        super().__post_init__()
        check_fields(self)
        if self.random_ratio + self.keep_ratio > 1:
            raise ConfigError(
                f"random_ratio {self.random_ratio} and keep_ratio {self.keep_ratio} together exceed 1"
            )
        if sum(x is not None for x in (self.answers, self.ans2label_dict, self.ans2label_file)) > 1:
            raise ConfigError("give only one of answers, ans2label_dict and ans2label_file")
        if self.answers is not None:
            object.__setattr__(self, "answers", answer_texts(self.answers))
        check_overrides(self.prompts)

    @property
    def random_evaluation(self) -> bool:
        """True when evaluation, too, takes frames or sounds at random (reference behaviour)."""
        return "rand" in (self.eval_sample_type, self.eval_audio_crop)

    @classmethod
    def from_options(cls, **options: Any) -> SpecOptions:
        """Build from named options; an unknown name is a ConfigError that offers the nearest one."""
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise ConfigError(f"unknown task option '{name}'.{nearest(name, known)}")
        return cls(**options)
