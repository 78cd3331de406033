"""Tests of the whole: kills, crashes, damaged stores, bad input, S3, the service, and the original's numbers."""
