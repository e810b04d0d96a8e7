"""What lies in `runs/`, and what of it no run of the present settings needs: `python -m flows.clean`."""
