"""The run folder: its files, its records and their provenance."""

RUN = "run.json"
FLAGS = "flags.txt"
HISTORY = "history.csv"
BEST = "best.keras"
METRICS = "metrics.json"
PREDICTIONS = "predictions.csv"
VALIDATION_PREDICTIONS = "predictions-validation.csv"
