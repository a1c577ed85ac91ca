"""Initial weights from files in the published formats: what is taken, what is not, and why."""

import argparse
import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.support.model_fixtures import SMALL
from unival.checkpoint import load_checkpoint
from unival.errors import CheckpointError
from unival.modeling.audio import build_audio_encoder
from unival.modeling.build import build_model
from unival.modeling.config import ModelConfig
from unival.modeling.image import build_image_encoder
from unival.modeling.pretrained import load_bart, load_network, take_network
from unival.modeling.video import build_video_encoder
from unival.modeling.weights import REBUILT, load_into, modality_exceptions
from unival.vocabulary import Vocabulary

KEYS = Path(__file__).parents[2] / "parity" / "data" / "base_state_dict.json"
SIZES = {k: v for k, v in SMALL.items() if k != "resnet_type"}
TEXT_ONLY = {**SIZES, "image_encoder_name": "none", "image_bucket_size": 8, "code_image_size": 64}


def make(seed=0, vocab=300, **options):
    torch.manual_seed(seed)
    return build_model("unival_tiny", vocab, **{**TEXT_ONLY, **options}).eval()


def networks(**options):
    config = ModelConfig.from_options(**options)
    return (
        build_image_encoder(config.image),
        build_video_encoder(config.video),
        build_audio_encoder(config.audio),
    )


def equal(report, own, theirs):
    """Every key is accounted for once; what was taken is equal."""
    accounted = [*report.taken, *report.resized, *report.kept]
    assert sorted(accounted) == sorted(own)
    assert all(torch.equal(own[k], theirs[k]) for k in report.taken)
    assert len(report.lines()) == len(accounted) + len(report.skipped)
    assert all(report.kept.values()) and all(report.skipped.values()) and all(report.resized.values())


# ---- networks of the modalities


def randomised(network):
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    return network


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_and_timm_files(tmp_path, suffix):
    """A plain state dict; torchvision's old files have no counters; a timm file may come as safetensors."""
    from torchvision.models import resnet18

    state = randomised(resnet18()).state_dict()
    if suffix == ".pth":
        state = OrderedDict((k, v) for k, v in state.items() if "num_batches" not in k)
        torch.save(state, tmp_path / "resnet18-5c106cde.pth")
    else:
        save_file(state, tmp_path / "resnet18-5c106cde.safetensors")
    path = tmp_path / f"resnet18-5c106cde{suffix}"
    whole, *_ = networks(resnet_type="resnet18")
    report = load_network(whole, path)
    equal(report, whole.state_dict(), state)
    assert {w for k, w in report.kept.items()} <= {"counter that older files lack"} and not report.skipped
    three, *_ = networks(resnet_type="resnet18", image_encoder_name="resnet")
    report = load_network(three, path)
    equal(report, three.state_dict(), state)
    reasons = {k.split(".")[0]: why for k, why in report.skipped.items()}
    assert reasons == {"layer4": "the network has three stages", "fc": "classifier, unused"}


def test_kinetics_file(tmp_path):
    _, donor, _ = networks(video_encoder_name="all_resnext14")
    inner = {f"module.{k}": v for k, v in randomised(donor).state_dict().items() if "num_batches" not in k}
    inner |= {"module.fc.weight": torch.zeros(400, 2048), "module.fc.bias": torch.zeros(400)}
    path = tmp_path / "resnext-101-kinetics.pth"
    content = {
        "epoch": 150,
        "arch": "resnext-14",
        "state_dict": inner,
        "optimizer": {"state": {}, "param_groups": []},
    }
    torch.save(content, path, _use_new_zipfile_serialization=False)
    for name, left_out in (("all_resnext14", {"fc"}), ("resnext14", {"fc", "layer4"})):
        _, network, _ = networks(video_encoder_name=name)
        report = load_network(network, path)
        equal(report, network.state_dict(), donor.state_dict())
        assert {k.split(".")[0] for k in report.skipped} == left_out
    with pytest.raises(CheckpointError, match=r"kinetics\.pth' is not a file of this network"):
        load_network(networks(video_encoder_name="all_resnext18")[1], path)


def pann_file(path, prefix="", **options):
    """What the PANN release holds: iteration, sampler state in numpy, the model with a 32 kHz mel bank."""
    *_, donor = networks(audio_encoder_name="pann_cnn6", **options)
    donor = randomised(donor)
    state = {prefix + k: v for k, v in donor.state_dict().items()}
    state |= {f"{prefix}fc1.weight": torch.zeros(512, 512), f"{prefix}fc_audioset.bias": torch.zeros(527)}
    sampler = {"indexes": np.arange(4), "pointer": 3, "queue": [np.int64(1)]}
    torch.save({"iteration": 600000, "model": state, "sampler": sampler}, path)
    return donor.state_dict()


