"""What commands say at their end, as tables, files and charts.

Not here: finding out what there is to say.
"""
