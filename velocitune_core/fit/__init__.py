"""From a table of finished runs to domain weights, without any training: `velocitune fit`."""