@pytest.mark.parametrize("prefix", ["", "module.", "sed_model.", "module.audio_branch."])
def test_audioset_file(tmp_path, prefix):
    theirs = pann_file(tmp_path / "Cnn6.pth", prefix)
    *_, network = networks(audio_encoder_name="pann_cnn6")
    before = network.state_dict()["spectrogram_extractor.stft.conv_real.weight"].clone()
    report = load_network(network, tmp_path / "Cnn6.pth")
    equal(report, network.state_dict(), theirs)
    assert {why for k, why in report.skipped.items() if "fc" in k} == {"classifier, unused"}
    assert "logmel_extractor.melW" in report.taken
    basis = "spectrogram_extractor.stft.conv_real.weight"
    assert report.skipped[basis] == REBUILT and torch.equal(network.state_dict()[basis], before)


def test_other_branches_of_an_audio_text_file_are_left_out(tmp_path):
    theirs = pann_file(tmp_path / "clap.pt", "module.audio_branch.")
    content = torch.load(tmp_path / "clap.pt", weights_only=False)
    content["model"]["module.text_branch.embeddings.weight"] = torch.zeros(3)
    content["model"]["module.logit_scale_a"] = torch.zeros(())
    torch.save({"epoch": 3, "state_dict": content["model"]}, tmp_path / "clap.pt")
    *_, network = networks(audio_encoder_name="pann_cnn6")
    report = load_network(network, tmp_path / "clap.pt")
    equal(report, network.state_dict(), theirs)
    assert report.skipped["module.text_branch.embeddings.weight"] == "another branch of the file"


def test_other_mel_bands_leave_bank_and_first_norm(tmp_path):
    theirs = pann_file(tmp_path / "Cnn6.pth")
    *_, network = networks(audio_encoder_name="pann_cnn6", mel_bins=32)
    report = load_network(network, tmp_path / "Cnn6.pth")
    equal(report, network.state_dict(), theirs)
    kept = {k: why for k, why in report.kept.items() if why != REBUILT}
    assert {k.split(".")[0] for k in kept} == {"logmel_extractor", "bn0"}
    assert set(kept.values()) == {"the file has 64 mel bands, the network 32"}
    assert "conv_block1.conv1.weight" in report.taken


def test_mel_bank_of_the_file_or_computed(tmp_path):
    """Published PANN weights bring filters for 32 kHz (trap T9 of the reference): an explicit choice."""
    theirs = pann_file(tmp_path / "Cnn6.pth")["logmel_extractor.melW"]
    path = {"audio_encoder_name": "pann_cnn6", "audio_model_path": str(tmp_path / "Cnn6.pth")}
    key = "encoder.embed_audios.logmel_extractor.melW"
    own = make(audio_encoder_name="pann_cnn6").state_dict()[key]
    taken, computed = make(**path), make(**path, mel_bank="computed")
    assert torch.equal(taken.state_dict()[key], theirs) and torch.equal(computed.state_dict()[key], own)
    # and again when a checkpoint that holds the other bank is loaded
    state = {k: v.clone() for k, v in taken.state_dict().items()}
    report = load_into(computed, state)
    assert torch.equal(computed.state_dict()[key], own) and report.skipped[key] == REBUILT
    load_into(make(audio_encoder_name="pann_cnn6"), state)
    assert not torch.equal(own, theirs)


def test_a_spectrogram_of_another_window_is_refused(tmp_path):
    pann_file(tmp_path / "Cnn6.pth")
    content = torch.load(tmp_path / "Cnn6.pth", weights_only=False)
    content["model"]["spectrogram_extractor.stft.conv_real.weight"] = torch.zeros(257, 1, 512)
    torch.save(content, tmp_path / "Cnn6.pth")
    *_, network = networks(audio_encoder_name="pann_cnn6")
    with pytest.raises(CheckpointError, match="window of 512 samples"):
        load_network(network, tmp_path / "Cnn6.pth")


