"""Experiment trackers side by side: an adapter for each, which runs in an environment of that tracker's own.

An adapter is a module with

- ``REQUIREMENTS``: what pip installs into its environment; empty for what the project's own has;
- ``Run(folder, name, rank)``: a run as a user opens it, offline, with its files below ``folder``; ``rank`` None where
  there is one process. ``log(value, step)`` logs one scalar, ``log_all(values, step)`` a step's worth of them,
  ``flush()`` returns when a reader finds what was logged (as far as the tracker can say so), ``close()`` ends the run;
  ``upload(path)``, where there is such a thing, gives a file to the run; ``log_to(series, value, step)`` logs one
  scalar of a series by its name, where ``log_all({series: value}, step)`` does not do that;
- ``read(folder, name)``: the values of a run as a reader of the tracker finds them, after whatever has happened to it;
- ``end(folder)``, where the tracker leaves something running: ends that.

It imports nothing of this project but, where it must, its own tracker: the environment has nothing else.
"""

LIMITS = ("oswrite", "jsonlines", "zeromq")
PEERS = ("wandb", "neptune", "mlflow", "trackio", "tensorboardx", "dvclive")
NAMES = ("dreamlake", *PEERS, *LIMITS)
