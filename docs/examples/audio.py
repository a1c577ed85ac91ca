"""Sounds: caption a file, an array, and the sound of a video.   python docs/examples/audio.py CHECKPOINT SOUND"""

import sys

import numpy as np

import unival

checkpoint, sound = sys.argv[1:]
model = unival.load(checkpoint)

print(model.caption(sound, modality="audio"))
rate = model.options.sample_rate
tone = np.sin(np.arange(rate, dtype=np.float32) * 2 * np.pi * 440 / rate)
print(model.caption((tone, rate)))
print(model.info["audio"])  # which part of a long sound is heard
