"""A model with every modality, small enough for a unit test, and batches for it."""

import torch

from unival.modeling.build import build_model

SMALL = {
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_embed_dim": 32,
    "decoder_ffn_embed_dim": 48,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "resnet_type": "resnet18",
}
ALL = {"video_encoder_name": "all_resnext14", "audio_encoder_name": "pann_cnn6"}
VOCAB = 120


def small_model(seed=0, randomise=True, **options):
    """A tiny model; weights widened so that every path has an effect that a test can see."""
    torch.manual_seed(seed)
    model = build_model("unival_tiny", VOCAB, **{**SMALL, **options})
    if randomise:
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "rel_pos_table" in name or "positions" in name or "pos_" in name or "c_attn" in name:
                    p.add_(torch.randn_like(p) * 0.3)
                elif "embed_tokens" in name or "type_embedding" in name or "_proj" in name:
                    p.add_(torch.randn_like(p) * 0.1)
    return model.eval()


def text(rows, length, seed=0):
    """Token ids with padding: each row one shorter than the last, from ``length`` down."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, VOCAB, (rows, length), generator=generator)
    tokens[:, 0] = 0
    for i in range(rows):
        tokens[i, length - i % 3 :] = 1
    return tokens


def mixed_batch(types=(0, -1, 1, 2, 0), compact=False, seed=0):
    """A batch with all modalities; dummies in the other rows unless ``compact``."""
    generator = torch.Generator().manual_seed(seed)
    n = len(types)
    media = {
        "patch_images": torch.randn(n, 3, 64, 96, generator=generator),
        "patch_videos": torch.randn(n, 3, 4, 64, 64, generator=generator),
        "patch_audios": torch.randn(n, 9600, generator=generator) * 0.1,
    }
    batch = {
        "src_tokens": text(n, 9, seed),
        "src_lengths": None,
        "prev_output_tokens": text(n, 7, seed + 1),
        "patch_types": torch.tensor(types),
    }
    for kind, (name, tensor) in enumerate(media.items()):
        if kind in types:
            batch[name] = tensor[torch.tensor(types) == kind] if compact else tensor
    return batch


def row_alone(batch, row):
    """The batch of one row, padding cut off, and only the tensor that the row uses."""
    kind = int(batch["patch_types"][row])
    source, target = batch["src_tokens"][row], batch["prev_output_tokens"][row]
    alone = {
        "src_tokens": source[source.ne(1)][None],
        "src_lengths": None,
        "prev_output_tokens": target[target.ne(1)][None],
    }
    if kind >= 0:
        name = ("patch_images", "patch_videos", "patch_audios")[kind]
        alone[name] = batch[name][row : row + 1]
        alone["patch_types"] = torch.tensor([kind])
    return alone
