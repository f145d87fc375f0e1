"""How a model is sharded over ranks."""
