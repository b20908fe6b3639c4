"""redis-py's own tests, run through hatopo and compared, test by test, with redis-py itself.

`python -m tests.conformance` does it by hand, test_conformance.py within pytest. The tests are those of
redis-py's source distribution, fetched by pip when they are needed and kept in `.cache/`; none of them is in
this repository.
"""
