import copy

import pytest
import torch
from torch import nn

from tests.support.model_fixtures import ALL, mixed_batch, small_model
from unival.modeling.freezing import BATCH_NORMS, apply_freezing
from unival.modeling.layers import DropPath, drop_path_rates

MEDIA = ("embed_images", "embed_videos", "embed_audios")


def loss_of(model, batch):
    logits, _ = model(**batch)
    return logits.float().log_softmax(-1).square().mean()


def test_gradients_reach_every_modality():
    model = small_model(**ALL).train()
    loss_of(model, mixed_batch((0, 0, 1, 1, 2, 2, -1))).backward()
    silent = {
        n
        for n, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not torch.isfinite(p.grad).all())
    }
    # Positions of image codes, which this batch has none of.
    assert silent == {
        "decoder.embed_image_positions.weight",
        "decoder.image_pos_ln.weight",
        "decoder.image_pos_ln.bias",
        "decoder.code_layernorm_embedding.weight",
        "decoder.code_layernorm_embedding.bias",
    }


def test_drop_path_rates_rise_linearly():
    assert drop_path_rates(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0.0]
    model = small_model(encoder_drop_path_rate=0.2, decoder_drop_path_rate=0.1)
    assert [layer.drop_path.rate for layer in model.encoder.layers] == [0.0, 0.2]
    assert [layer.drop_path.rate for layer in model.decoder.layers] == [0.0, 0.1]


def test_drop_path_drops_whole_rows_and_keeps_the_mean():
    torch.manual_seed(0)
    path, x = DropPath(0.25), torch.ones(4000, 3, 2)
    out = path.train()(x)
    assert ((out == 0).all((1, 2)) | (out == 1 / 0.75).all((1, 2))).all()
    assert abs(out.mean().item() - 1) < 0.03
    assert torch.equal(path.eval()(x), x)


@pytest.mark.parametrize("flag", ["image", "video", "audio"])
def test_frozen_networks_stand_still(flag):
    model = small_model(**ALL, **{f"freeze_{flag}_encoder": True}).train()
    network = getattr(model.encoder, f"embed_{flag}s")
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert getattr(model.encoder, f"{flag}_proj").weight.requires_grad
    before = copy.deepcopy(network.state_dict())
    others = [getattr(model.encoder, m) for m in MEDIA if m != f"embed_{flag}s"]
    moving = [next(m for m in o.modules() if isinstance(m, BATCH_NORMS)) for o in others]
    stats = [m.running_mean.clone() for m in moving]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1, weight_decay=0.1)
    for _ in range(2):
        model.train()
        optimizer.zero_grad()
        loss_of(model, mixed_batch((0, 0, 1, 1, 2, 2))).backward()
        optimizer.step()
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in before.items())
    assert not any(torch.equal(m.running_mean, s) for m, s in zip(moving, stats, strict=True))


@pytest.mark.parametrize(
    ("flag", "networks"),
    [
        ("freeze_resnet", {"embed_images"}),
        ("freeze_resnet_video", {"embed_videos"}),
        ("freeze_batchnorm", set(MEDIA)),
    ],
)
def test_frozen_batch_norms(flag, networks):
    model = small_model(**ALL, **{flag: True}).train()
    for name in MEDIA:
        norms = [m for m in getattr(model.encoder, name).modules() if isinstance(m, BATCH_NORMS)]
        frozen = [not m.training and not m.weight.requires_grad for m in norms]
        assert norms and all(f == (name in networks) for f in frozen)
    assert model.encoder.embed_images.conv1.weight.requires_grad
    before = model.encoder.embed_images.bn1.running_mean.clone()
    loss_of(model, mixed_batch((0, 0)))
    assert torch.equal(before, model.encoder.embed_images.bn1.running_mean) == ("embed_images" in networks)


def trained(model):
    return {n for n, p in model.named_parameters() if p.requires_grad}


def test_freezing_of_encoder_decoder_and_embeddings():
    model = small_model(**ALL, freeze_encoder=True, freeze_decoder=True, freeze_encoder_embedding=True)
    names = trained(model)
    assert all(n.startswith("encoder.") for n in names)
    assert {"encoder.image_proj.weight", "encoder.embed_video_positions.weight"} <= names
    assert "encoder.embed_images.conv1.weight" in names
    assert not {n for n in names if "layers." in n and "embed_" not in n}
    assert "encoder.embed_audios.logmel_extractor.melW" not in names
    only_decoder = trained(small_model(freeze_decoder=True))
    assert "encoder.embed_tokens.weight" not in only_decoder  # the decoder's too, and its output layer
    assert not any(n.startswith("decoder.") for n in only_decoder)
    table = trained(small_model(freeze_decoder_embedding=True))
    assert "encoder.embed_tokens.weight" not in table and "decoder.layers.0.fc1.weight" in table


def test_linear_only_and_bitfit():
    assert trained(small_model(**ALL, only_linear_proj=True)) == {
        f"encoder.{m}_proj.{k}" for m in ("image", "video", "audio") for k in ("weight", "bias")
    }
    names = trained(small_model(bitfit=True))
    assert names and all(n.endswith("bias") and ("layer_norm" in n or ".fc" in n) for n in names)


def test_encoder_in_evaluation_mode_while_training():
    model = small_model(encoder_eval=True, dropout=0.5).train()
    layers = [*model.encoder.layers.modules(), *model.encoder.embed_images.modules(), model.encoder.dropout]
    assert not any(m.training for m in layers) and model.decoder.training
    batch = mixed_batch((0, 0))
    first, second = (model.encoder(batch["src_tokens"], patch_images=batch["patch_images"]) for _ in range(2))
    assert torch.equal(first["encoder_out"][0], second["encoder_out"][0])


