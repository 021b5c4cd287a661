"""State changes of training: data sets, runs, promotion, shadow, drift."""
