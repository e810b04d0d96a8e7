"""Pure functions from a summarised comparison to matplotlib figures.

Apart from report/figures, so that the stage report does not depend on them. A strategy has the same colour and marker
in every figure; constant mixtures are grey, the stronger the more even.
"""
