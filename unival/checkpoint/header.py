"""What a checkpoint says of itself beside its weights, whichever layout it has.

Loading, evaluation, prediction, training and merging all read it here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unival.checkpoint.folder import read_config
from unival.checkpoint.huggingface import is_ofa_folder, read_ofa
from unival.checkpoint.identify import BART, OURS, UNIVAL, family_of
from unival.core.foreign import interpreting
from unival.core.paths import root
from unival.core.torchfile import FairseqFile, read_fairseq
from unival.errors import CheckpointError
from unival.vocabulary.prompts import PROMPTS

if TYPE_CHECKING:
    from unival.vocabulary.vocabulary import Vocabulary

CODES_AND_BINS = {"num_codes": "code_dict_size", "num_bins": "num_bins"}  # arguments in released files
# Task options of a released file that say nothing about using it: lists and folders of the training machine,
# and a default list of two answers that the reference overrides by such a file.
UNUSED = ("answers", "ans2label_dict", "ans2label_file", "prompts", "seed", "use_dataaug")


@dataclass(frozen=True)
class Header:
    """What a checkpoint says; empty or None where it does not say it.

    family: "ours", "UnIVAL", "OFA" or "BART"; arch: the name of its size; weights: "raw" or "ema" where it
    holds one set and says which; task {"name", "modality"} that it was trained for, with the ``options`` of
    that task, the ``prompts`` that it replaces and the decoding {"mode", "settings"} of its validation;
    fingerprint: of its vocabulary; counts: {"num_codes", "num_bins"} for a vocabulary that it does not carry;
    lineage: SHA-256 of its ancestors, oldest first; carried: reads the vocabulary that it carries.
    """

    path: str
    family: str = OURS
    arch: str | None = None
    weights: str | None = None
    task: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    decoding: dict[str, Any] = field(default_factory=dict)
    fingerprint: str | None = None
    lineage: list[str] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    carried: Callable[[], Vocabulary] | None = None

    @classmethod
    def read(cls, path: str | Path) -> Header:
        """Read the header of a folder or a ``.pt`` file. Raises CheckpointError."""
        path = Path(path)
        with interpreting(path):
            return (
                cls.of_config(path, read_config(path))
                if is_own_folder(path)
                else cls.of_file(read_file(path))
            )

    @classmethod
    def of_config(cls, folder: Path, meta: Mapping[str, Any]) -> Header:
        """Return the header of a folder of ours, from the contents of its config.json."""
        from unival.vocabulary.vocabulary import Vocabulary

        return cls(
            path=str(folder),
            arch=meta.get("model", {}).get("arch"),
            weights=meta.get("weights", "raw"),
            fingerprint=meta.get("vocabulary"),
            carried=lambda: Vocabulary.load(folder),
            **_said(meta, "task_options"),
        )

    @classmethod
    def of_file(cls, file: FairseqFile) -> Header:
        """Return the header of a fairseq file; that of a released one follows from its arguments.

        Audio captioning of the released UnIVAL files asks about "the video" (reference behaviour); their
        prompt is replaced accordingly.
        """
        from unival.vocabulary.bart import read_bart
        from unival.vocabulary.vocabulary import Vocabulary

        path, arch, ours = file.path, file.arch, file.task_state.get("unival")
        counts = {
            ours_: int(n) for ours_, name in CODES_AND_BINS.items() if (n := file.args.get(name)) is not None
        }
        if ours is None:
            family = family_of(file)
            said = {} if family == BART else _released(file, family)
            bart = read_bart(path) if is_ofa_folder(path) else None
            if bart is not None:
                own = bart
                said |= {"fingerprint": own.fingerprint(), "carried": lambda: own}
            return cls(path, family, arch, counts=counts, **said)
        words = ours.get("vocabulary")
        return cls(
            path=path,
            arch=arch,
            weights=ours.get("weights") if file.ema is None else None,
            fingerprint=ours.get("fingerprint"),
            counts=counts,
            carried=None if words is None else lambda: Vocabulary.from_dict(words),
            **_said(ours, "options"),
        )

    def vocabulary(
        self, bpe_dir: str | Path | None = None, counts: Mapping[str, int] | None = None
    ) -> Vocabulary:
        """Return the vocabulary: the one that the checkpoint carries, else of ``bpe_dir``, else of the folder
        ``bpe`` below UNIVAL_WEIGHTS.

        ``counts`` of codes and bins are used where the checkpoint does not say them. Raises CheckpointError.
        """
        from unival.vocabulary.vocabulary import Vocabulary

        if self.carried is not None:
            return self.carried()
        folder = Path(bpe_dir) if bpe_dir is not None else released_vocabulary()
        if not (folder / "dict.txt").is_file():
            raise CheckpointError(
                f"'{self.path}' carries no vocabulary, and there is none in '{folder}': give the folder of the "
                "released BPE files (dict.txt, encoder.json, vocab.bpe) with bpe_dir (--bpe-dir)"
            )
        return Vocabulary.load(folder, **{**(counts or {}), **self.counts})

    @property
    def all_prompts(self) -> dict[str, str]:
        """All prompt templates as the model was trained with them."""
        return {**PROMPTS, **self.prompts}

    def kept_options(self) -> dict[str, Any]:
        """Return task options and prompts by name, without those that this version does not know (a newer
        one wrote the checkpoint)."""
        from unival.specs import all_options

        known = {f.name for f in fields(all_options())}
        kept = {name: value for name, value in self.options.items() if name in known}
        return {**kept, "prompts": self.prompts} if self.prompts else kept

    def about(self) -> dict[str, Any]:
        """Return what a folder of this model keeps beside model, vocabulary, prompts and kind of weights."""
        about = {
            "family": self.family,
            "task": self.task,
            "task_options": self.options,
            "decoding": self.decoding,
        }
        return about if self.lineage is None else {**about, "lineage": self.lineage}


def is_own_folder(path: Path) -> bool:
    """True for a folder, unless it is one of OFA's."""
    return path.is_dir() and not is_ofa_folder(path)


