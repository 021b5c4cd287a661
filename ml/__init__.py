"""Everything that knows about faces and networks, and nothing about the web.

The rooms of ``ml`` never import Django, and what serves (``images``,
``detection``, ``preprocessing``, ``inference``, ``quality``) never imports torch:
``make check`` proves both.
"""
