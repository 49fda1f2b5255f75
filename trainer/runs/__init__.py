"""The run folder: its files, its records and their provenance."""
