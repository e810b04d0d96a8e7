"""Strategies side by side: what each run reached, error bars over seeds, verdicts, tables, figures, one page."""
