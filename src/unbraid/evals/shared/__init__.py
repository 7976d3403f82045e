"""The parts that evals share."""
