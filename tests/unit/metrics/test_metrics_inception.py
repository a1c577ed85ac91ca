"""FID and Inception Score with torch-fidelity's network equal torch-fidelity's, on the same random weights.

Skipped where torch-fidelity (extra ``imagegen``) is not installed. Takes about 40 s on one busy core.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.imagegen_fixtures import inception_file
from unival.errors import CheckpointError, ConfigError, DataError
from unival.metrics.images import feature_statistics, fid, file_hash, read_statistics
from unival.metrics.inception import InceptionScorer

needs_fidelity = pytest.mark.skipif(
    importlib.util.find_spec("torch_fidelity") is None,
    reason="torch-fidelity is not installed: pip install 'unival[imagegen]'",
)
COUNT = 16


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inception_file(tmp_path_factory.mktemp("inception"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders of PNG files, 64x64: blobs and noise of many sizes and colours, and darker blobs."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, sizes, top in (("a", (1, 2, 4, 64), 256), ("b", (4, 8), 180)):
        (root / name).mkdir()
        for i in range(COUNT):
            coarse = sizes[i % len(sizes)]
            small = Image.fromarray(rng.integers(0, top, (coarse, coarse, 3), dtype=np.uint8))
            small.resize((64, 64), Image.Resampling.BILINEAR).save(root / name / f"{i:03d}.png")
    return root / "a", root / "b"


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


def official(weights: Path, folders: tuple[Path, Path], **options: Any) -> dict[str, float]:
    from torch_fidelity import calculate_metrics

    return calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        feature_extractor_weights_path=str(weights),
        fid=True,
        isc=True,
        cuda=False,
        batch_size=8,
        cache=False,
        save_cpu_ram=True,  # no worker processes
        verbose=False,
        **options,
    )


@needs_fidelity
@pytest.mark.slow
def test_scores_equal_torch_fidelity(weights: Path, folders: tuple[Path, Path]) -> None:
    ours = InceptionScorer(weights, batch_size=8).score(files(folders[0]), files(folders[1]), splits=3)
    theirs = official(weights, folders, isc_splits=3)
    # Measured: FID differs by 4e-8 of its value (2e-8 with torch-fidelity 0.3), the rounding of unsymmetric
    # eigenvalues (or square root) of singular covariances; the Inception Score and its spread by 1e-16.
    assert ours.corpus["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    assert ours.corpus["inception_score"] == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert ours.corpus["inception_score_std"] == pytest.approx(theirs["inception_score_std"], rel=1e-9)
    assert theirs["frechet_inception_distance"] > 1 and theirs["inception_score_mean"] > 1.5
    assert ours.info["sha256"] == file_hash(weights) and ours.info["weights"] == "random.pth"
    assert (ours.info["images"], ours.info["reference_images"], ours.info["fid_layer"]) == (16, 16, "2048")


@needs_fidelity
def test_kinds_of_images_and_references(weights: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    scorer = InceptionScorer(weights, layer="64", batch_size=2)
    paths = files(folders[0])[:3]
    pictures = [Image.open(path) for path in paths]
    pixels = [torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures]
    wide = Image.new("RGB", (80, 48), "red")
    features, logits = scorer.features([paths[0], pictures[1], wide, pixels[2]])
    assert features.shape == (4, 64) and logits.shape == (4, 1008)
    for row, image in zip((0, 1, 2, 3), (pixels[0], pixels[1], wide, paths[2]), strict=True):
        alone = scorer.features([image])
        # Measured: 1e-7 of the largest value, from the size of the batch alone.
        assert np.abs(alone.features - features[row]).max() < 1e-5 * np.abs(features).max()
        assert np.abs(alone.logits - logits[row]).max() < 1e-5 * np.abs(logits).max()

    mean, covariance = feature_statistics(features * 1.1)
    np.savez(tmp_path / "gt.npz", mu=mean, sigma=covariance)
    scores = scorer.score(
        [paths[0], pictures[1], wide, pixels[2]], tmp_path / "gt.npz", splits=2, shuffle_seed=None
    )
    assert scores.corpus["fid"] == pytest.approx(fid(features, features * 1.1), rel=1e-9)
    plain = isc_features_to_metric(torch.from_numpy(logits), splits=2, shuffle=False)
    assert scores.corpus["inception_score"] == pytest.approx(plain["inception_score_mean"], rel=1e-9)
    assert scores.info["reference_sha256"] == file_hash(tmp_path / "gt.npz")
    with pytest.raises(DataError, match="different extractors"):
        scorer.score(paths[:2], _statistics(tmp_path / "wide.npz", 2048), splits=1)
    with pytest.raises(DataError, match=r"uint8 of shape \(3, h, w\)"):
        scorer.features([torch.zeros(3, 8, 8)])
    with pytest.raises(DataError, match="no images"):
        scorer.features([])


def _statistics(path: Path, size: int) -> Path:
    np.savez(path, mu=np.zeros(size), sigma=np.eye(size))
    return path


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (print, ("this must not run",))


@needs_fidelity
def test_unsuitable_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.pth"
    for content in ({"layer.weight": torch.ones(2)}, [1, 2], torch.ones(2)):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=r"other\.pth' does not hold the weights of torch-fidelity"):
            InceptionScorer(path)
    torch.save(Evil(), path)
    with pytest.raises(CheckpointError, match="it was not run"):
        InceptionScorer(path)
    assert "must not run" not in capsys.readouterr().out
    path.write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        InceptionScorer(path)


def test_errors_before_the_network_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="nothing is downloaded"):
        InceptionScorer(tmp_path / "absent.pth")
    path = tmp_path / "w.pth"
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match="layer='1024'"):
        InceptionScorer(path, layer="1024")
    with pytest.raises(ConfigError, match="batch_size=0"):
        InceptionScorer(path, batch_size=0)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)  # as if the package were not installed
    with pytest.raises(ConfigError, match=r"pip install .*\[imagegen\]"):
        InceptionScorer(path)


@needs_fidelity
def test_generated_pictures_get_both_scores(weights: Path, tmp_path: Path) -> None:
    """Statistics of the very pictures, but for a shift of one feature by 2: the distance is 4."""
    from tests.support.imagegen_fixtures import CODES, vqgan_file
    from unival.imagegen.grid import read_codes, write_codes
    from unival.imagegen.scorer import ImageScorer
    from unival.specs import SpecOptions, get_spec

    rng = np.random.default_rng(0)
    outputs = [{"codes": write_codes(rng.integers(0, CODES, 16))} for _ in range(3)]
    options = SpecOptions(code_image_size=32, vqgan_model_path=str(vqgan_file(tmp_path)))
    pictures = ImageScorer.of(options).render([read_codes(output["codes"]) for output in outputs])
    mean, covariance = feature_statistics(InceptionScorer(weights).features(pictures).features)
    mean[0] += 2
    np.savez(tmp_path / "real.npz", mu=mean, sigma=covariance)
    files = {"inception_model_path": str(weights), "fid_statistics": str(tmp_path / "real.npz")}
    spec, references = get_spec("image_gen"), [{"text": "x"}] * 3
    metrics, info = spec.whole_set(outputs, references, replace(options, **files))
    assert metrics["fid"] == pytest.approx(4, abs=0.05) and metrics["inception_score"] >= 1
    assert info["inception"]["sha256"] == file_hash(weights) and info["inception"]["images"] == 3
    assert info["inception"]["reference"] == "real.npz" and "no clip_model_path" in info["skipped"]
    assert spec.whole_set(outputs, references, options)[0] == {}


@needs_fidelity
def test_statistics_of_a_folder_stand_for_its_pictures(
    weights: Path, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from unival.cli import main
    from unival.cli.fid_statistics import readable
    from unival.datatools.codes import Pictures

    for path in files(folders[0])[:3]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken.png").write_bytes(path.read_bytes()[:60])
    out = tmp_path / "new/gt_stat.npz"
    words = [
        "data",
        "fid-statistics",
        str(tmp_path),
        "--out",
        str(out),
        "--inception-model-path",
        str(weights),
    ]
    assert main([*words, "--max-broken-share", "0.5"]) == 0
    said = capsys.readouterr()
    assert "statistics of 3 pictures" in said.out and "broken.png" in said.err
    mean, covariance = read_statistics(out)
    expected = feature_statistics(InceptionScorer(weights).features(files(folders[0])[:3]).features)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(covariance, expected[1], rtol=1e-4, atol=1e-6)
    about = json.loads((tmp_path / "new/gt_stat.npz.json").read_text())
    assert about["pictures"] == 3 and about["sha256"] == file_hash(weights) and len(about["unreadable"]) == 1
    with pytest.raises(DataError, match=r"broken\.png.*--max-broken-share"):
        list(readable(Pictures(str(tmp_path)), [], 0.0))
