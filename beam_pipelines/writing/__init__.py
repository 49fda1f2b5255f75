"""Writing of the planned shards with Beam, and their commit."""
