"""The formats that labels are exported in: one file and one entry in `formats.py` each."""
