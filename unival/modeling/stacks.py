"""The layers of encoder and decoder, one after the other, with their relative biases: what a step spends its time on
behind the networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unival.modeling.attention import mask_bias
from unival.modeling.layers import KeyValue
from unival.modeling.position import relative_bias
from unival.modeling.regions import region

if TYPE_CHECKING:
    from unival.modeling.decoder import Decoder
    from unival.modeling.encoder import Encoder


@region(every_size=True)
def encoder_layers(
    encoder: Encoder,
    x: Tensor,
    absolute: Tensor,
    index: Tensor,
    blocked: Tensor | None,
    prefix: Sequence[KeyValue] | None,
    visual: int,
) -> list[Tensor]:
    """The input x (B, S, D) of the first layer and the output of each.

    absolute (R, H, S, S) biases of all layers, index (R, S, S) rows of the relative tables, blocked (B, 1, 1, S) keys
    that are padding; ``visual``: leading visual tokens.
    """
    recomputed = encoder.config.transformer.checkpoint_activations and encoder.training
    states = [x]
    for i, layer in enumerate(encoder.layers):
        # i and layer are bound now: checkpointing calls it again in the backward pass, behind the end of this loop
        def run(x: Tensor, absolute: Tensor, i: int = i, layer: nn.Module = layer) -> Tensor:
            bias = absolute + relative_bias(index, encoder.table(i))
            bias = bias if blocked is None else mask_bias(bias, blocked)
            return layer(x, bias, None if prefix is None else prefix[i], visual)

        x = checkpoint(run, x, absolute, use_reentrant=False) if recomputed else run(x, absolute)
        states.append(x)
    return states


@region(every_size=True)
def decoder_layers(
    decoder: Decoder,
    x: Tensor,
    memory: Tensor,
    absolute: Tensor,
    cross: Tensor,
    index: Tensor,
    blocked: Tensor,
    prefix: Sequence[KeyValue] | None,
) -> list[Tensor]:
    """The input x (B, U, D) of the first layer and the output of each.

    memory (B, S, D) the encoder's output, absolute (R, H, U, U) and cross (., H, U, S) biases of all layers, index
    (R, U, U) rows of the relative tables, blocked (., ., U, U) keys that come later or are padding.
    """
    recomputed = decoder.config.transformer.checkpoint_activations and decoder.training
    states = [x]
    for i, layer in enumerate(decoder.layers):
        # i and layer are bound now: checkpointing calls it again in the backward pass, behind the end of this loop
        def run(
            x: Tensor,
            memory: Tensor,
            absolute: Tensor,
            cross: Tensor,
            i: int = i,
            layer: nn.Module = layer,
        ) -> Tensor:
            bias = mask_bias(absolute + relative_bias(index, decoder.table(i)), blocked)
            return layer(x, bias, memory, cross, None if prefix is None else prefix[i])

        inputs = (x, memory, absolute, cross)
        x = checkpoint(run, *inputs, use_reentrant=False) if recomputed else run(*inputs)
        states.append(x)
    return states
