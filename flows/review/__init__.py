"""The review page: a server on this machine, at which people decide on the instances of a store's labels.

`session.py` holds what is decided, `queue.py` what comes next, `views.py` what the page is told of both, `guard.py` who
may ask, `server.py` the addresses, and `page/` what the browser shows. Not here: decisions in the store
(`tasks/store/reviews.py`), and what they mean (`refseg_core/analysis/decisions.py`).
"""
