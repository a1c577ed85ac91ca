"""A sound as a picture: its log-mel spectrogram in the range of pixels, for the image network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from unival.errors import ConfigError, DataError
from unival.modeling.audio import WINDOW, LogMel, Spectrogram, in_float32, spec_augment

# Decibels at the ends of a pixel's range. A sine as loud as samples can be has about 30; 90 below it is silence.
QUIET, LOUD = -60.0, 30.0


class SoundPicture(nn.Module):
    """(B, N) waveform -> (B, 3, bands, time), values in [-1, 1] like pixels, both sides multiples of ``stride``.

    Low bands come first; three equal colours. Quiet and loud keep their distance: nothing is normalised by the clip.
    Time is filled up with silence. In training stripes are left out (:func:`spec_augment`). Raises ConfigError for
    fewer bands than ``stride``.
    """

    def __init__(self, bands: int, hop: int, stride: int) -> None:
        super().__init__()
        if bands % stride:
            raise ConfigError(
                f"mel_bins is {bands}; audio_encoder_name=image needs a multiple of the image network's stride, "
                f"{stride}"
            )
        self.stride = stride
        self.spectrogram_extractor = Spectrogram(hop)
        self.logmel_extractor = LogMel(bands)

    def extra_repr(self) -> str:
        return f"hop={self.spectrogram_extractor.hop}, stride={self.stride}"

    def forward(self, waveform: Tensor) -> Tensor:
        """Raises DataError for a clip shorter than a window's half."""
        if waveform.size(-1) <= WINDOW // 2:
            raise DataError(
                f"audio of {waveform.size(-1)} samples is too short; {WINDOW // 2 + 1} are needed "
                "(repeat or pad the clip)"
            )
        with in_float32(waveform):
            decibels = self.logmel_extractor(self.spectrogram_extractor(waveform.float()))
            x = ((decibels - QUIET) * (2 / (LOUD - QUIET)) - 1).clamp(-1, 1)
        x = F.pad(x, (0, 0, 0, -x.size(2) % self.stride), value=-1.0)
        if self.training:
            x = spec_augment(x + 1) - 1  # what is left out is silence
        return x.transpose(2, 3).expand(-1, 3, -1, -1)
