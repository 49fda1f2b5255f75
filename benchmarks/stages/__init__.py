"""The breakdown of a training run into stages."""
