"""From text to batches: sources, documents, packed rows, sequences by domain and index."""
