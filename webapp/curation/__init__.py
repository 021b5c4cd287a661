"""Labels that deserve trust: queue, claims, corrections, consensus, quality."""
