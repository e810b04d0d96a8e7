"""What a run shows: MLflow, Prefect, the terminal."""
