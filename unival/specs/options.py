"""All knobs of the task descriptions, with the reference's option names; defaults live here only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from unival.core.options import check_types
from unival.errors import ConfigError, nearest
from unival.imagegen.options import ImageGenOptions
from unival.vocabulary.prompts import check_overrides

PROMPT_TYPES = ("none", "src", "prev_output")
MASK_LENGTHS = ("span-poisson", "word", "subword")
REPLACEMENTS = (1, 0, -1)
PROTOCOLS = ("unival", "official")
AUDIO_CROPS = ("centre", "start", "rand")


@dataclass(frozen=True)
class SpecOptions(ImageGenOptions):
    """What a task description may be told. Lengths are in words unless said otherwise, sizes in pixels."""

    max_src_length: int = field(
        default=128, metadata={"help": "words kept of a question or text in the source"}
    )
    max_tgt_length: int = field(default=30, metadata={"help": "words kept of a caption that is learnt"})
    max_source_positions: int = field(
        default=1024, metadata={"help": "most tokens of a source, longer ones are cut"}
    )
    max_target_positions: int = field(
        default=1024, metadata={"help": "most tokens of a target, longer ones are cut"}
    )
    max_object_length: int = field(default=30, metadata={"help": "object names appended to a question"})
    patch_image_size: int = field(
        default=480, metadata={"help": "side of the image given to the network, pixels"}
    )
    patch_frame_size: int = field(default=224, metadata={"help": "side of a video frame, pixels"})
    num_frames: int = field(default=4, metadata={"help": "frames taken from a video"})
    sample_type: str = field(
        default="rand", metadata={"help": "frame choice in training: rand, middle or fps<x>"}
    )
    eval_sample_type: str = field(
        default="middle",
        metadata={
            "help": "frame choice in evaluation: middle, fps<x>, or rand (reference behaviour, seeded)"
        },
    )
    eval_audio_crop: str = field(
        default="centre", metadata={"help": "part of a long sound in evaluation: centre, start or rand"}
    )
    sample_rate: int = field(default=48000, metadata={"help": "audio sample rate, Hz"})
    max_audio_len: int = field(default=480000, metadata={"help": "audio samples given to the network"})
    max_image_size: int = field(default=512, metadata={"help": "pixels that the coordinate bins span"})
    imagenet_default_mean_and_std: bool = field(
        default=False, metadata={"help": "ImageNet normalisation, not 0.5"}
    )
    use_dataaug: bool | None = field(
        default=None, metadata={"help": "random crops and colours in training; default: in pretraining only"}
    )
    frame_resize: str = field(
        default="none", metadata={"help": "video frames: none (crop only), short_side or square"}
    )
    video_flip: bool = field(default=True, metadata={"help": "flip videos at random with use_dataaug"})
    no_image_transform: bool = field(default=False, metadata={"help": "centre crop instead of resizing"})
    prompt_type: str = field(
        default="none", metadata={"help": "what the decoder is made to begin with: none, src or prev_output"}
    )
    add_object: bool = field(default=False, metadata={"help": "append the row's object names to a question"})
    add_caption: bool = field(default=False, metadata={"help": "give the premise caption in entailment"})
    answers: tuple[str, ...] | None = field(default=None, metadata={"help": "closed list of answers"})
    ans2label_dict: Mapping[str, int] | None = field(
        default=None, metadata={"help": "closed list of answers as {answer: number}"}
    )
    ans2label_file: str | None = field(
        default=None,
        metadata={"help": "file with the closed list of answers: text lines, JSON or the released pickle"},
    )
    acc_thresh: float = field(default=0.5, metadata={"help": "IoU from which a box counts as right"})
    neg_sample_dir: str | None = field(
        default=None,
        metadata={"help": "folder with all_captions.txt, object.txt, type2ans.json for matching"},
    )
    neg_captions_video: str | None = field(
        default=None,
        metadata={
            "help": "captions for negatives of videos, default all_captions_video.txt in neg_sample_dir, else of images"
        },
    )
    neg_captions_audio: str | None = field(
        default=None,
        metadata={
            "help": "captions for negatives of audio, default all_captions_audio.txt in neg_sample_dir, else of images"
        },
    )
    matching_prob: float = field(
        default=1.0, metadata={"help": "share of pretraining rows that also give a matching example"}
    )
    mask_ratio: float = field(
        default=0.3, metadata={"help": "text infilling: share of the words that are hidden"}
    )
    random_ratio: float = field(
        default=0.0, metadata={"help": "text infilling: share of spans shown as random tokens"}
    )
    keep_ratio: float = field(
        default=0.0, metadata={"help": "text infilling: share of spans shown as they are"}
    )
    mask_length: str = field(
        default="span-poisson", metadata={"help": "text infilling hides span-poisson, word or subword"}
    )
    poisson_lambda: float = field(default=3.0, metadata={"help": "text infilling: mean words of a span"})
    replace_length: int = field(
        default=1, metadata={"help": "text infilling: masks shown for a span: 1, 0, or -1 for one each token"}
    )
    protocol: str = field(
        default="unival",
        metadata={
            "help": "how predictions are scored: unival (as published: captions lose their punctuation) or official"
        },
    )
    seed: int = field(default=7, metadata={"help": "seed of all random choices of the data"})
    prompts: Mapping[str, str] = field(
        default_factory=dict, metadata={"help": "prompt templates replaced by name"}
    )

    def __post_init__(self) -> None:
        check_types(self, "task option", skip=("answers",))
        super().__post_init__()
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.prompt_type not in PROMPT_TYPES:
            raise ConfigError(
                f"prompt_type '{self.prompt_type}' is not one of {', '.join(PROMPT_TYPES)}."
                + nearest(self.prompt_type, PROMPT_TYPES)
            )
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(
                    f"{name} '{value}' is not one of {', '.join(map(str, choices))}."
                    + nearest(str(value), map(str, choices))
                )
        if self.poisson_lambda <= 0:
            raise ConfigError(f"poisson_lambda is a mean above 0, got {self.poisson_lambda}")
        if self.random_ratio + self.keep_ratio > 1:
            raise ConfigError(
                f"random_ratio {self.random_ratio} and keep_ratio {self.keep_ratio} together exceed 1"
            )
        if not 0 < self.acc_thresh <= 1:
            raise ConfigError(f"acc_thresh is an overlap in (0, 1], got {self.acc_thresh}")
        for name in ("matching_prob", "mask_ratio", "random_ratio", "keep_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a share in [0, 1], got {getattr(self, name)}")
        if sum(x is not None for x in (self.answers, self.ans2label_dict, self.ans2label_file)) > 1:
            raise ConfigError("give only one of answers, ans2label_dict and ans2label_file")
        if self.answers is not None:
            object.__setattr__(self, "answers", tuple(self.answers))
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


_CHOICES: dict[str, tuple[Any, ...]] = {
    "protocol": PROTOCOLS,
    "eval_audio_crop": AUDIO_CROPS,
    "mask_length": MASK_LENGTHS,
    "replace_length": REPLACEMENTS,
}
_POSITIVE = (
    "max_src_length",
    "max_tgt_length",
    "max_source_positions",
    "max_target_positions",
    "max_object_length",
    "patch_image_size",
    "patch_frame_size",
    "num_frames",
    "sample_rate",
    "max_audio_len",
    "max_image_size",
)
