"""Where galleries are kept: one module a store (`*_store.py`), one line of `registry.STORES` each."""
