"""Reports, plots, galleries and the model card."""
