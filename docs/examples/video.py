"""Videos: caption and question, several files at once.   python docs/examples/video.py CHECKPOINT VIDEO..."""

import sys

import unival

checkpoint, *videos = sys.argv[1:]
model = unival.load(checkpoint, num_frames=8)  # eight frames from all over each clip

for name, caption in zip(videos, model.caption(videos), strict=True):
    print(f"{name}: {caption} (log-probability {caption.log_prob:.2f})")
for answer in model.answer(videos, "where does it move?", n_best=2):
    print(answer.n_best)
