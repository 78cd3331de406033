"""What the review page shows of a store: which instances there are, in which order, and pictures of them.

Not here: the page and its server (`flows/review/`), and decisions in the store (`tasks/store/reviews.py`).
"""

REVIEW_PORT = 8100  # of the page on the machine of who reviews, unless they choose another
