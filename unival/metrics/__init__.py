"""Evaluation metrics: the official scores, computed without Java unless METEOR or SPICE is asked for."""

from .accuracy import accuracy
from .answers import soft_answer_accuracy
from .caption import caption_scores
from .cider import cider_d
from .grounding import box_accuracy, box_iou
from .result import CaptionScores, Scores
from .tokenizer import ptb_tokenize

__all__ = [
    "CaptionScores",
    "Scores",
    "accuracy",
    "box_accuracy",
    "box_iou",
    "caption_scores",
    "cider_d",
    "ptb_tokenize",
    "soft_answer_accuracy",
]
