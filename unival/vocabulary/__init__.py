"""Texts, boxes and image codes as tokens: the vocabulary, its BPE, prompts, cleaning of texts."""

from unival.vocabulary.vocabulary import SPECIALS, Vocabulary

__all__ = ["SPECIALS", "Vocabulary"]
