"""Reading of what a CelebA folder or bucket contains."""
