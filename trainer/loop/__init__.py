"""The training loop: state, steps, optimizer, checkpoints, devices."""
