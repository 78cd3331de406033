"""Steps 1 to 4: references sampled, segmented, encoded, averaged. Not here: labeling with them."""
