"""Tests of the archive; what they share is imported by name."""
