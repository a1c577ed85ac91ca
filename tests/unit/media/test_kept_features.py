"""The shelf of kept features: equal bits, several writers, kills and damage, the limit; and batches that mix them."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.model_fixtures import small_model
from unival.batching.batch import Example, collate
from unival.media.features import DATA, INDEX, Shelf, delete, listed, used
from unival.media.loader import MediaLoader
from unival.specs import SpecOptions
from unival.specs.inputs import load_media
from unival.tables.row import Row


def shelf(folder, limit=1 << 30):
    return Shelf(folder, {"image": "hash of the network"}, limit)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_bits_sizes_and_several_writers(tmp_path, kind):
    one, two = shelf(tmp_path), shelf(tmp_path)
    transform = {"patch_image_size": 32}
    places = [one.place("image", transform, bytes([i]) * 32) for i in range(6)]
    features = torch.randn(6, 8, 2, 3).to(kind)
    for i, place in enumerate(places):
        (one if i % 2 else two).put(replace(place, size=(10 + i, 20)), features[i])
        one.put(
            replace(place, size=(10 + i, 20)), features[i]
        )  # known by now, or a second copy: both are right
    for reader in (one, two, shelf(tmp_path), pickle.loads(pickle.dumps(two))):
        for i, place in enumerate(places):
            found = reader.get(place)
            assert found.size == (10 + i, 20) and torch.equal(found.features, features[i])
            assert found.features.dtype == kind
    assert one.get(one.place("image", {"patch_image_size": 64}, bytes(32))) is None
    assert one.place("video", transform, bytes(32)) is None and one.place("image", transform, None) is None
    (book,) = listed(tmp_path)
    assert book.shape == (8, 2, 3) and book.size == used(tmp_path)
    (tmp_path / "else.txt").write_text("stays")
    delete(tmp_path)
    assert not listed(tmp_path) and (tmp_path / "else.txt").exists()


def test_a_full_disk_ends_the_keeping_and_nothing_else(tmp_path, caplog):
    one = shelf(tmp_path)
    places = [one.place("image", {}, bytes([i]) * 32) for i in range(4)]
    features = torch.randn(4, 4, 2, 2)
    one.put(places[0], features[0])
    (data,) = tmp_path.glob(f"*/*{DATA}")
    data.rename(tmp_path / "before")
    data.symlink_to("/dev/full")
    one.put(places[1], features[1])
    data.unlink()
    (tmp_path / "before").rename(data)
    one.put(places[2], features[2])
    assert torch.equal(one.get(places[0]).features, features[0])
    assert one.get(places[1]) is None and one.get(places[2]) is None
    [warning] = [record.message for record in caplog.records]
    assert "no more are kept" in warning and "No space left on device" in warning
    again = shelf(tmp_path)
    again.put(places[3], features[3])
    assert torch.equal(again.get(places[3]).features, features[3])
    assert torch.equal(again.get(places[0]).features, features[0])


def test_half_written_and_damaged_features_are_passed_over(tmp_path):
    one = shelf(tmp_path)
    places = [one.place("image", {}, bytes([i]) * 32) for i in range(3)]
    for place in places:
        one.put(place, torch.randn(4, 2, 2))
    (data,) = tmp_path.glob(f"*/*{DATA}")
    (index,) = tmp_path.glob(f"*/*{INDEX}")
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content[: 2 * 64 + 5])  # the third is cut off
    index.write_bytes(index.read_bytes() + b"half a record")
    again = shelf(tmp_path)
    assert [again.get(place) is None for place in places] == [True, False, True]


def test_the_limit(tmp_path, caplog):
    small = shelf(tmp_path, limit=100)
    for i in range(70):
        small.put(small.place("image", {}, bytes([i]) * 32), torch.zeros(20))
    assert listed(tmp_path)[0].media < 70 and "no more are kept" in caplog.text


def test_a_changed_picture_is_another_medium(tmp_path):
    loader = MediaLoader(root=tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    first = loader.identity("a.png")
    assert first == MediaLoader(table_dir=tmp_path).identity("a.png") != loader.identity("b.png")
    Image.new("RGB", (9, 9), "red").save(tmp_path / "a.png")
    assert loader.identity("a.png") != first
    assert loader.identity("aGVsbG8") == loader.identity("aGVsbG8") != first
    assert loader.identity(Image.new("RGB", (8, 8))) is None


def test_batches_mix_pixels_and_kept_features(tmp_path):
    """The logits of a batch whose features are known in part are those of the pixels."""
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    model = small_model(freeze_image_encoder=True)
    options, loader = SpecOptions(patch_image_size=64), MediaLoader(root=tmp_path)

    def batch(*names):
        rows = [Row({"image": f"{name}.png"}, path="t", line=1) for name in names]
        examples = []
        for i, row in enumerate(rows):
            loaded = load_media(row, "image", loader, options, None, False)
            ids = torch.tensor([0, 5 + i, 2])
            examples.append(Example(id=str(i), source=ids, target=ids, prev_output=ids, **loaded))
        return collate(examples)

    plain = batch(0, 1, 2)
    loader.features = shelf(tmp_path / "kept")
    logits = model(**plain["net_input"])[0]
    first = batch(1)
    seen = {}
    model.encoder.on_features = seen.__setitem__
    model(**first["net_input"])
    (place,) = first["places"]["image"]
    assert place.size == (50, 40)
    loader.features.put(place, seen["image"][0])
    mixed = batch(0, 1, 2)
    net = mixed["net_input"]
    assert (
        net["patch_images"].shape[0] == len(mixed["places"]["image"]) == 2
        and net["kept_images"].shape[0] == 3
    )
    assert mixed["sizes"] == plain["sizes"]
    assert torch.allclose(model(**net)[0], logits, atol=1e-5)
    known = batch(1, 1)
    assert "patch_images" not in known["net_input"]
    assert torch.allclose(model(**known["net_input"])[0][:1], model(**first["net_input"])[0], atol=1e-5)
