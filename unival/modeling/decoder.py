"""Decoder: one pass for training, and step by step with preallocated caches for generation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unival.errors import DataError
from unival.modeling.attention import mask_bias
from unival.modeling.batch_facts import TargetFacts, code_flags
from unival.modeling.config import ModelConfig
from unival.modeling.decoder_state import DecoderState
from unival.modeling.encoder_output import EncoderOutput
from unival.modeling.layers import BranchCache, DecoderLayer, KeyValueCache, drop_path_rates
from unival.modeling.peft import build_prefix
from unival.modeling.position import RelativeTables, code_positions, product_bias, relative_bias
from unival.modeling.products import Linear
from unival.modeling.stacks import decoder_layers


class Decoder(RelativeTables):
    """See :meth:`forward`, and :meth:`start`, :meth:`step`, :meth:`prefill`, :meth:`branch` for generation."""

    image_position_idx: Tensor

    def __init__(self, config: ModelConfig, embed_tokens: nn.Embedding) -> None:
        super().__init__()
        c = config.transformer
        width, side, heads = c.decoder_embed_dim, c.image_bucket_size, c.decoder_attention_heads
        self.config = config
        self.padding_idx = 1
        self.embed_scale = 1.0 if c.no_scale_embedding else math.sqrt(width)
        self.register_buffer("version", torch.tensor([3.0]))
        self.register_buffer("image_position_idx", code_positions(c.code_image_size, side))
        self.embed_tokens = embed_tokens
        self.layernorm_embedding = nn.LayerNorm(width) if c.layernorm_embedding else None
        self.embed_positions = nn.Embedding(c.max_target_positions + 2, width)
        self.embed_image_positions = nn.Embedding(side * side + 1, width)
        self.pos_ln = nn.LayerNorm(width)
        self.image_pos_ln = nn.LayerNorm(width)
        self.self_pos_q_linear = nn.Linear(width, width)
        self.self_pos_k_linear = nn.Linear(width, width)
        self.cross_pos_q_linear = nn.Linear(width, width)
        self.cross_pos_k_linear = nn.Linear(width, width)
        self.code_layernorm_embedding = nn.LayerNorm(width) if c.code_layernorm_embedding else None
        self.dropout = nn.Dropout(c.dropout)
        rates = drop_path_rates(c.decoder_drop_path_rate, c.decoder_layers)
        self.layers = nn.ModuleList(DecoderLayer(c, config.peft, rate) for rate in rates)
        self.layer_norm = nn.LayerNorm(width) if c.decoder_normalize_before else None
        self.output_projection = Linear(width, config.vocab_size, bias=False)
        if c.share_decoder_input_output_embed:
            self.output_projection.weight = embed_tokens.weight
        self._add_tables(c.decoder_layers, heads, c.token_bucket_size, c.image_bucket_size)
        self.prefix = build_prefix(config.peft, width, c.decoder_layers, heads, "decoder")

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: EncoderOutput,
        code_masks: Tensor | None = None,
        features_only: bool = False,
        facts: TargetFacts | None = None,
    ) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Logits (B, U, V), or features (B, U, D), for target inputs (B, U).

        code_masks (B) bool: rows whose target is image codes; facts: what the host knows of this batch, without them
        the tensors are asked. The second result has inner_states, the input of the first layer and the output of
        each, (U, B, D).
        """
        batch, length = prev_output_tokens.shape
        if facts is None:
            facts = TargetFacts.of(prev_output_tokens, code_masks)
        else:
            facts.check(batch, code_masks)
        raw, position, index = self._target_positions(code_masks, facts.codes, length)
        absolute, cross = self._biases(position, encoder_out)
        blocked = torch.ones(length, length, dtype=torch.bool, device=position.device).triu(1)
        if facts.padded:
            blocked = blocked | prev_output_tokens.eq(self.padding_idx)[:, None, None, :]
        memory = encoder_out.states
        prefix = self.prefix() if self.prefix is not None else None

        x = self._embed(prev_output_tokens, raw, code_masks)
        states = decoder_layers(self, x, memory, absolute, cross, index, blocked, prefix)
        x = states[-1] if self.layer_norm is None else self.layer_norm(states[-1])
        extra = {"inner_states": [s.transpose(0, 1) for s in states]}  # the engine has time first
        return (x if features_only else self.output_layer(x)), extra

    def output_layer(self, features: Tensor, words: Tensor | None = None) -> Tensor:
        """Features (..., D) -> logits (..., V), or (..., W) of some words (W,) int64 alone."""
        if words is None:
            return self.output_projection(features)
        return F.linear(features, self.output_projection.weight[words])

    def _embed(self, tokens: Tensor, position: Tensor, code_masks: Tensor | None) -> Tensor:
        x = self.embed_scale * self.embed_tokens(tokens)
        if not self.config.transformer.disable_entangle:
            x = x + position
        plain = x if self.layernorm_embedding is None else self.layernorm_embedding(x)
        if code_masks is not None and self.code_layernorm_embedding is not None:
            codes = self.code_layernorm_embedding(x)
            plain = torch.where(code_masks.bool()[:, None, None], codes, plain)
        return self.dropout(plain)

    def _target_positions(
        self, code_masks: Tensor | None, codes: Sequence[bool] | None, length: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Position embeddings (R, U, D) raw and normalised, and rows of the relative table (R, U, U).

        R is 1 where all rows are text or all are codes; ``codes`` (B) says on the host what ``code_masks`` (B) does.
        """
        limit = self.config.transformer.max_target_positions
        flags = [False] if code_masks is None or codes is None else codes
        results: dict[bool, tuple[Tensor, Tensor, Tensor]] = {}
        for code in set(flags):
            most = self.image_position_idx.numel() if code else limit
            if length > most:
                raise DataError(f"target has {length} tokens; the limit is {most}")
            if code:
                ids = self.image_position_idx[:length].unsqueeze(0)
                raw = self.embed_image_positions(ids)
                results[code] = raw, self.image_pos_ln(raw), self.image_index(ids)
            else:
                raw = self.embed_positions.weight[:length].unsqueeze(0)
                results[code] = raw, self.pos_ln(raw), self.token_index(length)
        if len(results) == 1 or code_masks is None:
            return results[flags[0]]
        is_code = code_masks.to(self.image_position_idx.device).bool()[:, None, None]
        text, image = results[False], results[True]
        return (
            torch.where(is_code, image[0], text[0]),
            torch.where(is_code, image[1], text[1]),
            torch.where(is_code, image[2], text[2]),
        )

    def _biases(self, position: Tensor, encoder_out: EncoderOutput) -> tuple[Tensor, Tensor]:
        """Absolute self-attention bias (R, H, U, U) and cross-attention bias (., H, U, S), padding masked."""
        c = self.config.transformer
        heads, factor = c.decoder_attention_heads, c.attn_scale_factor
        absolute = product_bias(
            self.self_pos_q_linear(position), self.self_pos_k_linear(position), heads, factor
        )
        cross = product_bias(
            self.cross_pos_q_linear(position), self.cross_pos_k_linear(encoder_out.positions), heads, factor
        )
        if encoder_out.padded:
            cross = mask_bias(cross, encoder_out.padding[:, None, None, :])
        return absolute, cross

    @torch.no_grad()
    def start(
        self, encoder_out: EncoderOutput, max_len: int, code_masks: Tensor | None = None, beam: int = 1
    ) -> DecoderState:
        """Prepare step-by-step decoding of up to ``max_len`` input tokens.

        Decoder rows are B * beam, row r belonging to encoder row r // beam. Everything that does not depend
        on the tokens is computed here once: position biases, keys and values of the encoder output.
        """
        c = self.config.transformer
        memory = encoder_out.states
        raw, position, index = self._target_positions(code_masks, code_flags(code_masks), max_len)
        # for all steps to come: what a later token adds changes neither the positions nor the encoder's side
        absolute, cross = self._biases(position, encoder_out)
        memory_kv = [cast(DecoderLayer, layer).encoder_attn.keys_values(memory) for layer in self.layers]
        rows, heads = memory.size(0) * beam, c.decoder_attention_heads
        like = memory_kv[0][0]
        caches = [
            KeyValueCache(rows, heads, max_len, c.decoder_embed_dim // heads, like) for _ in self.layers
        ]
        return DecoderState(
            caches=caches,
            memory=memory_kv,
            self_bias=absolute,
            index=index,
            tables=torch.cat(
                [self.table(i) for i in range(len(self.layers))], 1
            ),  # one lookup for all layers
            cross_bias=cross,
            position=raw,
            code_masks=code_masks,
            prefix=None if self.prefix is None else self.prefix(),
            max_len=max_len,
            source=np.repeat(np.arange(memory.size(0)), beam),
            beam=beam,
        )

    @torch.no_grad()
    def prefill(self, tokens: Tensor, state: DecoderState, features_only: bool = False) -> Tensor:
        """Feed tokens (R, U) that follow what ``state`` has seen; return logits (R, U, V), or features (R, U, D)."""
        rows, length = tokens.shape
        state.check(rows, length)
        at, end = state.length, state.length + length
        index = state.row_wise(state.index)[:, at:end, :end]
        absolute = state.row_wise(state.self_bias)[:, :, at:end, :end]
        cross = state.cross_bias[:, :, at:end]
        ahead = torch.ones(length, end, dtype=torch.bool, device=tokens.device).triu(at + 1)
        blocked = ahead if length > 1 else None  # a single token comes last and sees all
        x = self._embed(tokens, state.row_wise(state.position)[:, at:end], state.row_code_masks())
        x = self._step_layers(x, index, absolute, cross, blocked, state, state.caches)
        state.length = end
        return x if features_only else self.output_layer(x)

    @torch.no_grad()
    def branch(self, tokens: Tensor, at: Tensor, blocked: Tensor, state: DecoderState) -> Tensor:
        """Return features (R, U, D) of text tokens (R, U) that are several continuations of what ``state`` has seen.

        at (R, U) int64: the position of each; blocked (R, U, L + U) bool: what a token may not see of the L tokens of
        the state and of the U given. The state keeps none of them, so that other continuations can follow.
        """
        rows, seen = len(tokens), state.length
        group = torch.arange(rows, device=at.device)[:, None]
        group = group if state.cross_bias.size(0) > 1 else torch.zeros_like(group)
        keys = torch.cat([torch.arange(seen, device=at.device).expand(rows, -1), at], 1)
        pairs = at[:, :, None], keys[:, None]
        absolute = state.self_bias[0][:, pairs[0], pairs[1]].transpose(0, 1)
        cross = state.cross_bias[group, :, at].transpose(1, 2)
        x = self._embed(tokens, state.position[0][at], None)
        caches = [BranchCache(cache) for cache in state.caches]
        return self._step_layers(x, state.index[0][pairs], absolute, cross, blocked[:, None], state, caches)

    def _step_layers(
        self,
        x: Tensor,
        index: Tensor,
        absolute: Tensor,
        cross: Tensor,
        blocked: Tensor | None,
        state: DecoderState,
        caches: Sequence[KeyValueCache],
    ) -> Tensor:
        biases = relative_bias(index, state.tables).unflatten(1, (len(self.layers), -1))
        for i, layer in enumerate(self.layers):
            bias = absolute + biases[:, i]
            bias = bias if blocked is None else mask_bias(bias, blocked)
            prefix = None if state.prefix is None else state.prefix[i]
            x = layer(x, bias, state.memory[i], cross, prefix, caches[i], state.length)
        return x if self.layer_norm is None else self.layer_norm(x)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Feed one token per row (R,); return the logits of the next (R, V)."""
        return self.prefill(tokens.unsqueeze(1), state).squeeze(1)

    def max_positions(self) -> int:
        return self.config.transformer.max_target_positions
