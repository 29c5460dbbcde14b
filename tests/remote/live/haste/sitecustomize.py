"""An agent in haste, for whom PYTHONPATH names this folder: it waits shorter, so that more happens in a minute."""

from dreamlake import config

config.CHECKPOINT_REMOTE_SECONDS = 0.5
config.UPLOAD_RETRY_SECONDS = (0.1, 1.0)
