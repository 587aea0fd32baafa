"""Pauses Python's garbage collection; the first thing that the fork server imports.

Of what imports make nothing is garbage, and looking for some takes a quarter of their time. The one
module whose import has an effect: a list of modules is all that Python's fork server takes. Workers
collect again (`worker_process`).
"""

import gc

gc.disable()
