"""UnIVAL: encoder and decoder under one forward."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from unival.modeling.batch_facts import BatchFacts
from unival.modeling.config import PEFT_SWITCHES, ModelConfig
from unival.modeling.decoder import Decoder
from unival.modeling.encoder import Encoder
from unival.modeling.encoding import encode
from unival.modeling.peft import add_lora, fold_lora

INIT_STD = 0.02


class UnIVAL(nn.Module):
    """Sequence-to-sequence model over text, images, video and audio (UnIVAL, Shukor et al., 2023)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        c = config.transformer

        def new_table() -> nn.Embedding:
            return nn.Embedding(config.vocab_size, c.encoder_embed_dim, padding_idx=1)

        embed = new_table()
        self.encoder = Encoder(config, embed)
        self.decoder = Decoder(config, embed if c.share_all_embeddings else new_table())
        self.apply(initialise)
        add_lora(self, config.peft)
        for table in {self.encoder.embed_tokens, self.decoder.embed_tokens}:
            nn.init.zeros_(table.weight[1])  # again: the output layer that shares it was drawn too

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities beside text that this model takes."""
        return tuple(self.encoder.front_ends)

    def fold(self) -> UnIVAL:
        """Put low-rank additions into the matrices that they belong to; the model computes the same without them."""
        if self.config.peft.lora:
            fold_lora(self)
            others = [name for name in PEFT_SWITCHES if name != "lora" and getattr(self.config.peft, name)]
            unfreeze = self.config.peft.unfreeze and bool(others)
            config = self.config.replace(lora=False, unfreeze=unfreeze)
            self.config = self.encoder.config = self.decoder.config = config
        return self

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None,
        prev_output_tokens: Tensor,
        patch_images: Tensor | None = None,
        patch_images_2: Tensor | None = None,
        patch_videos: Tensor | None = None,
        patch_audios: Tensor | None = None,
        patch_types: Tensor | None = None,
        patch_masks: Tensor | None = None,
        code_masks: Tensor | None = None,
        patch_rows: Tensor | None = None,
        kept_images: Tensor | None = None,
        kept_videos: Tensor | None = None,
        kept_audios: Tensor | None = None,
        features_only: bool = False,
        facts: BatchFacts | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Logits (B, U, V), or features (B, U, D), and {"encoder_out", "inner_states"}.

        Source arguments: :meth:`unival.modeling.encoder.Encoder.forward`; target arguments:
        :meth:`unival.modeling.decoder.Decoder.forward`. facts: what the host knows of this batch, as the collator
        says it; without them the tensors are asked.
        """
        source = {
            "src_tokens": src_tokens,
            "src_lengths": src_lengths,
            "patch_images": patch_images,
            "patch_images_2": patch_images_2,
            "patch_videos": patch_videos,
            "patch_audios": patch_audios,
            "patch_types": patch_types,
            "patch_masks": patch_masks,
            "patch_rows": patch_rows,
            "kept_images": kept_images,
            "kept_videos": kept_videos,
            "kept_audios": kept_audios,
            "facts": None if facts is None else facts.source,
        }
        encoder_out = encode(self.encoder, source)
        output = None if facts is None else facts.output
        out, extra = self.decoder(prev_output_tokens, encoder_out, code_masks, features_only, output)
        return out, {"encoder_out": encoder_out, **extra}


def initialise(module: nn.Module) -> None:
    """Draw a Linear or Embedding from N(0, 0.02), biases 0, padding row 0 (reference behaviour: BERT style,
    relative-position tables included). Convolutions and norms keep their own initialisation."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)
        if module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])
