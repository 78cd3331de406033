"""What commands say at their end, as tables, files and charts.

Not here: computing any of it.
"""
