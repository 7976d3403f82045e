"""The report: stored scores in, one HTML file out. It computes nothing but means and intervals."""

from unbraid.report.page import write_report
from unbraid.report.rows import collect, scores_json

__all__ = ["collect", "scores_json", "write_report"]
