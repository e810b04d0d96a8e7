"""The model: its folder, its tokenizer, its loss."""
