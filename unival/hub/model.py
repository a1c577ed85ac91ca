"""A transformers model over ours: loading is ours, generation is ours, the calling convention theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import Seq2SeqLMOutput

from unival.checkpoint.export import export_huggingface
from unival.checkpoint.load import Loaded, load_checkpoint
from unival.errors import CheckpointError, ConfigError
from unival.generate import generate
from unival.modeling.config import ModelConfig
from unival.predict.predictor import Predictor

# their name of a decoding setting -> ours
RENAMED = {
    "num_beams": "beam",
    "max_new_tokens": "max_len_b",
    "min_new_tokens": "min_len",
    "length_penalty": "lenpen",
    "do_sample": "sampling",
    "top_k": "sampling_topk",
    "top_p": "sampling_topp",
}


class UnivalConfig(PretrainedConfig):
    """What config.json says; ``model`` holds our own options of the network."""

    model_type = "unival"

    def __init__(self, **values: Any) -> None:
        values.setdefault("is_encoder_decoder", True)
        super().__init__(**values)


class UnivalModel(PreTrainedModel):
    """The network with the calling convention of transformers. Made by ``from_pretrained``."""

    config_class = UnivalConfig
    base_model_prefix = ""

    def __init__(self, config: UnivalConfig, loaded: Loaded | None = None) -> None:
        super().__init__(config)
        if loaded is None:
            raise CheckpointError("UnivalModel is made from a folder: UnivalModel.from_pretrained(folder)")
        self.loaded = loaded
        self.encoder, self.decoder = loaded.model.encoder, loaded.model.decoder

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *_: Any,
        config: UnivalConfig | None = None,
        **options: Any,
    ) -> UnivalModel:
        """Load a local folder through :func:`unival.checkpoint.load_checkpoint`: strict, nothing re-drawn.

        ``dtype`` (or ``torch_dtype``) converts the weights. Raises CheckpointError for a folder that is not
        here, ConfigError for placing the model by ``device_map`` or quantising it, which it does not know.
        """
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            raise CheckpointError(f"'{folder}' is not a folder on this machine; download it first")
        for name in ("device_map", "quantization_config", "load_in_8bit", "load_in_4bit"):
            if options.get(name):
                raise ConfigError(f"{name} is not supported; load the model and move it with .to(device)")
        loaded = load_checkpoint(folder)
        model = cls(config or UnivalConfig.from_pretrained(folder), loaded)
        dtype = options.get("dtype", options.get("torch_dtype"))
        if isinstance(dtype, str) and dtype != "auto":
            dtype = getattr(torch, dtype)
        if isinstance(dtype, torch.dtype):
            torch.nn.Module.to(model, dtype)
        return model.eval()

    def save_pretrained(self, save_directory: str | Path, *_: Any, **__: Any) -> None:  # type: ignore[override]
        """Write the folder that ``from_pretrained`` reads."""
        export_huggingface(self.loaded, save_directory)

    @property
    def network_config(self) -> ModelConfig:
        return self.loaded.model.config

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor, **media: Any) -> Seq2SeqLMOutput:
        """Logits (B, U, V) of a batch. input_ids (B, T) with padding 1, decoder_input_ids (B, U) from bos on;
        media: patch_images (b, 3, h, w), patch_videos, patch_audios, patch_types as in
        :meth:`unival.modeling.model.UnIVAL.forward`."""
        logits, extra = self.loaded.model(input_ids, None, decoder_input_ids, **media)
        return Seq2SeqLMOutput(logits=logits, encoder_last_hidden_state=extra["encoder_out"].states)

    @torch.no_grad()
    def generate(self, input_ids: Tensor, num_return_sequences: int = 1, **given: Any) -> Tensor:  # type: ignore[override]
        """Return token ids (B * num_return_sequences, L), eos included, padded with 1, from our generator.

        Beside media tensors (see ``forward``) it takes decoding settings by their names or ours
        (``num_beams`` or ``beam``, ``max_new_tokens`` or ``max_len_b``, ``no_repeat_ngram_size``, ...).
        Raises ConfigError for an unknown setting.
        """
        media = {name: given.pop(name) for name in list(given) if name.startswith("patch_")}
        settings = {RENAMED.get(name, name): value for name, value in given.items()}
        settings.setdefault("beam", max(num_return_sequences, 1))
        found = generate(self.loaded.model, {"src_tokens": input_ids, **media}, settings)
        short = [row for row, hypotheses in enumerate(found) if len(hypotheses) < num_return_sequences]
        if short:
            raise ConfigError(
                f"row {short[0]} has {len(found[short[0]])} outputs, num_return_sequences is {num_return_sequences}; "
                "raise num_beams"
            )
        kept = [torch.tensor(h.tokens) for row in found for h in row[:num_return_sequences]]
        padded = torch.nn.utils.rnn.pad_sequence(
            kept, batch_first=True, padding_value=self.loaded.vocabulary.pad
        )
        return padded.to(input_ids.device)

    def predictor(self, **options: Any) -> Predictor:
        """Return our Python interface (caption, answer, ground, ...) to this model, on its device and in its
        precision."""
        options.setdefault("precision", str(self.dtype).removeprefix("torch."))
        return Predictor(self.loaded, device=str(self.device), name=str(self.name_or_path or ""), **options)
