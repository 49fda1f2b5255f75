"""Reading of what a CelebA directory or bucket contains."""
