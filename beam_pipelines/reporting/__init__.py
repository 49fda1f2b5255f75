"""The build's report, charts and TFDS sidecars."""
