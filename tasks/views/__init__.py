"""Views of runs and results: MLflow, Prefect, the terminal."""
