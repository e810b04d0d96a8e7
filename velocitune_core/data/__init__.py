"""Text to batches: sources, documents, packed rows, batches."""
