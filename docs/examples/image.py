"""Images: caption, question, box, statement.   python docs/examples/image.py CHECKPOINT IMAGE [BPE_DIR]"""

import sys

import unival

checkpoint, image, *bpe_dir = sys.argv[1:]
model = unival.load(checkpoint, bpe_dir=bpe_dir[0] if bpe_dir else None)

print(model.caption(image))
print(model.answer(image, "what colour is it?", answers=["red", "green", "blue"]).distribution)
found = model.ground(image, "the circle")
print(found.box)
found.draw().save("box.png")
print(model.entails(image, "there is a circle"))
