"""Report: stored scores in, one HTML file out. It computes nothing but means and intervals."""

from unbraid.comparison.stored_scores import collect, scores_json
from unbraid.report.page import write_report

__all__ = ["collect", "scores_json", "write_report"]
