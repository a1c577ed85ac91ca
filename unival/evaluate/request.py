"""What an evaluation is asked to do: one dataclass for the command line, for merging and for Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from unival.core.modalities import NAMES
from unival.core.options import check_fields, check_types, option, read_texts
from unival.errors import ConfigError, nearest
from unival.metrics.java import JavaSettings
from unival.specs import all_options

MODES = ("open", "trie", "rank", "beamsearch", "allcand")


def _inside(default: Any) -> Any:
    """A field that is no option of the command line."""
    return field(default=default, metadata={"internal": True})


@dataclass(frozen=True)
class Request:
    """An evaluation of ``checkpoint`` (a folder or a ``.pt``) on ``table`` (default: the recipe's).

    ``options`` are task options (fields of SpecOptions) that win over those of checkpoint and recipe. Without
    ``scored`` the table is only predicted and its targets are not looked at. Raises ConfigError for a value of
    another type, or outside its choices.
    """

    checkpoint: str = _inside("")
    table: str | None = _inside(None)
    task: str | None = option(None, "default: the recipe's, else the one the checkpoint was trained on")
    modality: str | None = option(None, "default: the task's own", choices=NAMES)
    out: str | None = option(None, "folder of the result (default: beside the checkpoint)")
    recipe: str | None = option(None, "take prompts and settings from this recipe, not from the checkpoint")
    zero_shot: bool = option(False, "ignore prompts and options kept in the checkpoint")
    train_table: str | None = option(
        None, "training table, to put the trivial baseline and the best possible score beside the model's"
    )
    selected_cols: str | None = option(None, "columns of a headerless TSV")
    image_dir: str | None = option(None, "folder or .tar that relative media paths start from")
    bpe_dir: str | None = option(
        None, "vocabulary folder, for released files, which carry none (default: bpe below UNIVAL_WEIGHTS)"
    )
    mode: str | None = option(None, "answers: open; or from a closed list by trie or rank", choices=MODES)
    eval_args: Mapping[str, Any] = option(dict, "decoding settings (JSON)")
    metrics: tuple[str, ...] = option((), "captions: of bleu,rouge,cider,meteor,spice (last two: Java)")
    main_metric: str | None = option(
        None,
        "the metric that counts in reports and beside baselines, such as exact for labels (default: the task's)",
    )
    tokenizer: str | None = option(None, "captions: ptb, ptb-java, split or characters")
    document_frequencies: str | None = option(None, "captions: corpus, or a cached table for CIDEr")
    java: str = option("java", "captions: the Java program, for meteor, spice and ptb-java")
    jars: str | None = option(
        None, "captions: folder with meteor-1.5.jar and stanford-corenlp-3.4.1.jar (default: pycocoevalcap's)"
    )
    spice_jars: str | None = option(
        None, "captions: folder with SPICE's jars (default: the environment's UNIVAL_SPICE_JARS)"
    )
    java_limit: float = option(180.0, "captions: seconds to wait for Java's first answer", above=0)
    results: str | None = option(None, "also write the predictions as EvalAI and the COCO tools read them")
    weights: str | None = option(None, "auto: EMA when present", choices=("auto", "raw", "ema"))
    batch_size: int = option(16, "rows predicted together", least=1)
    num_workers: int = option(0, "processes that read media", least=0)
    processes: int = option(1, "processes on this machine", least=1)
    shard: int | None = option(None, "predict only this of --num-shards shares, merge nothing", least=0)
    num_shards: int = option(1, "number of shares", least=1)
    preflight_timeout: float = option(
        300.0, "seconds that the ranks of a launcher wait for absent ones", above=0
    )
    limit: int | None = option(None, "only the first items", least=1)
    device: str | None = option(None, "cpu, cuda, cuda:1 (default: the GPUs when there are some)")
    precision: str = option(
        "float32", "type of weights and inputs", choices=("float32", "bfloat16", "float16")
    )
    allow_missing_media: bool = option(False, "score the readable rows; coverage is reported")
    restart: bool = option(False, "discard predictions of an earlier run in --out")
    scored: bool = _inside(True)
    options: Mapping[str, Any] = field(default_factory=dict, metadata={"internal": True})

    def __post_init__(self) -> None:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        for name, value in read_texts(values, type(self)).items():
            object.__setattr__(self, name, value)
        check_types(self, "option")
        check_fields(self)
        known = [item.name for item in fields(all_options())]
        for name in self.options:
            if name not in known:
                raise ConfigError(f"unknown task option '{name}'.{nearest(name, known)}")
        object.__setattr__(self, "options", read_texts(self.options, all_options()))

    @property
    def java_settings(self) -> JavaSettings:
        """Where Java and its jars are."""
        return JavaSettings(self.java, self.jars, self.spice_jars, start_limit=self.java_limit)

    @classmethod
    def named(cls, checkpoint: str, table: str | None = None, **named: Any) -> Request:
        """Build from options of both kinds, as recipes of merging list them. Raises ConfigError for unknown ones."""
        own = {f.name for f in fields(cls)} - {"checkpoint", "table", "options", "scored"}
        known = [*own, *(f.name for f in fields(all_options()))]
        for name in named:
            if name not in known:
                raise ConfigError(f"unknown option '{name}' of an evaluation.{nearest(name, known)}")
        options = {name: value for name, value in named.items() if name not in own}
        return cls(checkpoint, table, options=options, **{n: v for n, v in named.items() if n in own})
