"""How fast each stage runs, measured one way and written one way."""
