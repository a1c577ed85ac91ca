"""Initial weights from published files: networks of the modalities, and fairseq's bart.base."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unival.core.torchfile import State, load_torch, read_fairseq
from unival.errors import CheckpointError
from unival.modeling.backbone import Backbone, efficientnet_names
from unival.modeling.weights import MEL_BANK, TIED, LoadReport, extend_table, load_into

if TYPE_CHECKING:
    from unival.vocabulary.vocabulary import Vocabulary

NETWORK_PREFIXES = ("module.", "sed_model.", "audio_branch.")
DOWNLOADED = "pretrained"
WEIGHT_ENDINGS = (".pth", ".pt", ".bin", ".safetensors")
BART_POSITION_SHIFT = 2  # fairseq's BART counts positions from padding_idx + 1
BART_TEXT_ROWS = 50264  # four specials and the BPE words of the released vocabulary
_BART_PARTS = (
    r"(encoder|decoder)\.(embed_tokens|embed_positions|layernorm_embedding"
    r"|layers\.\d+\.((self|encoder)_attn\.\w+_proj|fc[12]|\w+_layer_norm))\."
)


def load_network(network: nn.Module, path: str | Path, mel_bank: str = "file") -> LoadReport:
    """Load pretrained weights into the network of one modality.

    Formats: a state dict (timm, torchvision; also .safetensors), {"state_dict": ...} with keys ``module.*``
    (3-D ResNeXt on Kinetics), {"model": ...} (PANN, AudioSet), keys possibly behind ``sed_model.`` or
    ``audio_branch.``. Classifiers of the file, its fourth stage where the network has three, and counters that
    older files lack may differ; every other key must be there, except the mel filters and the first norm when
    the number of bands differs (reference behaviour). ``mel_bank``: see the option of that name.
    A network of timm (``image_backbone``) takes its own names or those of EfficientNet-PyTorch; ``path`` may also
    name an installed package that holds one file of weights, or be "pretrained" (timm downloads them).
    Raises CheckpointError when the rest does not fit.
    """
    if isinstance(network, Backbone):
        if str(path) == DOWNLOADED:
            return take_backbone(network, downloaded(network.name), f"timm's {network.name}")
        path = weights_file(path)
        return take_backbone(network, _read(path), str(path))
    return take_network(network, _read(Path(path)), str(path), mel_bank)


def take_backbone(network: Backbone, content: Any, path: str) -> LoadReport:
    """:func:`load_network` for a network of timm and the content of a file that was read."""
    state, skipped = _network_state(content)
    if "_conv_stem.weight" in state and hasattr(network.backbone, "blocks"):
        state = efficientnet_names({*network.backbone.state_dict(), *network.left_out}, state)
    for key in [key for key in state if key in network.left_out]:
        del state[key]
        skipped[key] = "not needed for the features"
    try:
        report = load_into(network.backbone, state, (r"num_batches_tracked$",))
    except CheckpointError as error:
        raise CheckpointError(f"'{path}' is not a file of timm's {network.name}: {error}") from None
    report.skipped = {**skipped, **report.skipped}
    return report


def weights_file(given: str | Path) -> Path:
    """Return a file of weights: the path itself, or the one file of weights in the installed package of that
    name. Raises CheckpointError."""
    path = Path(given)
    if path.is_file():
        return path
    try:
        listed = metadata.files(str(given)) or []
    except (metadata.PackageNotFoundError, ValueError):
        raise CheckpointError(
            f"image_backbone_weights '{given}' is neither a file nor an installed package; name one of them, or "
            f"'{DOWNLOADED}' for timm's own download"
        ) from None
    found = [Path(str(file.locate())) for file in listed if file.suffix in WEIGHT_ENDINGS]
    if len(found) != 1:
        raise CheckpointError(
            f"the package '{given}' holds {len(found)} files of weights; name the file itself"
        )
    return found[0]


def downloaded(name: str) -> State:
    """Fetch timm's weights of a network, or find them in its cache. Raises CheckpointError without them."""
    import timm

    try:
        return dict(timm.create_model(name, pretrained=True).state_dict())
    except Exception as error:  # whatever timm and the hub's client raise
        raise CheckpointError(f"timm has or gets no weights of '{name}': {error}") from None


def take_network(network: nn.Module, content: Any, path: str, mel_bank: str = "file") -> LoadReport:
    """:func:`load_network` for the content of a file that was read; ``path`` is for messages."""
    state, skipped = _network_state(content)
    own = network.state_dict()
    apart: dict[str, str] = {}  # patterns of keys that are not taken though the file has them
    bands = [s[MEL_BANK].size(1) for s in (state, own) if MEL_BANK in s]
    if len(bands) == 2 and bands[0] != bands[1]:
        apart[r"^(logmel_extractor|bn0)\."] = f"the file has {bands[0]} mel bands, the network {bands[1]}"
    if mel_bank == "computed":
        apart[rf"^{re.escape(MEL_BANK)}$"] = "mel_bank=computed: filters for 48 kHz"
    allowed = {
        **apart,
        r"^fc\.": "classifier, unused",
        r"num_batches_tracked$": "counter that older files lack",
    }
    for key, value in list(state.items()):
        reason = _surplus(key, value, own, apart)
        if reason:
            skipped[key] = reason
            del state[key]
    try:
        report = load_into(network, state, tuple(allowed))
    except CheckpointError as error:
        raise CheckpointError(f"'{path}' is not a file of this network: {error}") from None
    report.skipped = {**skipped, **report.skipped}
    for key in report.missing:
        report.kept[key] = next(why for pattern, why in allowed.items() if re.search(pattern, key))
    return report


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return load_torch(path)


