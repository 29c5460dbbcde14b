"""A node whose clock is wrong, for whom PYTHONPATH names this folder; its agent sends in haste."""

import os
import time

_true, _ns = time.time_ns, round(float(os.environ["DREAMLAKE_TEST_SKEW"]) * 1e9)
time.time_ns = lambda: _true() + _ns
time.time = lambda: (_true() + _ns) / 1e9

from dreamlake import config  # noqa: E402  (it takes the clock)

config.CHECKPOINT_REMOTE_SECONDS = 0.5
config.UPLOAD_RETRY_SECONDS = (0.1, 1.0)
