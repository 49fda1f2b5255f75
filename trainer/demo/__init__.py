"""A page to try a model: `python -m trainer.demo --run_dir=RUN`."""
