"""What the encoder hands to the decoder."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(slots=True)
class EncoderOutput:
    """states (B, S, D); padding (B, S) True where there is no token; positions (R, S, D) normalised position
    embeddings, R 1 where all rows share the layout, else B; layers: the input of the first layer and the
    output of every layer, (B, S, D) each; has_padding: whether a row has padding, None while nobody has asked.

    ``output["encoder_out"]`` and its kin read it in the engine's layout: lists of one tensor, time first.
    """

    states: Tensor
    padding: Tensor
    positions: Tensor
    layers: list[Tensor] = field(default_factory=list)
    has_padding: bool | None = None

    @property
    def padded(self) -> bool:
        """Whether a row has padding."""
        if self.has_padding is None:
            self.has_padding = bool(self.padding.any())
        return self.has_padding

    def select(self, rows: Tensor) -> EncoderOutput:
        """Return the output for other rows (R,) int64: a selection, repetition or permutation of the batch."""

        def chosen(tensor: Tensor) -> Tensor:
            return tensor.index_select(0, rows.to(tensor.device))

        positions = self.positions if self.positions.size(0) == 1 else chosen(self.positions)
        return EncoderOutput(
            chosen(self.states),
            chosen(self.padding),
            positions,
            [chosen(layer) for layer in self.layers],
            False if self.has_padding is False else None,  # the rows with padding may not be among the chosen
        )

    def __getitem__(self, key: str) -> list[Tensor]:
        if key == "encoder_out":
            return [self.states.transpose(0, 1)]
        if key == "encoder_padding_mask":
            return [self.padding]
        if key == "position_embeddings":
            return [self.positions.expand(self.states.size(0), -1, -1)]
        if key == "encoder_states":
            return [layer.transpose(0, 1) for layer in self.layers]
        raise KeyError(key)
