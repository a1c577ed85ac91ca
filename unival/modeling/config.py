"""Model options: one dataclass per part, option names of the reference, each default written once.

The fields are also the command-line flags of training, so each carries its help text.
Source of names and defaults: the reference's options and its released scripts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from unival.errors import ConfigError, nearest


def _opt(default: Any, help: str, choices: tuple[str, ...] | None = None, saved: bool = True) -> Any:
    metadata = {"help": help, "choices": choices, "saved": saved}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TransformerConfig:
    """The encoder-decoder itself."""

    encoder_embed_dim: int = _opt(768, "width of the encoder")
    encoder_ffn_embed_dim: int = _opt(3072, "inner width of the encoder's feed-forward layers")
    encoder_layers: int = _opt(6, "number of encoder layers")
    encoder_attention_heads: int = _opt(12, "number of encoder attention heads")
    decoder_embed_dim: int = _opt(768, "width of the decoder (equal to the encoder's)")
    decoder_ffn_embed_dim: int = _opt(3072, "inner width of the decoder's feed-forward layers")
    decoder_layers: int = _opt(6, "number of decoder layers")
    decoder_attention_heads: int = _opt(12, "number of decoder attention heads")
    encoder_normalize_before: bool = _opt(True, "LayerNorm before each encoder block")
    decoder_normalize_before: bool = _opt(True, "LayerNorm before each decoder block")
    activation_fn: str = _opt("gelu", "activation of the feed-forward layers", ("gelu", "relu"))
    dropout: float = _opt(0.0, "dropout of embeddings and block outputs")
    attention_dropout: float = _opt(0.0, "dropout of attention weights")
    relu_dropout: float = _opt(0.0, "dropout after the feed-forward activation")
    encoder_drop_path_rate: float = _opt(0.0, "drop path of the last encoder layer; rises linearly from 0")
    decoder_drop_path_rate: float = _opt(0.0, "drop path of the last decoder layer; rises linearly from 0")
    max_source_positions: int = _opt(1024, "longest text source in tokens")
    max_target_positions: int = _opt(1024, "longest text target in tokens")
    share_all_embeddings: bool = _opt(True, "one table for source, target and output tokens")
    share_decoder_input_output_embed: bool = _opt(True, "one table for target and output tokens")
    no_scale_embedding: bool = _opt(True, "do not multiply embeddings by the square root of the width")
    layernorm_embedding: bool = _opt(True, "LayerNorm after the token embedding")
    patch_layernorm_embedding: bool = _opt(True, "LayerNorm after the embedding of visual and audio tokens")
    code_layernorm_embedding: bool = _opt(True, "own LayerNorm for the embedding of image codes")
    add_type_embedding: bool = _opt(True, "type embedding: text or not text (2 rows)")
    add_mm_type_embedding: bool = _opt(False, "type embedding: text, image, video, audio (4 rows)")
    second_image: bool = _opt(False, "accept a second image per row; adds a row to the type embedding")
    entangle_position_embedding: bool = _opt(False, "add position embeddings to the encoder's tokens")
    disable_entangle: bool = _opt(True, "do not add position embeddings to the decoder's tokens")
    scale_attn: bool = _opt(True, "LayerNorm on the output of each attention")
    scale_fc: bool = _opt(True, "LayerNorm inside each feed-forward layer")
    scale_heads: bool = _opt(True, "one learned factor per attention head")
    scale_resids: bool = _opt(False, "one learned factor per channel on the feed-forward residual")
    qk_norm: bool = _opt(False, "LayerNorm on projected queries and keys")
    attn_scale_factor: float = _opt(2.0, "attention scale is (head width * this) ** -0.5")
    token_bucket_size: int = _opt(256, "log buckets of relative text positions")
    image_bucket_size: int = _opt(42, "side of the largest grid of visual tokens")
    code_image_size: int = _opt(128, "pixels of generated images; the code grid has size / 8 per side")
    checkpoint_activations: bool = _opt(False, "recompute layers in the backward pass to save memory")


@dataclass(frozen=True)
class ImageConfig:
    """Image network."""

    image_encoder_name: str = _opt(
        "timm_resnet",
        "timm_resnet (stride 32), resnet (three stages, stride 16), timm (any network: image_backbone) or none",
        ("timm_resnet", "resnet", "timm", "none"),
    )
    resnet_type: str = _opt("resnet101", "name of a timm ResNet, such as resnet18, resnet50, resnet101")
    resnet_drop_path_rate: float = _opt(
        0.0, "drop path of the image network's last block; rises linearly from 0 (resnet: in each stage)"
    )
    resnet_model_path: str | None = _opt(
        None, "file with pretrained weights of the image network", saved=False
    )
    image_backbone: str | None = _opt(
        None, "timm's name of the image network, such as vit_tiny_patch16_224 (image_encoder_name timm)"
    )
    image_backbone_stride: int | None = _opt(
        None, "pixels per side of a visual token, one of the strides of image_backbone (default: its last)"
    )
    image_backbone_weights: str | None = _opt(
        None,
        "weights of image_backbone: a file, an installed package that holds one, or pretrained (timm downloads)",
        saved=False,
    )
    layernorm_image_embedding: bool = _opt(False, "LayerNorm right after the image projection")
    sample_patch_num: int | None = _opt(None, "keep at most this many random image tokens in training")
    sample_patches_in_eval: bool = _opt(False, "drop visual tokens at random in evaluation too")
    interpolate_position: bool = _opt(
        False, "stretch the position embeddings of orig_patch_image_size over larger images"
    )
    orig_patch_image_size: int = _opt(256, "pixels per side that interpolate_position starts from")
    sync_bn: bool = _opt(
        False, "BatchNorm statistics of the image network over all processes (several need GPUs)"
    )


@dataclass(frozen=True)
class VideoConfig:
    """Video network."""

    video_encoder_name: str | None = _opt(
        None,
        "all_resnext{14,18,26,50,101,152} (four stages), resnext{...} (three stages), frames (the image network on "
        "each frame) or none",
    )
    video_frame_positions: int = _opt(32, "most frames of a clip with video_encoder_name frames")
    video_model_path: str | None = _opt(
        None, "file with pretrained weights of the video network", saved=False
    )
    layernorm_video_embedding: bool = _opt(False, "LayerNorm right after the video projection")
    sample_video_patch_num: int | None = _opt(None, "keep at most this many random video tokens in training")


@dataclass(frozen=True)
class AudioConfig:
    """Audio network."""

    audio_encoder_name: str | None = _opt(
        None, "pann_cnn6, pann_cnn10, pann_cnn14, image (the image network on the mel spectrogram) or none"
    )
    audio_model_path: str | None = _opt(
        None, "file with pretrained weights of the audio network", saved=False
    )
    layernorm_audio_embedding: bool = _opt(False, "LayerNorm right after the audio projection")
    sample_audio_patch_num: int | None = _opt(None, "keep at most this many random audio tokens in training")
    mel_bins: int = _opt(64, "mel bands")
    hop_size: int = _opt(480, "samples between two frames of the spectrogram (released scripts: 200)")
    mel_bank: str = _opt(
        "file",
        "mel filters: file (those of the loaded weights; published PANN files bring filters for 32 kHz) "
        "or computed (filters for 48 kHz, whatever a file holds)",
        ("file", "computed"),
    )


@dataclass(frozen=True)
class FreezeConfig:
    """What does not train. Frozen BatchNorm keeps its statistics too."""

    freeze_encoder: bool = _opt(False, "freeze the encoder except modality networks and their projections")
    freeze_decoder: bool = _opt(False, "freeze the decoder")
    freeze_encoder_embedding: bool = _opt(False, "freeze the token table of the encoder")
    freeze_decoder_embedding: bool = _opt(False, "freeze the token table of the decoder")
    freeze_image_encoder: bool = _opt(False, "freeze the image network")
    freeze_video_encoder: bool = _opt(False, "freeze the video network")
    freeze_audio_encoder: bool = _opt(False, "freeze the audio network")
    freeze_resnet: bool = _opt(False, "freeze BatchNorm of the image network")
    freeze_resnet_video: bool = _opt(False, "freeze BatchNorm of the video network")
    freeze_batchnorm: bool = _opt(False, "freeze BatchNorm of every network")
    encoder_eval: bool = _opt(False, "keep the encoder in evaluation mode while training")
    only_linear_proj: bool = _opt(False, "train nothing but the projections of the modalities")
    bitfit: bool = _opt(False, "train nothing but the biases of layer norms and feed-forward layers")


@dataclass(frozen=True)
class PeftConfig:
    """Small added modules; with any of them everything else is frozen unless `unfreeze`."""

    unfreeze: bool = _opt(False, "train the whole model beside adapters or prompts")
    adapter: bool = _opt(False, "bottleneck adapter after each feed-forward layer")
    adapter_type: str | None = _opt(None, "VL: separate encoder adapters for visual and text tokens", ("VL",))
    adapter_dim: int = _opt(200, "bottleneck width of the adapters")
    lora: bool = _opt(False, "low-rank additions to matrices of the transformer")
    lora_rank: int = _opt(8, "rank of the additions")
    lora_alpha: float = _opt(16.0, "the additions count alpha / rank times")
    lora_dropout: float = _opt(0.0, "dropout of what goes into the additions")
    lora_targets: str = _opt(
        "attention",
        "matrices with additions: attention (q_proj, k_proj, v_proj, out_proj), feed_forward (fc1, fc2), or names of "
        "them, separated by commas",
    )
    encoder_prompt: bool = _opt(False, "learned prefix keys and values in the encoder")
    encoder_prompt_type: str = _opt("prefix", "kind of encoder prompt", ("prefix",))
    encoder_prompt_length: int = _opt(100, "length of the encoder prefix")
    encoder_prompt_projection: bool = _opt(False, "two-layer network between encoder prefix and layers")
    encoder_prompt_dim: int | None = _opt(None, "hidden width of that network (default: twice the width)")
    decoder_prompt: bool = _opt(False, "learned prefix keys and values in the decoder")
    decoder_prompt_type: str = _opt("prefix", "kind of decoder prompt", ("prefix",))
    decoder_prompt_length: int = _opt(100, "length of the decoder prefix")
    decoder_prompt_projection: bool = _opt(False, "two-layer network between decoder prefix and layers")
    decoder_prompt_dim: int | None = _opt(None, "hidden width of that network (default: twice the width)")


PARTS: dict[str, type] = {
    "transformer": TransformerConfig,
    "image": ImageConfig,
    "video": VideoConfig,
    "audio": AudioConfig,
    "freeze": FreezeConfig,
    "peft": PeftConfig,
}


# Largest sizes of a model (others: a million), and of all its parameters together.
MOST = {
    "vocab_size": 50_000_000,
    "encoder_layers": 1000,
    "decoder_layers": 1000,
    "image_bucket_size": 2048,
    "token_bucket_size": 16384,
    "code_image_size": 16384,
}
MOST_PARAMETERS = 100e9
COUNTS = (
    *("encoder_ffn_embed_dim", "decoder_ffn_embed_dim", "max_source_positions", "max_target_positions"),
    *("token_bucket_size", "image_bucket_size", "orig_patch_image_size", "mel_bins"),
    *("video_frame_positions", "adapter_dim", "lora_rank", "encoder_prompt_length", "decoder_prompt_length"),
)

PEFT_SWITCHES = ("adapter", "lora", "encoder_prompt", "decoder_prompt")
LORA_TARGETS = {
    "attention": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "feed_forward": ("fc1", "fc2"),
    **{name: (name,) for name in ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")},
}


def option_fields() -> Iterator[dataclasses.Field[Any]]:
    """Yield the field of every option, in order; names are unique over all parts."""
    for part in PARTS.values():
        yield from fields(part)


def _size(width: int, ffn: int, encoder: int, decoder: int, heads: int, resnet: str) -> dict[str, Any]:
    return {
        "encoder_embed_dim": width,
        "encoder_ffn_embed_dim": ffn,
        "encoder_layers": encoder,
        "encoder_attention_heads": heads,
        "decoder_embed_dim": width,
        "decoder_ffn_embed_dim": ffn,
        "decoder_layers": decoder,
        "decoder_attention_heads": heads,
        "resnet_type": resnet,
    }


ARCHS: dict[str, dict[str, Any]] = {
    "unival_tiny": _size(256, 1024, 4, 4, 4, "resnet50"),
    "unival_medium": _size(512, 2048, 4, 4, 8, "resnet101"),
    "unival_base": _size(768, 3072, 6, 6, 12, "resnet101"),
    "unival_large": _size(1024, 4096, 12, 12, 16, "resnet152"),
    "unival_huge": _size(1280, 5120, 24, 12, 16, "resnet152"),
}

# Options of the reference that are dead there, or that something else here does: accepted at the values
# which ask for nothing, refused otherwise.
_STAGED = "staged unfreezing never worked in the reference; train in stages with the freeze options"
_HEAD = "no task has a classification head; answers are generated"
_AST = "it belongs to an audio network (AST) that the reference does not hold either"
_FUSION = "long audio is cropped; no data set of the reference ever produced the fused inputs"
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "progressive": ((False, None), _STAGED),
    "freeze_perception": ((False, None), _STAGED + " (freeze_image_encoder, freeze_video_encoder, ...)"),
    "unfreeze_epoch": ((None, 0, -1), _STAGED),
    "unfreeze_epoch_encoder": ((None, 0, -1), _STAGED),
    "unfreeze_epoch_decoder": ((None, 0, -1), _STAGED),
    "unfreeze_epoch_image": ((None, 0, -1), _STAGED),
    "unfreeze_epoch_video": ((None, 0, -1), _STAGED),
    "unfreeze_epoch_audio": ((None, 0, -1), _STAGED),
    "adapt_arch_for_init": ((False, None), "dead in the reference; set the size options themselves"),
    "return_hidden_state_vision": ((False, None), "dead in the reference; hook model.encoder.embed_images"),
    "nograd": ((False, None), "a frozen network builds no graph; freeze_image_encoder and its kin suffice"),
    "with_cls": ((False, None), "the video network has no class token"),
    "enable_fusion": ((False, None), _FUSION),
    "fusion_type": ((None, "None"), _FUSION),
    "ast": ((False, None), _AST),
    "fstride": ((None,), _AST),
    "tstride": ((None,), _AST),
    "input_tdim": ((None,), _AST),
    "encoder_learned_pos": ((True, None), "positions are always learned"),
    "decoder_learned_pos": ((True, None), "positions are always learned"),
    "no_token_positional_embeddings": ((False, None), "positions act through the attention bias"),
    "pooler_activation_fn": (("tanh", None), _HEAD),
    "pooler_classifier": (("mlp", None), _HEAD),
    "pooler_dropout": ((0, 0.0, None), _HEAD),
    "offload_activations": ((False, None), "not supported; use checkpoint_activations"),
    "encoder_layerdrop": ((0, 0.0, None), "not supported; encoder_drop_path_rate drops layers row by row"),
    "decoder_layerdrop": ((0, 0.0, None), "not supported; decoder_drop_path_rate drops layers row by row"),
    "quant_noise_pq": ((0, 0.0, None), "quantisation noise is not supported"),
}

# values of video_encoder_name and audio_encoder_name: the image network on each frame, on a spectrogram
FRAMES, SOUND_PICTURE = "frames", "image"
BY_IMAGE_NETWORK = {"video": FRAMES, "audio": SOUND_PICTURE}
ALIASES = {"activation_dropout": "relu_dropout"}


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the parameters of a model and how they train."""

    arch: str
    vocab_size: int
    transformer: TransformerConfig
    image: ImageConfig
    video: VideoConfig
    audio: AudioConfig
    freeze: FreezeConfig
    peft: PeftConfig

    @classmethod
    def from_options(cls, arch: str = "unival_base", vocab_size: int = 59457, **options: Any) -> ModelConfig:
        """Return the configuration of a named size with options laid over it.

        Raises ConfigError for an unknown size or option (naming the nearest), a dead option of the
        reference, or values that do not fit together.
        """
        if arch not in ARCHS:
            raise ConfigError(f"unknown arch '{arch}'; known: {', '.join(ARCHS)}.{nearest(arch, ARCHS)}")
        values = dict(ARCHS[arch])
        known = {f.name: f for f in option_fields()}
        for given, value in options.items():
            name = ALIASES.get(given, given)
            if name in known:
                values[name] = _checked(known[name], value)
            elif name in REFUSED:
                idle, instead = REFUSED[name]
                if str(value) not in map(str, idle):  # the command line gives text
                    raise ConfigError(f"{name}={value!r} is refused: {instead}")
            else:
                raise ConfigError(f"unknown model option '{given}'.{nearest(given, known)}")
        parts = {
            part: kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values})
            for part, kind in PARTS.items()
        }
        config = cls(arch=arch, vocab_size=vocab_size, **parts)
        config._validate()
        return config

    @classmethod
    def from_reference(cls, args: Mapping[str, Any], vocab_size: int | None = None) -> ModelConfig:
        """Return the configuration saved in a fairseq checkpoint, whose other settings are passed over.

        Paths of backbone files are dropped: the checkpoint itself holds the weights.
        """
        arch = str(args.get("arch") or "unival_base")
        arch = arch if arch in ARCHS else arch.replace("ofa", "unival")
        names = {f.name for f in option_fields() if f.metadata["saved"]} | set(ALIASES)
        options = {k: v for k, v in args.items() if k in names and v is not None}
        name = options.get("image_encoder_name")
        if name is not None and name not in ("none", "timm"):  # there, only this substring changes anything
            options["image_encoder_name"] = "timm_resnet" if "timm_resnet" in name else "resnet"
        if options.get("adapter_type") != "VL":
            options.pop("adapter_type", None)
        if not any(options.get(switch) for switch in PEFT_SWITCHES):
            options = {k: v for k, v in options.items() if k not in {f.name for f in fields(PeftConfig)}}
        size = vocab_size if vocab_size is not None else int(args.get("vocab_size") or 59457)
        return cls.from_options(arch, size, **options)

    def options(self) -> dict[str, Any]:
        """Return every option by its name."""
        return {k: v for part in PARTS for k, v in dataclasses.asdict(getattr(self, part)).items()}

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; paths of backbone files are left out."""
        saved = {f.name for f in option_fields() if f.metadata["saved"]}
        options = {k: v for k, v in self.options().items() if k in saved}
        return {"arch": self.arch, "vocab_size": self.vocab_size, **options}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Inverse of :meth:`to_dict`."""
        return cls.from_options(**values)

    def replace(self, **options: Any) -> ModelConfig:
        """Return a copy with some options changed."""
        return ModelConfig.from_options(self.arch, self.vocab_size, **{**self.options(), **options})

    def _validate(self) -> None:
        t = self.transformer
        if not isinstance(self.vocab_size, int) or isinstance(self.vocab_size, bool):
            raise ConfigError(f"vocab_size must be int, not {self.vocab_size!r}")
        self._validate_sizes()
        if self.vocab_size < 5:
            raise ConfigError(f"vocab_size is {self.vocab_size}; at least 5 is needed (four special symbols)")
        if t.encoder_embed_dim != t.decoder_embed_dim:
            raise ConfigError(
                f"encoder_embed_dim {t.encoder_embed_dim} and decoder_embed_dim {t.decoder_embed_dim} "
                "differ; make them equal"
            )
        for side in ("encoder", "decoder"):
            width, heads = getattr(t, f"{side}_embed_dim"), getattr(t, f"{side}_attention_heads")
            layers = getattr(t, f"{side}_layers")
            if heads < 1 or width < 1 or width % heads:
                raise ConfigError(
                    f"{side}_embed_dim {width} is not divisible by {side}_attention_heads {heads}"
                )
            if layers < 1:
                raise ConfigError(f"{side}_layers is {layers}; at least 1 is needed")
        if t.share_all_embeddings and not t.share_decoder_input_output_embed:
            raise ConfigError("share_all_embeddings needs share_decoder_input_output_embed")
        if t.code_image_size % 8 or t.code_image_size // 8 > t.image_bucket_size:
            raise ConfigError(
                f"code_image_size {t.code_image_size} must be a multiple of 8 and at most "
                f"{8 * t.image_bucket_size} (8 * image_bucket_size)"
            )
        if not 0 < self.audio.hop_size <= 1024:
            raise ConfigError(f"hop_size is {self.audio.hop_size}; it must be between 1 and 1024")
        self._validate_backbone()
        self._validate_training()
        for name, value in self.options().items():
            if name.endswith(("dropout", "_rate")) and not 0.0 <= value < 1.0:
                raise ConfigError(f"{name} is {value}; it must be at least 0 and below 1")

    def _validate_sizes(self) -> None:
        """Refuse sizes that no machine holds: a damaged or hostile file must not ask for them."""
        for name, value in {"vocab_size": self.vocab_size, **self.options()}.items():
            if name in COUNTS and isinstance(value, int) and value < 1:
                raise ConfigError(f"{name} is {value}; at least 1 is needed")
            most = MOST.get(name, 1_000_000)
            if isinstance(value, int) and abs(value) > most:
                raise ConfigError(f"{name} is {value}; {most:,} is the most")
        t, width = self.transformer, self.transformer.encoder_embed_dim
        layers = t.encoder_layers * (4 * width + 2 * t.encoder_ffn_embed_dim)
        layers += t.decoder_layers * (8 * width + 2 * t.decoder_ffn_embed_dim)
        tables = self.vocab_size + t.max_source_positions + t.max_target_positions + t.image_bucket_size**2
        if (layers + tables) * width > MOST_PARAMETERS:
            raise ConfigError(
                f"these sizes make a model of {(layers + tables) * width / 1e9:,.0f} billion parameters; "
                f"{MOST_PARAMETERS / 1e9:g} billion are the most"
            )

    def _validate_backbone(self) -> None:
        image = self.image
        for modality, value in BY_IMAGE_NETWORK.items():
            if self.network_of(modality) != "image":
                continue
            if image.image_encoder_name == "none":
                raise ConfigError(
                    f"{modality}_encoder_name={value} needs an image network; image_encoder_name is none"
                )
            given = {**vars(self.freeze), **vars(self.video), **vars(self.audio)}
            own = (f"{modality}_model_path", f"freeze_{modality}_encoder", f"freeze_resnet_{modality}")
            for name in own:
                if given.get(name):
                    raise ConfigError(
                        f"{name} is about a network of {modality} alone, and {modality}_encoder_name={value} has none; "
                        "give the option of the image network (resnet_model_path, image_backbone_weights, "
                        "freeze_image_encoder, freeze_resnet)"
                    )
        if image.image_encoder_name == "timm":
            if image.image_backbone is None:
                raise ConfigError(
                    "image_encoder_name=timm needs image_backbone: the name of a network of timm"
                )
            if image.resnet_model_path is not None:
                raise ConfigError(
                    "resnet_model_path is for ResNets; with image_encoder_name=timm give image_backbone_weights"
                )
            return
        for name in ("image_backbone", "image_backbone_stride", "image_backbone_weights"):
            if getattr(image, name) is not None:
                raise ConfigError(f"{name}={getattr(image, name)} needs image_encoder_name=timm")

    def network_option(self, modality: str) -> str:
        """Return the name of the option that holds the file of a modality's pretrained network."""
        modality = self.network_of(modality)
        if modality == "image":
            return (
                "image_backbone_weights" if self.image.image_encoder_name == "timm" else "resnet_model_path"
            )
        return f"{modality}_model_path"

    def network_weights(self, modality: str) -> str | None:
        """Return the value of :meth:`network_option`."""
        value: str | None = getattr(getattr(self, self.network_of(modality)), self.network_option(modality))
        return value

    def network_of(self, modality: str) -> str:
        """Return the modality whose network a modality uses: "image" for videos with video_encoder_name frames, and
        for sound with audio_encoder_name image."""
        value = BY_IMAGE_NETWORK.get(modality)
        shared = value and getattr(getattr(self, modality), f"{modality}_encoder_name") == value
        return "image" if shared else modality

    def _validate_training(self) -> None:
        """What trains is said once, and no option of an absent part is passed over."""
        freeze, peft = self.freeze, self.peft
        added = [name for name in PEFT_SWITCHES if getattr(peft, name)]
        alone = ["only_linear_proj"] * freeze.only_linear_proj + ["bitfit"] * freeze.bitfit
        alone += [] if peft.unfreeze else added[:1]
        if len(alone) > 1:
            raise ConfigError(
                f"{' and '.join(alone)} exclude each other: each trains nothing but its own part"
            )
        if peft.unfreeze and not added:
            raise ConfigError(
                f"unfreeze needs one of {', '.join(PEFT_SWITCHES)}; without them all trains anyway"
            )
        if peft.adapter_type and not peft.adapter:
            raise ConfigError(f"adapter_type={peft.adapter_type} needs adapter")
        for target in peft.lora_targets.split(","):
            if target.strip() not in LORA_TARGETS:
                known = ", ".join(LORA_TARGETS)
                raise ConfigError(
                    f"lora_targets has '{target.strip()}'; known: {known}.{nearest(target, LORA_TARGETS)}"
                )
        if peft.lora_alpha <= 0:
            raise ConfigError(f"lora_alpha is {peft.lora_alpha}; it must be above 0")
        for side in ("encoder", "decoder"):
            if getattr(peft, f"{side}_prompt_projection") and not getattr(peft, f"{side}_prompt"):
                raise ConfigError(f"{side}_prompt_projection needs {side}_prompt")
        for name, value in self.options().items():
            counted = name.endswith(
                ("_length", "patch_num", "_stride", "adapter_dim", "prompt_dim", "patch_image_size")
            )
            if counted and value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; at least 1 is needed")


def _checked(field: dataclasses.Field[Any], value: Any) -> Any:
    """Return ``value`` in the field's type, or raise ConfigError."""
    kind = str(field.type)
    if isinstance(value, str) and value.lower() in ("none", "") and "None" in kind:
        value = None
    base = kind.split("|")[0].strip()
    if value is None:
        if "None" in kind:
            return None
        raise ConfigError(f"{field.name} must be {base}, not None")
    fits = {
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, (int, float)) and not isinstance(value, bool),
        "str": isinstance(value, str),
    }[base]
    if not fits:
        raise ConfigError(f"{field.name} must be {base}, not {value!r}")
    choices = field.metadata["choices"]
    if choices and value not in choices:
        listed = ", ".join(choices)
        raise ConfigError(f"{field.name} is '{value}'; choose one of {listed}.{nearest(str(value), choices)}")
    return float(value) if base == "float" else value