def test_freezing_twice_changes_nothing():
    model = small_model(**ALL, freeze_image_encoder=True)
    before = trained(model), len(model.encoder.held_in_eval)
    apply_freezing(model)
    assert (trained(model), len(model.encoder.held_in_eval)) == before


def test_a_copy_is_independent():
    """Averaged weights are kept in a deep copy, whose frozen parts must be its own."""
    model = small_model(freeze_image_encoder=True)
    twin = copy.deepcopy(model).train()
    assert twin.encoder.held_in_eval[0] is twin.encoder.embed_images
    with torch.no_grad():
        twin.encoder.embed_images.conv1.weight.zero_()
    batch = mixed_batch((0, 0))
    assert not torch.equal(model(**batch)[0], twin.eval()(**batch)[0])
    assert twin.decoder.output_projection.weight is twin.encoder.embed_tokens.weight


RECOMPUTED = [{}, {"qk_norm": True, "scale_resids": True}, {"encoder_prompt": True, "unfreeze": True}]


@pytest.mark.parametrize("options", RECOMPUTED)
def test_checkpointed_activations_give_the_same_gradients(options):
    gradients = []
    for on in (False, True):
        model = small_model(**options, checkpoint_activations=on).train()
        model.encoder.embed_images.eval()
        torch.manual_seed(3)
        loss_of(model, mixed_batch((0, 0))).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


@pytest.mark.parametrize(
    "options",
    [
        {"qk_norm": True},
        {"scale_resids": True},
        {"entangle_position_embedding": True, "disable_entangle": False},
        {"encoder_normalize_before": False, "decoder_normalize_before": False},
        {"scale_attn": False, "scale_fc": False, "scale_heads": False},
        {"no_scale_embedding": False},
        {"activation_fn": "relu"},
        {"add_type_embedding": False},
        {"layernorm_image_embedding": True},
        {"share_all_embeddings": False},
        {"adapter": True},
        {"adapter": True, "adapter_type": "VL"},
        {"encoder_prompt": True, "decoder_prompt": True},
    ],
)
def test_switches_change_the_result_and_train(options):
    plain, other = small_model(randomise=False), small_model(randomise=False, **options)
    with torch.no_grad():
        for p in other.parameters():
            if p.dim() == 1:
                p.add_(0.1)
        shared = {k: v for k, v in other.state_dict().items() if k in plain.state_dict()}
        plain.load_state_dict(shared, strict=False)
    batch = mixed_batch((0, 0))
    logits = other(**batch)[0]
    assert (logits - plain(**batch)[0]).abs().max() > 1e-5
    logits.square().sum().backward()
    assert all(p.grad is not None for n, p in other.named_parameters() if p.requires_grad and "adapter" in n)


def test_query_and_key_have_their_own_norms():
    attention = small_model(qk_norm=True).encoder.layers[0].self_attn
    with torch.no_grad():
        attention.k_norm.weight.mul_(2)
    x = torch.randn(1, 3, 32)
    k, v = attention.keys_values(x)
    assert torch.allclose(attention._split(attention.k_norm(attention.k_proj(x))), k)
    assert torch.allclose(attention._split(attention.v_proj(x)), v)
    assert torch.allclose(attention._split(attention.q_norm(attention.q_proj(x))), attention.queries(x))


def test_added_modules_train_alone_unless_asked():
    for options, part in (({"adapter": True}, ".adapter."), ({"decoder_prompt": True}, ".prefix.")):
        names = trained(small_model(**options))
        assert names and all(part in n for n in names)
        assert "encoder.embed_tokens.weight" in trained(small_model(**options, unfreeze=True))
    model = small_model(adapter=True).train()
    assert not model.encoder.embed_images.training


def test_sync_bn_converts_the_image_network_only():
    model = small_model(**ALL, sync_bn=True)
    assert isinstance(model.encoder.embed_images.bn1, nn.SyncBatchNorm)
    assert not isinstance(model.encoder.embed_videos.bn1, nn.SyncBatchNorm)
    assert set(model.state_dict()) == set(small_model(**ALL).state_dict())
    loss_of(model.train(), mixed_batch((0, 0))).backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_types_keep_the_front_end_in_float32(dtype):
    model = small_model(**ALL)
    batch = mixed_batch((0, 1, 2, -1))
    with torch.no_grad():
        want, _ = model(**batch)
        model = model.to(dtype)
        audio = model.encoder.embed_audios
        assert audio.logmel_extractor.melW.dtype == audio.bn0.weight.dtype == torch.float32
        assert audio.spectrogram_extractor.window.dtype == torch.float32
        assert audio.conv_block1.conv1.weight.dtype == model.encoder.layers[0].fc1.weight.dtype == dtype
        got, _ = model(**batch)
    assert got.dtype == dtype and torch.isfinite(got).all()
    assert (got.float() - want).abs().max() < 0.15 * want.abs().max()  # measured 0.013 (bfloat16), 0.0014


def test_autocast():
    model = small_model(**ALL).train()
    batch = mixed_batch((0, 0, 1, 1, 2, 2, -1))
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_initialisation():
    model = small_model(randomise=False)
    state = model.state_dict()
    for name in (
        "encoder.token_rel_pos_table_list.0.weight",
        "encoder.image_proj.weight",
        "encoder.embed_images.fc.weight",
    ):
        assert abs(state[name].std().item() - 0.02) < 0.003, name
    assert state["encoder.embed_tokens.weight"][1].abs().sum() == 0
    assert state["encoder.image_proj.bias"].abs().sum() == 0
    assert (state["encoder.layers.0.self_attn.c_attn"] == 1).all()
