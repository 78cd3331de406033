"""What `batch_labeler.py` composes labels of: what models are asked, and what is chosen from their answers."""
