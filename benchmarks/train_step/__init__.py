"""Cases and workers of the train-step benchmark."""