def test_full_size_networks_take_every_published_key():
    """ResNet-101, ResNeXt-101 and CNN14 by name and shape, without memory (torch's meta device)."""
    from torchvision.models import resnet101

    recorded = json.loads(KEYS.read_text())["keys"]

    def of(prefix):
        inside = {k.removeprefix(prefix): v[0] for k, v in recorded.items() if k.startswith(prefix)}
        return {k: torch.empty(shape, device="meta") for k, shape in inside.items()}

    with torch.device("meta"):
        image, video, audio = networks(video_encoder_name="all_resnext101", audio_encoder_name="pann_cnn14")
        torchvision_keys = dict(resnet101().state_dict())
    clips = {f"module.{k}": v for k, v in of("encoder.embed_videos.").items()}
    sound = of("encoder.embed_audios.") | {"fc1.weight": torch.empty(2048, 2048, device="meta")}
    sound["logmel_extractor.melW"] = torch.zeros(
        513, 64
    )  # computed from numbers, so never on the meta device
    cases = (
        (image, torchvision_keys, 626),
        (image, of("encoder.embed_images."), 626),
        (video, {"state_dict": clips | {"module.fc.bias": torch.empty(400, device="meta")}}, 624),
        (audio, {"model": sound}, 78),
    )
    for network, content, count in cases:
        report = take_network(network, content, "published.pth")
        assert not report.missing
        assert report.loaded == count


# ---- bart.base


def bart_state(width=16, layers=1, rows=51201, positions=1026):
    """A state dict with bart.base's keys, made by fairseq's own BART."""
    pytest.importorskip("fairseq")
    from fairseq.data import Dictionary
    from fairseq.models.bart import BARTModel
    from fairseq.models.bart.model import bart_base_architecture

    words = Dictionary()
    for number in range(rows - 5):
        words.add_symbol(f"w{number}")
    words.add_symbol("<mask>")
    args = argparse.Namespace(
        encoder_embed_dim=width,
        encoder_ffn_embed_dim=24,
        encoder_layers=layers,
        encoder_attention_heads=2,
        decoder_layers=layers,
        decoder_attention_heads=2,
        max_source_positions=positions - 2,
        max_target_positions=positions - 2,
        dropout=0.0,
    )
    bart_base_architecture(args)
    task = argparse.Namespace(source_dictionary=words, target_dictionary=words)
    torch.manual_seed(7)
    bart = BARTModel.build_model(args, task).eval()
    with torch.no_grad():
        for p in bart.parameters():
            p.normal_(std=0.3)
    state = {k: v for k, v in bart.state_dict().items() if k != "decoder.output_projection.weight"}
    return bart, state


@pytest.fixture(scope="module")
def bart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bart.base")
    network, state = bart_state()
    torch.save({"args": argparse.Namespace(arch="bart_base"), "model": state}, folder / "model.pt")
    return network, state, folder