def read_file(path: str | Path) -> FairseqFile:
    """Read a ``.pt`` file, or a folder of OFA as one. Raises CheckpointError."""
    return read_ofa(path) if is_ofa_folder(path) else read_fairseq(path)


def released_vocabulary() -> Path:
    """Return the folder where the released BPE files are looked for: ``bpe`` below UNIVAL_WEIGHTS."""
    return root("UNIVAL_WEIGHTS") / "bpe"


def _said(meta: Mapping[str, Any], options: str) -> dict[str, Any]:
    """What a checkpoint of ours says, in a folder or in a file."""
    kept = dict(meta.get(options) or {})
    lineage = meta.get("lineage")
    return {
        "family": meta.get("family", OURS),
        "task": dict(meta.get("task") or {}),
        "options": kept,
        "prompts": dict(meta.get("prompts") or kept.get("prompts") or {}),
        "decoding": dict(meta.get("decoding") or {}),
        "lineage": None if lineage is None else [str(digest) for digest in lineage],
    }


def _released(file: FairseqFile, family: str) -> dict[str, Any]:
    from unival.specs import SPECS, SpecOptions
    from unival.specs.reference import REFERENCE_TASKS

    named = str(file.args.get("task") or "")
    task, modality = REFERENCE_TASKS.get(named, ("pretrain" if named == "unify_task" else "", ""))
    plain = (bool, int, float, str)
    options = {
        f.name: file.args[f.name]
        for f in fields(SpecOptions)
        if f.name not in UNUSED
        and not f.name.startswith("neg_")
        and not f.name.endswith(("_path", "_file", "_statistics"))
        and isinstance(file.args.get(f.name), plain)
        and isinstance(f.default, (*plain, type(None)))
    }
    prompts = dict(file.args.get("prompts") or {})
    if family == UNIVAL and (task, modality) == ("caption", "audio"):
        prompts["caption.audio"] = PROMPTS["caption.video"]
    settings = _decoding(file, SPECS[task].generation if task in SPECS else ())
    return {
        "task": {"name": task, **({"modality": modality} if modality else {})} if task else {},
        "options": options,
        "prompts": prompts,
        "decoding": {"settings": settings} if settings else {},
    }


def _decoding(file: FairseqFile, own_defaults: Iterable[str]) -> dict[str, Any]:
    """Decoding settings of a released file's validation, those that generation here knows, and for
    ``own_defaults``, which our task sets, the engine's values where the file names none."""
    from argparse import ArgumentTypeError

    from unival.core.options import parse_mapping
    from unival.generate.settings import ALIASES, GenerationSettings

    try:
        given = parse_mapping(str(file.args.get("eval_args") or "{}"))
    except ArgumentTypeError:
        return {}
    known = {f.name for f in fields(GenerationSettings)}
    named = {name: value for key, value in given.items() if (name := ALIASES.get(key, key)) in known}
    # What they leave out had the engine's default there, not the task's of ours.
    engine = {name: getattr(GenerationSettings, name) for name in own_defaults}
    return {**engine, **named} if named else {}
