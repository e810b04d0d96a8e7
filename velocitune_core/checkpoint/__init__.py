"""What a run saves: its state, the store, the writer in the background."""