BART_SIZES = {
    "encoder_embed_dim": 16,
    "decoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 24,
    "decoder_ffn_embed_dim": 24,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
# The switches under which this network computes what BART computes: then rows and positions can be compared.
LIKE_BART = {
    "encoder_normalize_before": False,
    "decoder_normalize_before": False,
    "entangle_position_embedding": True,
    "disable_entangle": False,
    "scale_attn": False,
    "scale_fc": False,
    "scale_heads": False,
    "add_type_embedding": False,
    "attn_scale_factor": 1.0,
}


def test_bart_s_text_gives_bart_s_logits(bart):
    """fairseq's BART and ours, started from its file: shifted positions and rows of words are where they belong."""
    network, _, folder = bart
    model = make(vocab=50300, **BART_SIZES, **LIKE_BART)
    load_bart(model, folder / "model.pt")
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "_linear." in name or "rel_pos_table" in name:
                p.zero_()  # BART has no position bias
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(4, 50264, (2, 6), generator=generator)
    target = torch.randint(4, 50264, (2, 5), generator=generator)
    source[0, -2:] = 1
    theirs = source.clone()
    source[1, 2], theirs[1, 2] = 50264, 51200  # <mask>
    with torch.no_grad():
        want = network(theirs, torch.tensor([4, 6]), target)[0]
        got, _ = model(source, None, target)
    assert (got[..., :50264] - want[..., :50264]).abs().max() < 1e-4
    assert (got[..., 50264] - want[..., 51200]).abs().max() < 1e-4


def test_bart_report_and_fresh_rows(bart):
    _, _, folder = bart
    model = make(vocab=50300, **BART_SIZES)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = load_bart(model, folder / "model.pt")
    after = model.state_dict()
    table = "encoder.embed_tokens.weight"
    assert torch.equal(after[table][50265:], before[table][50265:])
    assert (
        "<mask> from row 51200" in report.resized[table]
        and "from row 2" in report.resized["encoder.embed_positions.weight"]
    )
    assert report.kept["encoder.layers.0.self_attn.c_attn"] == "BART has no such part"
    assert "encoder.layers.0.fc1.weight" in report.taken
    assert sorted([*report.taken, *report.resized, *report.kept]) == sorted(after)
    for words in ("resized encoder.embed_tokens.weight", "kept as they were (BART has no such part)"):
        assert words in str(report)


def test_bart_as_the_reference_takes_it(bart):
    """Rows by number (so <mask> and codes get fillers of BART), the rest drawn, positions not shifted."""
    _, state, folder = bart
    model = make(vocab=52000, **BART_SIZES)
    report = load_bart(model, folder / "model.pt", as_reference=True)
    after, words = model.state_dict(), state["encoder.embed_tokens.weight"]
    assert torch.equal(after["encoder.embed_tokens.weight"][:51201], words)
    assert (
        after["decoder.output_projection.weight"].data_ptr()
        == after["encoder.embed_tokens.weight"].data_ptr()
    )
    drawn = after["encoder.embed_tokens.weight"][51201:]
    assert abs(drawn.std().item() - 16**-0.5) < 0.01
    position = "encoder.embed_positions.weight"
    assert torch.equal(after[position], state[position])
    assert "as the reference" in report.resized["encoder.embed_tokens.weight"]


def vocabulary_of(order):
    """A vocabulary of the released size whose dictionary lists BPE ids in ``order``."""
    small = Vocabulary.train(["a red circle"], 256, num_codes=4, num_bins=4)
    files = small.to_dict()["files"]
    files["dict.txt"] = "".join(f"{word} 1\n" for word in order)
    return Vocabulary.from_dict({"files": files, "num_codes": 4, "num_bins": 4})


def test_bart_words_are_found_by_symbol(bart, tmp_path):
    """With dict.txt beside the file the order does not matter; a dictionary of another size is refused."""
    _, state, folder = bart
    copy = tmp_path / "bart.base"
    copy.mkdir()
    (copy / "model.pt").write_bytes((folder / "model.pt").read_bytes())
    theirs = [str(i) for i in range(50260)] + [f"madeupword{i:04d}" for i in range(936)]
    (copy / "dict.txt").write_text("".join(f"{word} 1\n" for word in theirs))
    ours = vocabulary_of([*theirs[100:50260], *theirs[:99], "unheard"])
    model = make(vocab=len(ours), **BART_SIZES)
    fresh = model.encoder.embed_tokens.weight[50263].detach().clone()
    report = load_bart(model, copy / "model.pt", ours)
    words, rows = state["encoder.embed_tokens.weight"], model.encoder.embed_tokens.weight
    assert torch.equal(rows[4], words[104]) and torch.equal(rows[50164], words[4])
    assert torch.equal(rows[ours.mask], words[51200]) and torch.equal(rows[50263], fresh)
    assert "50259 of 50260 words by symbol" in report.resized["encoder.embed_tokens.weight"]
    (copy / "dict.txt").write_text("1 1\n2 1\n")
    with pytest.raises(CheckpointError, match="has 2 words"):
        load_bart(model, copy / "model.pt", ours)


def test_bart_refusals(bart):
    _, _, folder = bart
    own = Vocabulary.train(["a red circle"], 256, num_codes=51000, num_bins=20)
    with pytest.raises(CheckpointError, match="released vocabulary"):
        load_bart(make(vocab=len(own), **BART_SIZES), folder / "model.pt", own)
    with pytest.raises(CheckpointError, match="has 16 channels, the model 32"):
        load_bart(make(vocab=50300), folder / "model.pt")
    with pytest.raises(CheckpointError, match=r"missing encoder\.layers\.1"):
        load_bart(make(vocab=50300, **{**BART_SIZES, "encoder_layers": 2}), folder / "model.pt")


# ---- whole models: OFA files, smaller tables, older keys


def ofa_file(path, model, arch="ofa_base", **args):
    """A released OFA file: arch of its own, three-stage image network, half precision, its tables and heads."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    state["classification_heads.snli.dense.weight"] = torch.zeros(2, 2)
    namespace = argparse.Namespace(
        arch=arch, _name=arch, task="unify_task", **SIZES, resnet_type="resnet18", **args
    )
    torch.save({"args": namespace, "cfg": None, "model": state, "extra_state": {"epoch": 1}}, path)
    return state


def test_ofa_file(tmp_path):
    """Its network of stride 16 is read off the keys; taken whole, also beside networks it never had."""
    vocabulary = Vocabulary.train(["a red circle"], 256, num_codes=4, num_bins=4)
    options = {"image_encoder_name": "resnet", "resnet_type": "resnet18", "image_bucket_size": 8}
    donor = make(1, len(vocabulary), **options)
    state = ofa_file(tmp_path / "ofa_base.pt", donor, image_bucket_size=8, code_image_size=64)
    loaded = load_checkpoint(tmp_path / "ofa_base.pt", vocabulary=vocabulary)
    assert loaded.model.config.arch == "unival_base"
    assert loaded.model.config.image.image_encoder_name == "resnet"
    assert torch.equal(loaded.model.encoder.image_proj.weight, state["encoder.image_proj.weight"].float())
    larger = make(2, len(vocabulary), **options, video_encoder_name="resnext14")
    report = load_into(larger, state, *modality_exceptions(larger))
    assert all("video" in k for k in report.missing)
    assert report.skipped["classification_heads.snli.dense.weight"].startswith("classification head")
    whole = make(3, len(vocabulary), **{**options, "image_encoder_name": "timm_resnet"})
    with pytest.raises(CheckpointError, match=r"encoder\.image_proj\.weight: checkpoint \(32, 256\)"):
        load_into(whole, state, *modality_exceptions(whole))


def test_joined_projections_of_older_files_are_split():
    model = make(1)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    prefix = "decoder.layers.0.encoder_attn."
    for kind in ("weight", "bias"):
        parts = [state.pop(f"{prefix}{name}_proj.{kind}") for name in "qkv"]
        state[f"{prefix}in_proj_{kind}"] = torch.cat(parts)
    other = make(2)
    load_into(other, state)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())


def test_smaller_tables_are_extended_when_asked():
    old = make(
        1, 300, max_source_positions=20, max_target_positions=20, image_bucket_size=6, code_image_size=48
    )
    new = make(
        2, 320, max_source_positions=30, max_target_positions=30, image_bucket_size=8, code_image_size=48
    )
    fresh = {k: v.clone() for k, v in new.state_dict().items()}
    state = {k: v.clone() for k, v in old.state_dict().items()}
    with pytest.raises(CheckpointError, match="entries do not fit"):
        load_into(new, state)
    report = load_into(new, state, extend=True)
    after = new.state_dict()
    table = after["encoder.embed_tokens.weight"]
    assert torch.equal(table[:300], state["encoder.embed_tokens.weight"])
    assert abs(table[300:].std().item() - 32**-0.5) < 0.02
    assert torch.equal(after["decoder.embed_positions.weight"][:22], state["decoder.embed_positions.weight"])
    # a place keeps its embedding, though its number changes with the width of the grid
    key = "encoder.embed_image_positions.weight"
    for row, column in ((0, 0), (0, 5), (5, 0), (3, 4)):
        assert torch.equal(after[key][row * 8 + column + 1], state[key][row * 6 + column + 1])
    assert torch.equal(after[key][0], state[key][0])
    key = "decoder.image_rel_pos_table_list.1.weight"
    for dr, dc in ((0, 0), (-5, 5), (5, -5), (2, 1)):
        mine = (dr + 7) * 15 + dc + 7
        assert torch.equal(after[key][mine], state[key][(dr + 5) * 11 + dc + 5])
    assert torch.equal(after[key][-3:], state[key][-3:])
    assert torch.equal(after[key][0], fresh[key][0])  # an offset the old grid did not have
    assert len(report.resized) == 3 + 2 + 2 + 4 and all("->" in how for how in report.resized.values())
    twin = make(
        3, 320, max_source_positions=30, max_target_positions=30, image_bucket_size=8, code_image_size=48
    )
    load_into(twin, state, extend=True)
    assert torch.equal(twin.encoder.embed_tokens.weight, new.encoder.embed_tokens.weight)  # on every rank
    with pytest.raises(CheckpointError, match="entries do not fit"):
        load_into(old, {k: v.clone() for k, v in after.items()}, extend=True)


def test_two_type_rows_become_four():
    old = make(1, image_encoder_name="resnet", resnet_type="resnet18")
    new = make(
        2, image_encoder_name="resnet", resnet_type="resnet18", add_mm_type_embedding=True, second_image=True
    )
    report = load_into(new, old.state_dict())
    theirs, ours = old.encoder.type_embedding.weight, new.encoder.type_embedding.weight
    assert torch.equal(ours, theirs[[0, 1, 1, 1, 1]])
    assert report.resized == {
        "encoder.type_embedding.weight": "(2, 32) -> (5, 32), new rows copy the image row"
    }
