"""Metrics and statistics, without TensorFlow and matplotlib."""
