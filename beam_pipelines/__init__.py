"""The writer: an Apache Beam job from a CelebA folder to sharded TFRecords."""

import logging

# Importing Beam without its Google Cloud extra warns of a client that is not needed.
logging.getLogger().addFilter(lambda record: "apitools" not in record.getMessage())
