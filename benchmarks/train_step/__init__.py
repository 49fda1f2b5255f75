"""Cases and programs of the train-step benchmark."""
