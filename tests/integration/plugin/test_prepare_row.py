"""One row, prepared: training's validation, evaluation, merging and the Python interface see the same media."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
import soundfile
import torch

from unival.data.dataset import DataSource, SpecDataset
from unival.evaluate.run import Evaluation, Settings, _Batches
from unival.merge.tables import examples
from unival.predict.inference import Inference
from unival.predict.request import Call
from unival.specs import SpecOptions, get_spec
from unival.tables import open_table
from unival.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Three clips of 40 frames, three sounds of a second, a table of each."""
    folder = tmp_path_factory.mktemp("rows")
    for number in range(3):
        with av.open(str(folder / f"{number}.mp4"), "w") as file:
            stream = file.add_stream("mpeg4", rate=10)
            stream.width = stream.height = 32
            for step in range(40):
                frame = np.full((32, 32, 3), 6 * step, np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            file.mux(stream.encode())
        wave = np.linspace(-1, 1, 16000, dtype=np.float32)
        soundfile.write(folder / f"{number}.wav", wave, 16000, subtype="FLOAT")
    for modality, ending in (("video", "mp4"), ("audio", "wav")):
        rows = [{"id": str(n), modality: f"{n}.{ending}", "caption": "a red circle"} for n in range(3)]
        (folder / f"{modality}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_random_choices_of_evaluation_act_everywhere_and_alike(world, modality, tmp_path):
    """They were refused in a run's validation and in merging's passes, where no generator was handed on."""
    vocabulary = Vocabulary.train(["a red circle"], 300)
    spec = get_spec("caption", modality)
    sizes = {"patch_frame_size": 32, "num_frames": 3, "sample_rate": 16000, "max_audio_len": 2000}
    chosen = {"video": {"eval_sample_type": "rand"}, "audio": {"eval_audio_crop": "rand"}}[modality]
    options, fixed = SpecOptions(**sizes, **chosen), SpecOptions(**sizes)
    table = open_table(str(world / f"{modality}.jsonl"), spec.fields)

    def validated(options):
        source = DataSource("valid", table, spec, table.loader(), options)
        items = SpecDataset([source], vocabulary, options.seed, training=False)
        for epoch in (1, 2):  # the same in every validation of a run
            yield [items[epoch, 0, row].examples[0][1].media for row in range(3)]

    first, second = validated(options)
    [still, _] = validated(fixed)
    evaluation = Evaluation(
        torch.nn.Identity(), vocabulary, spec, table, options, tmp_path / "e", {}, Settings()
    )
    _, batch, _ = _Batches(evaluation, [[0, 1, 2]])[(0, 0, 0)]
    merged = [example.media for example in examples(evaluation)]
    suffix = {"video": "mp4", "audio": "wav"}[modality]
    call = Call([str(world / f"{n}.{suffix}") for n in range(3)], {})
    used = call.batch(Inference(spec, options, vocabulary), [0, 1, 2])
    key = f"patch_{modality}s"
    for row in range(3):
        for other in (second, merged, batch["net_input"][key], used["net_input"][key]):
            assert torch.equal(first[row], other[row])
    assert not all(torch.equal(a, b) for a, b in zip(first, still, strict=True))
    assert not torch.equal(first[0], first[1])  # equal files, other frames: a choice per row
