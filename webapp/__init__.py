"""The site: apps that import downwards only, and the wiring in ``config``."""
