"""What an evaluation looks like: a table of scores, a page of pictures, loss curves."""

from unival.report.page import write_report
from unival.report.scores import Result, read_result, score_table

__all__ = ["Result", "read_result", "score_table", "write_report"]
