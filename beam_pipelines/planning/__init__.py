"""Planning of the dataset on metadata alone: no Beam, no pixels."""
