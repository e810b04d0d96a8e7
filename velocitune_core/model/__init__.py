"""The model: its folder, its tokenizer, its modules, its loss."""
