"""State changes of photos: intake, processing, erasure, and the sweep of all three."""
