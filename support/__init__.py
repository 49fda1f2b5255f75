"""What both programs need and nothing more. Imports nothing of this project."""
