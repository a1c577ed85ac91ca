"""One checkpoint into another form: our folder, the engine's file, a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unival.checkpoint.added import save_added
from unival.checkpoint.catalogue import local_path
from unival.checkpoint.export import export_fairseq, export_huggingface
from unival.checkpoint.folder import save_folder
from unival.checkpoint.identify import size_of
from unival.checkpoint.load import Loaded, load_checkpoint
from unival.errors import ConfigError, nearest
from unival.vocabulary.prompts import check_overrides

FORMATS = ("folder", "fairseq", "huggingface", "added")


def convert(
    source: str | Path,
    out: str | Path,
    to: str = "folder",
    weights: str = "auto",
    bpe_dir: str | Path | None = None,
    prompts: Mapping[str, str] | None = None,
    base: str | Path | None = None,
) -> tuple[Path, list[str]]:
    """Read ``source`` (file, folder or name of the catalogue) and write it as ``to``; returns (path, report lines).

    weights: "raw", "ema" or "auto"; bpe_dir: vocabulary of a released file; prompts: templates to keep with
    the checkpoint instead of its own; base: what the training started from, for "added", a folder with only the
    weights that moved. Low-rank additions are put into their matrices, but for "added". Strict: an entry that does
    not fit is an error that lists them all.
    Raises CheckpointError and ConfigError.
    """
    if to not in FORMATS:
        raise ConfigError(f"format '{to}' is not one of {', '.join(FORMATS)}.{nearest(to, FORMATS)}")
    source = local_path(source)
    if Path(out).resolve() == Path(source).resolve():
        raise ConfigError(f"'{out}' is the source itself; name another output")
    if (to == "added") != (base is not None):
        raise ConfigError(
            "--to added needs --base, the checkpoint that the training started from, and no other format takes it"
        )
    check_overrides(prompts or {})
    loaded = load_checkpoint(source, weights, bpe_dir=bpe_dir).with_prompts(prompts or {})
    if base is not None:
        path = save_added(out, loaded, local_path(base))
        return path, _report(loaded)
    loaded.model.fold()
    if to == "fairseq":
        path = export_fairseq(loaded, out)
    elif to == "huggingface":
        path = export_huggingface(loaded, out)
    else:
        path = save_folder(out, loaded.model, loaded.vocabulary, loaded.prompts, loaded.about())
    return path, _report(loaded)


def _report(loaded: Loaded) -> list[str]:
    model = loaded.model
    count = sum(p.numel() for p in model.parameters())
    task: dict[str, Any] = loaded.task
    named = " ".join(str(task[k]) for k in ("modality", "name") if k in task) or "the file does not say"
    lines = [
        f"family: {loaded.family}, size: {size_of(model.config)}, {count / 1e6:.1f} M parameters",
        f"modalities: text, {', '.join(model.modalities)}" if model.modalities else "modalities: text",
        f"weights: {loaded.weights}",
        f"trained for: {named}",
        f"vocabulary: {len(loaded.vocabulary)} tokens ({loaded.vocabulary.fingerprint()[:12]})",
    ]
    lines += [f"prompt {name}: {text!r}" for name, text in loaded.prompts.items()]
    if loaded.ignored:
        lines.append(f"paths of the training machine, not used: {', '.join(loaded.ignored)}")
    return lines + loaded.report.splitlines()
