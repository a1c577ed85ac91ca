"""Text-to-image: image codes and back (VQGAN), similarity of pictures and texts (CLIP), files of pictures."""
