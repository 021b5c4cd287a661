"""Tests of the rooms of ``ml``; they draw their own faces."""
