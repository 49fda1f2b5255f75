"""The contract between the writer (`beam_pipelines`) and the reader (`trainer`)."""
