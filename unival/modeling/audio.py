"""Audio network: PANN CNN6/10/14 on the raw waveform (Kong et al., "PANNs: Large-Scale Pretrained Audio
Neural Networks for Audio Pattern Recognition", 2020), cut before the global pooling."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unival.errors import ConfigError, DataError, nearest
from unival.modeling.config import SOUND_PICTURE, AudioConfig
from unival.modeling.convolutions import NarrowConv2d
from unival.modeling.folding import normed
from unival.modeling.layers import channels_last

SAMPLE_RATE, WINDOW, FMIN, FMAX = 48000, 1024, 50, 14000
AMIN = 1e-10  # smallest power before the logarithm
CHANNELS = {
    "pann_cnn6": (64, 128, 256, 512),
    "pann_cnn10": (64, 128, 256, 512, 1024),
    "pann_cnn14": (64, 128, 256, 512, 1024, 2048),
}


class _KeepFloat32(nn.Module):
    """A module whose tensors follow ``.to(device)`` but not ``.half()`` or ``.bfloat16()``.

    Powers of a spectrogram span ten decades and decibels need more than eight bits of mantissa.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def device_only(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if tensor.dtype == torch.float32 and moved.dtype in (torch.float16, torch.bfloat16):
                return tensor.to(moved.device)
            return moved

        return super()._apply(device_only, recurse)


class _Float32BatchNorm(_KeepFloat32, nn.BatchNorm2d):
    pass


def _hann_bases() -> tuple[Tensor, Tensor]:
    """Windowed Fourier bases (WINDOW / 2 + 1, 1, WINDOW), real and imaginary, float32."""
    t = torch.arange(WINDOW, dtype=torch.float64)
    window = torch.hann_window(WINDOW, periodic=True, dtype=torch.float64)
    phase = (t[: WINDOW // 2 + 1, None] * t) % WINDOW * (-2.0 * torch.pi / WINDOW)
    return (phase.cos() * window)[:, None].float(), (phase.sin() * window)[:, None].float()


def _mel_matrix(bins: int) -> Tensor:
    """Slaney mel filters (WINDOW / 2 + 1, bins), float32."""
    import librosa

    mel = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=WINDOW, n_mels=bins, fmin=FMIN, fmax=FMAX)
    return torch.from_numpy(mel.T.copy()).float()


class _Bases(nn.Module):
    """Holds one Fourier basis under the name that checkpoints use; `torch.stft` does the work."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def _load_from_state_dict(self, state: Any, prefix: str, *args: Any) -> None:
        loaded, errors = state.get(prefix + "weight"), args[-1]
        super()._load_from_state_dict(state, prefix, *args)
        if loaded is None or loaded.shape != self.weight.shape or loaded.is_meta:
            return
        real, imag = _hann_bases()
        expected = real if prefix.endswith("conv_real.") else imag
        if (loaded.float().cpu() - expected).abs().max() > 1e-2:
            errors.append(f"{prefix}weight is not the Fourier basis of a periodic Hann window of {WINDOW}")


class _Stft(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        real, imag = _hann_bases()
        self.conv_real = _Bases(real)
        self.conv_imag = _Bases(imag)


class Spectrogram(_KeepFloat32):
    """Power spectrogram of (B, N) as (B, 1, N // hop + 1, WINDOW / 2 + 1), float32."""

    window: Tensor

    def __init__(self, hop: int) -> None:
        super().__init__()
        self.hop = hop
        self.stft = _Stft()
        self.register_buffer("window", torch.hann_window(WINDOW, periodic=True), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        spectrum = torch.stft(
            waveform,
            WINDOW,
            self.hop,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        return (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)[:, None]


class LogMel(_KeepFloat32):
    """Decibels of the mel bands of a power spectrogram (reference 1, no floor below ``AMIN``)."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.melW = nn.Parameter(_mel_matrix(bins), requires_grad=False)

    def forward(self, power: Tensor) -> Tensor:
        return 10.0 * torch.log10((power @ self.melW).clamp_min(AMIN))


def in_float32(waveform: Tensor) -> torch.autocast:
    """Without autocast, which would take a spectrogram's decades away."""
    # a meta tensor (unival.modeling.memory) has no autocast of its own
    return torch.autocast("cpu" if waveform.is_meta else waveform.device.type, enabled=False)


def spec_augment(x: Tensor, stripes: int = 2, time_width: int = 64, band_width: int = 8) -> Tensor:
    """Zero random stripes of (B, C, time, bands) along time and bands (Park et al., SpecAugment, 2019).

    No time stripe covers more than an eighth of the clip: the reference's 64 frames are a small part of its
    2401, but nearly all of a short or coarse spectrogram. Draws from torch's global generator, as dropout
    does, so the engine's seed decides.
    """
    time_width = min(time_width, max(x.size(2) // 8, 1))
    keep = torch.ones(x.size(0), x.size(2), x.size(3), dtype=torch.bool, device=x.device)
    for axis, width in ((1, time_width), (2, band_width)):
        total = keep.size(axis)
        length = torch.randint(0, width, (x.size(0), stripes, 1), device=x.device).clamp_max(total)
        start = (torch.rand(x.size(0), stripes, 1, device=x.device) * (total - length)).long()
        at = torch.arange(total, device=x.device)
        hit = ((at >= start) & (at < start + length)).any(1)
        keep &= ~hit.unsqueeze(2 if axis == 1 else 1)
    return x * keep.unsqueeze(1)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, or one 5x5, each with BatchNorm and ReLU."""

    def __init__(self, channels: int, out: int, kernel: int) -> None:
        super().__init__()
        self.pair = kernel == 3
        self.conv1 = NarrowConv2d(channels, out, kernel, padding=kernel // 2, bias=False)
        if self.pair:
            self.conv2 = NarrowConv2d(out, out, kernel, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        if self.pair:
            self.bn2 = nn.BatchNorm2d(out)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, x: Tensor, pool: bool = False) -> Tensor:
        """(B, C, h, w) -> (B, C', h, w), with ``pool`` half as high and wide."""
        pairs: list[tuple[nn.Module, nn.Module]] = [(self.conv1, self.bn1)]
        if self.pair:
            pairs.append((self.conv2, self.bn2))
        then = partial(F.avg_pool2d, kernel_size=2) if pool else nn.Identity()
        # A map of one channel has no order that the first convolution could keep. In float32 other sums would take
        # features of sounds from 4e-6 to 2e-5 off the reference's.
        order = partial(channels_last, in_generation=False)
        return normed(pairs, x, then, order, in_float32=False)


class Pann(nn.Module):
    """(B, N) waveform at 48 kHz -> (B, out_channels, time, bands)."""

    def __init__(self, channels: tuple[int, ...], kernel: int, mel_bins: int, hop: int) -> None:
        super().__init__()
        self.spectrogram_extractor = Spectrogram(hop)
        self.logmel_extractor = LogMel(mel_bins)
        self.bn0 = _Float32BatchNorm(mel_bins)
        self.blocks = len(channels)
        # The widest network does not pool after its last block.
        self.pooled = min(self.blocks, 5)
        for i, out in enumerate(channels):
            setattr(self, f"conv_block{i + 1}", ConvBlock(channels[i - 1] if i else 1, out, kernel))
        self.out_channels = channels[-1]
        self.min_samples = max((2**self.pooled - 1) * hop, WINDOW // 2 + 1)

    def forward(self, waveform: Tensor) -> Tensor:
        """Raises DataError for a clip too short for one token."""
        if waveform.size(-1) < self.min_samples:
            raise DataError(
                f"audio of {waveform.size(-1)} samples is too short; this network needs {self.min_samples} "
                "(repeat or pad the clip)"
            )
        with in_float32(waveform):
            x = self.logmel_extractor(self.spectrogram_extractor(waveform.float()))
            x = self.bn0(x.transpose(1, 3)).transpose(1, 3)
        if self.training:
            x = spec_augment(x)
        x = x.to(cast(ConvBlock, self.conv_block1).conv1.weight.dtype)
        for i in range(self.blocks):
            x = getattr(self, f"conv_block{i + 1}")(x, pool=i < self.pooled)
            x = F.dropout(x, 0.2, self.training)
        return x


def build_audio_encoder(config: AudioConfig) -> Pann | None:
    """Return the network, or None without a name or for "image". Raises ConfigError for an unknown name."""
    name = config.audio_encoder_name
    if name in (None, "none", SOUND_PICTURE):
        return None
    if name not in CHANNELS:
        known = (*CHANNELS, SOUND_PICTURE)
        raise ConfigError(
            f"unknown audio_encoder_name '{name}'; known: {', '.join(known)}.{nearest(name, known)}"
        )
    bands = 2 ** min(len(CHANNELS[name]), 5)
    if config.mel_bins < bands:
        raise ConfigError(f"mel_bins is {config.mel_bins}; {name} needs at least {bands}")
    kernel = 5 if name == "pann_cnn6" else 3
    return Pann(CHANNELS[name], kernel, config.mel_bins, config.hop_size)
