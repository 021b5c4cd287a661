"""Data sets, training runs, the gate: how labels become a model, or an honest "no"."""
