"""Encoder: networks of the modalities, one joined sequence [second image][image, video or audio][text]."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from unival.core.modalities import PATCH_TYPES
from unival.core.transfers import numbers_of
from unival.errors import ConfigError, DataError
from unival.modeling.batch_facts import SourceFacts
from unival.modeling.config import ModelConfig
from unival.modeling.encoder_output import EncoderOutput
from unival.modeling.frontend import FrontEnd, build_networks, front_end
from unival.modeling.joining import Tokens, join, route, sample_tokens
from unival.modeling.layers import EncoderLayer, drop_path_rates
from unival.modeling.peft import build_prefix
from unival.modeling.position import RelativeTables, product_bias
from unival.modeling.row_parts import by_parts
from unival.modeling.sound_picture import SoundPicture
from unival.modeling.stacks import encoder_layers


class Encoder(RelativeTables):
    """See :meth:`forward`. Attribute and key names are the reference's."""

    def __init__(self, config: ModelConfig, embed_tokens: nn.Embedding) -> None:
        super().__init__()
        c = config.transformer
        width, side = c.encoder_embed_dim, c.image_bucket_size
        self.config = config
        self.padding_idx = 1
        self.embed_scale = 1.0 if c.no_scale_embedding else math.sqrt(width)
        self.held_in_eval: list[nn.Module] = []  # set by freezing
        self.on_features: Callable[[str, Tensor], None] | None = None  # told what a network gives
        self.register_buffer("version", torch.tensor([3.0]))
        self.embed_tokens = embed_tokens
        self.layernorm_embedding = nn.LayerNorm(width) if c.layernorm_embedding else None
        self.type_embedding: nn.Embedding | None = None
        if c.add_type_embedding or c.add_mm_type_embedding:
            rows = (4 if c.add_mm_type_embedding else 2) + c.second_image
            self.type_embedding = nn.Embedding(rows, width)
        networks = build_networks(config)
        for name, network in networks.items():
            if network is None:
                continue
            if config.network_of(name) == name:
                self.add_module(f"embed_{name}s", network)
            elif name == "video":
                self.embed_frame_positions = nn.Embedding(config.video.video_frame_positions, width)
            else:
                stride = cast(int, network.stride)
                self.sound_picture = SoundPicture(config.audio.mel_bins, config.audio.hop_size, stride)
            self.add_module(f"{name}_proj", nn.Linear(cast(int, network.out_channels), width))
            if getattr(getattr(config, name), f"layernorm_{name}_embedding"):
                self.add_module(f"layernorm_{name}_embedding", nn.LayerNorm(width))
            if name != "image":
                self.add_module(f"embed_{name}_positions", nn.Embedding(side * side + 1, width))
        self.patch_layernorm_embedding = nn.LayerNorm(width) if c.patch_layernorm_embedding else None
        self.embed_positions = nn.Embedding(c.max_source_positions + 2, width)
        self.embed_image_positions = nn.Embedding(side * side + 1, width)
        self.pos_ln = nn.LayerNorm(width)
        self.image_pos_ln = nn.LayerNorm(width)
        self.pos_q_linear = nn.Linear(width, width)
        self.pos_k_linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(c.dropout)
        rates = drop_path_rates(c.encoder_drop_path_rate, c.encoder_layers)
        self.layers = nn.ModuleList(EncoderLayer(c, config.peft, rate) for rate in rates)
        self.layer_norm = nn.LayerNorm(width) if c.encoder_normalize_before else None
        self._add_tables(
            c.encoder_layers, c.encoder_attention_heads, c.token_bucket_size, c.image_bucket_size
        )
        self.prefix = build_prefix(config.peft, width, c.encoder_layers, c.encoder_attention_heads, "encoder")
        self.front_ends = {name: self._front_end(name) for name, network in networks.items() if network}

    def _front_end(self, name: str) -> FrontEnd:
        """View the modules of a modality, which are registered one by one to keep the reference's names."""
        own = self._modules
        return front_end(
            getattr(self.config, name),
            cast(nn.Module, own[f"embed_{self.config.network_of(name)}s"]),
            cast(nn.Linear, own[f"{name}_proj"]),
            cast(nn.LayerNorm | None, own.get(f"layernorm_{name}_embedding")),
            cast(nn.Embedding, own[f"embed_{name}_positions"]),
            self.config.transformer.image_bucket_size,
            own.get({"video": "embed_frame_positions", "audio": "sound_picture"}.get(name, "")),
        )

    def train(self, mode: bool = True) -> Encoder:
        """Frozen parts stay in evaluation mode, so their BatchNorm statistics stand still too."""
        super().train(mode and not self.config.freeze.encoder_eval)
        for module in self.held_in_eval:
            module.eval()
        return self

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None = None,
        patch_images: Tensor | None = None,
        patch_images_2: Tensor | None = None,
        patch_videos: Tensor | None = None,
        patch_audios: Tensor | None = None,
        patch_types: Tensor | None = None,
        patch_masks: Tensor | None = None,
        patch_rows: Tensor | None = None,
        kept_images: Tensor | None = None,
        kept_videos: Tensor | None = None,
        kept_audios: Tensor | None = None,
        facts: SourceFacts | None = None,
    ) -> EncoderOutput:
        """Encode a batch that may mix modalities; each row's result is that of the row alone.

        src_tokens (B, T) with padding 1; media tensors as :func:`unival.modeling.joining.route` says;
        patch_masks (B) False hides a row's visual tokens; patch_rows (B) int64 names the row of its
        modality's tensor that each row uses, so that examples of one image share its encoding.
        kept_images, kept_videos, kept_audios (b, C, *grid): features that the (frozen) network gave before, for all
        distinct media of the batch, NaN for those whose pixels or samples are the rows of the media tensor.
        ``src_lengths`` is accepted for the engine's calling convention; lengths follow from the padding.
        facts: what the host knows of this batch; without them the tensors are asked.
        """
        batch = src_tokens.size(0)
        if facts is None:
            facts = SourceFacts.of(src_tokens, patch_types, patch_masks, patch_rows)
        else:
            facts.check(batch, patch_types, patch_rows)
        device = src_tokens.device
        media = {"image": patch_images, "video": patch_videos, "audio": patch_audios}
        kept = {"image": kept_images, "video": kept_videos, "audio": kept_audios}
        known = {name: self._completed(name, k, media[name]) for name, k in kept.items() if k is not None}
        routed = route(batch, patch_types, {**media, **known}, device, facts, patch_rows)
        groups = [
            (m.rows, self.embed_media(m.modality, m.tensor, shared=m.shared, known=m.modality in known))
            for m in routed
        ]
        parts = [join(batch, groups)]
        if patch_images_2 is not None:
            rows = route(batch, patch_types, {**media, "image": patch_images_2}, device, facts)
            second = [
                (m.rows, self.embed_media("image", m.tensor, second=True))
                for m in rows
                if m.modality == "image"
            ]
            parts.insert(0, join(batch, second))
        visual = [p for p in parts if p is not None]
        if patch_masks is not None:
            for part in visual:
                part.padding = part.padding | ~patch_masks.bool().unsqueeze(1)
                part.has_padding = part.has_padding or facts.hidden
        return self._encode(src_tokens, visual, facts.padded)

    def features(self, modality: str, tensor: Tensor) -> Tensor:
        """What the network of a modality gives: (n, C, *grid). Raises ConfigError when the model lacks it."""
        front = self._front(modality)
        features = front.features(tensor) if self.training else by_parts(front.features, tensor)
        if self.on_features is not None:
            self.on_features(modality, features)
        return features

    def _completed(self, modality: str, kept: Tensor, fresh: Tensor | None) -> Tensor:
        """Kept features, and where they are NaN those of the fresh media."""
        if fresh is None:
            return kept
        features = self.features(modality, fresh)
        whole = kept.to(features.dtype, copy=True)
        whole[numbers_of(kept.flatten(1)[:, 0].isnan(), len(features))] = features
        return whole

    def _front(self, modality: str) -> FrontEnd:
        front = self.front_ends.get(modality)
        if front is None:
            raise ConfigError(
                f"the batch has {modality} rows but this model has no {modality} network; "
                f"build it with {modality}_encoder_name"
            )
        return front

    def embed_media(
        self,
        modality: str,
        tensor: Tensor,
        second: bool = False,
        shared: Tensor | None = None,
        known: bool = False,
    ) -> Tokens:
        """Network, projection, type embedding and norm of one modality for the rows of ``tensor``.

        ``shared`` (n,) repeats rows of the network's output, for batch rows that use the same medium; ``known``:
        ``tensor`` is that output already.

        Raises ConfigError when the model lacks the network, DataError when the grid exceeds the position
        table.
        """
        front = self._front(modality)
        features = tensor if known else self.features(modality, tensor)
        grid = features.shape[2:]
        ids = front.grid_ids(grid, features.device)
        position = front.position_embeddings(ids, grid)
        features = features.flatten(2).transpose(1, 2)
        # behind the network, which is what costs, and before what is drawn for each row (patches, dropout)
        features = features if shared is None else features.index_select(0, shared)
        n, count, channels = features.shape
        sampling = self.training or self.config.image.sample_patches_in_eval
        keep = sample_tokens(n, count, front.limit if sampling else None, features.device)
        if keep is None:
            ids, position = ids.unsqueeze(0), position.unsqueeze(0)
        else:
            ids, position = ids[keep], position[keep]
            features = features.gather(1, keep.unsqueeze(2).expand(-1, -1, channels))

        x = self.embed_scale * front.project(features)
        type_row = self._type_row(PATCH_TYPES[modality], second)
        x = self._finish(x, position, type_row, self.patch_layernorm_embedding)
        padding = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        return Tokens(x, self.image_pos_ln(position), ids, padding)

    def _type_row(self, index: int, second: bool) -> int:
        c = self.config.transformer
        if second:
            if not c.second_image:
                raise ConfigError("patch_images_2 was given; build the model with second_image=True")
            return 4 if c.add_mm_type_embedding else 2
        return index + 1 if c.add_mm_type_embedding else 1

    def _finish(self, x: Tensor, position: Tensor, type_row: int, norm: nn.LayerNorm | None) -> Tensor:
        if self.config.transformer.entangle_position_embedding:
            x = x + position
        if self.type_embedding is not None:
            x = x + self.type_embedding.weight[type_row]
        return self.dropout(x if norm is None else norm(x))

    def _encode(self, src_tokens: Tensor, visual: list[Tokens], text_padded: bool) -> EncoderOutput:
        c = self.config.transformer
        batch, length = src_tokens.shape
        if length > c.max_source_positions:
            raise DataError(f"source has {length} tokens; the limit is {c.max_source_positions}")
        position = self.embed_positions.weight[:length].unsqueeze(0)
        text = self.embed_scale * self.embed_tokens(src_tokens)
        text = self._finish(text, position, 0, self.layernorm_embedding)

        x = torch.cat([part.x for part in visual] + [text.to(visual[0].x.dtype) if visual else text], 1)
        padding = torch.cat([part.padding for part in visual] + [src_tokens.eq(self.padding_idx)], 1)
        # Positions do not depend on content: where all rows have one layout, biases (1, H, S, S) serve the batch.
        shared = all(part.position.size(0) == 1 for part in visual)
        rows = 1 if shared else batch
        positions = [part.position.expand(rows, -1, -1) for part in visual]
        p = torch.cat([*positions, self.pos_ln(position).expand(rows, -1, -1)], 1)
        index = self._relative_index(visual, length, rows)
        absolute = product_bias(
            self.pos_q_linear(p), self.pos_k_linear(p), c.encoder_attention_heads, c.attn_scale_factor
        )
        # without any, the biases stay free of a batch dimension
        any_padding = text_padded or any(part.has_padding for part in visual)
        if any_padding:
            x = x.masked_fill(padding.unsqueeze(2), 0.0)
        blocked = padding[:, None, None, :] if any_padding else None

        prefix = self.prefix() if self.prefix is not None else None
        visual_length = x.size(1) - length
        states = encoder_layers(self, x, absolute, index, blocked, prefix, visual_length)
        out = states[-1] if self.layer_norm is None else self.layer_norm(states[-1])
        return EncoderOutput(out, padding, p, states, any_padding)

    def _relative_index(self, visual: list[Tokens], length: int, rows: int) -> Tensor:
        """Rows of the relative table for every pair of the joined sequence (rows, S, S)."""
        # Pairs across modalities have no distance: only the blocks on the diagonal get one, the rest a row of zeros.
        blocks = [self.image_index(part.ids) for part in visual] + [self.token_index(length)]
        total = sum(block.size(1) for block in blocks)
        index = blocks[-1].new_full((rows, total, total), self.no_relation)
        at = 0
        for block in blocks:
            end = at + block.size(1)
            index[:, at:end, at:end] = block
            at = end
        return index

    def reorder_encoder_out(self, encoder_out: EncoderOutput, new_order: Tensor) -> EncoderOutput:
        """Return the output for other rows (selection, repetition or permutation of the batch)."""
        return encoder_out.select(new_order)

    def max_positions(self) -> int:
        return self.config.transformer.max_source_positions