def _network_state(content: Any) -> tuple[State, dict[str, str]]:
    """Tensors of a file under the network's own names, and keys left out with the reason."""
    for entry in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"a file of network weights holds named tensors, not {type(content).__name__}")
    branch = any("audio_branch." in key for key in content)
    state: State = {}
    skipped: dict[str, str] = {}
    for name, value in content.items():
        if not isinstance(value, Tensor):
            skipped[name] = "not a tensor"
        elif branch and "audio_branch." not in name:
            skipped[name] = "another branch of the file"
        else:
            key = name
            for prefix in NETWORK_PREFIXES:
                key = key.removeprefix(prefix)
            state[key] = value
    return state, skipped


def _surplus(key: str, value: Tensor, own: Mapping[str, Tensor], apart: Mapping[str, str]) -> str | None:
    """Why a key of the file is not for this network, or None."""
    for pattern, why in apart.items():
        if re.search(pattern, key):
            return why
    if "stft.conv_" in key and key in own and value.shape != own[key].shape:
        raise CheckpointError(
            f"the file's spectrogram has a window of {value.size(-1)} samples, this network's has "
            f"{own[key].size(-1)}; use weights trained with that window"
        )
    if key in own and value.shape == own[key].shape:
        return None
    if key.startswith("fc"):
        return "classifier, unused"
    return "the network has three stages" if key.startswith("layer4.") else None


@torch.no_grad()
def load_bart(
    model: nn.Module, path: str | Path, vocabulary: Vocabulary | None = None, as_reference: bool = False
) -> LoadReport:
    """Start a model of the size of fairseq's bart.base from that file, as the first stage does.

    Rows of words are taken by symbol (``dict.txt`` beside the file, and ``vocabulary``; without either by
    number, since the released vocabulary lists its words in BART's order), <mask> from BART's last row; codes
    and bins keep their initial rows. BART's positions begin two rows down. Its norms come from a post-norm
    network; what it lacks (position bias, extra norms, networks) stays as initialised.

    ``as_reference``: token rows by number, so that <mask> and the first codes get rows of BART's filler words
    and mask and the rest is drawn from N(0, 1 / width); positions not shifted (reference behaviour).
    Raises CheckpointError when vocabulary or sizes differ.
    """
    state = read_fairseq(path).model
    own = model.state_dict()
    table, rows = state.get(TIED[0]), own[TIED[0]]
    text = BART_TEXT_ROWS if vocabulary is None else vocabulary.mask
    if table is None or min(table.size(0), rows.size(0)) <= BART_TEXT_ROWS or text != BART_TEXT_ROWS:
        raise CheckpointError(
            f"'{path}' or the model does not use the released vocabulary ({BART_TEXT_ROWS} rows of text); "
            "give the released GPT-2 files as --bpe-dir, or start from random weights"
        )
    if table.size(1) != rows.size(1):
        raise CheckpointError(f"'{path}' has {table.size(1)} channels, the model {rows.size(1)}")
    taken: State = {key: value for key, value in state.items() if key not in TIED}
    notes = {}
    if as_reference:
        grown = extend_table(TIED[0], table, rows)
        taken[TIED[0]], how = grown if grown is not None else (table[: rows.size(0)], "cut")
        notes[TIED[0]] = f"rows by number, {how} (as the reference)"
    else:
        taken[TIED[0]], notes[TIED[0]] = _bart_words(table, rows, Path(path), vocabulary)
        for key, value in state.items():
            if key.endswith("embed_positions.weight") and key in own:
                count = min(value.size(0) - BART_POSITION_SHIFT, own[key].size(0))
                taken[key] = own[key].clone()
                taken[key][:count] = value[BART_POSITION_SHIFT : BART_POSITION_SHIFT + count]
                notes[key] = f"{count} rows from row {BART_POSITION_SHIFT}, where BART's positions begin"
    report = load_into(model, taken, allow_missing=(rf"^(?!{_BART_PARTS})",))
    notes.update({key: f"with {TIED[0]}" for key in TIED[1:] if key in report.taken})
    for key, how in notes.items():
        report.resize(key, how)
    for key in report.missing:
        report.kept[key] = "BART has no such part"
    return report


def _bart_words(table: Tensor, rows: Tensor, path: Path, vocabulary: Vocabulary | None) -> tuple[Tensor, str]:
    """The model's token table with BART's rows in it, and how they were found."""
    dictionary = path.with_name("dict.txt")
    mixed = rows.clone()
    mixed[:4] = table[:4]
    mixed[BART_TEXT_ROWS] = table[-1]
    if vocabulary is None or not dictionary.is_file():
        mixed[:BART_TEXT_ROWS] = table[:BART_TEXT_ROWS]
        return mixed, f"{BART_TEXT_ROWS} text rows by number, <mask> from row {table.size(0) - 1}"
    lines = dictionary.read_text(encoding="utf-8").splitlines()
    theirs = {line.split()[0]: row for row, line in enumerate(lines, 4)}
    if len(lines) + 5 != table.size(0):
        raise CheckpointError(
            f"'{dictionary}' has {len(lines)} words; with four specials and <mask> that makes "
            f"{len(lines) + 5} rows, but '{path.name}' has {table.size(0)}. Put the file's own dict.txt there."
        )
    ours = {vocabulary.symbol(row): row for row in range(4, BART_TEXT_ROWS)}
    found = [(row, theirs[word]) for word, row in ours.items() if word in theirs]
    if found:
        here, there = (torch.tensor(side) for side in zip(*found, strict=True))
        mixed[here] = table[there].to(mixed)
    return mixed, (
        f"{len(found)} of {len(ours)} words by symbol, four specials, <mask> from row {table.size(0) - 1}"
    )
