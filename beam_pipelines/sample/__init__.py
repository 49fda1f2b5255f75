"""Synthetic faces and their attributes."""
