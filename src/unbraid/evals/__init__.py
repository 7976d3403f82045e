"""Evals: functions from a run to scores, one file each."""
