"""Steps 1 to 4: references sampled, segmented, encoded, averaged. Labeling with them is not here."""
