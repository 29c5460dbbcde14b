"""Train on four processes, write into one session, kill one of the four, and account for every call.

Four networks learn scikit-learn's handwritten digits, each on its own resample of the training set (bagging)
and in a process of its own. All of them write into the session `demo/digits`. In the middle one is killed
with SIGKILL; the others carry on. At the end the plain files of the session are held against what the
processes noted down, outside of Dreamlake, after each call that returned.

    make demo            # or: .venv/bin/python docs/examples/digits.py [FOLDER]
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from accounting import account, calls_noted, calls_on_disk, json_file, notebook, whole_lines
from dreamlake import Session

RANKS, VICTIM = 4, 2
EPOCHS, BATCH, HIDDEN, LEARNING_RATE = 25, 8, 512, 0.05
MARKER = "made-by-the-digits-demo"
WAIT_SECONDS = 30.0

Arrays = dict[str, np.ndarray]


def train(rank: int, digits: Arrays, folder: Path) -> None:
    """One worker process: open the session by its name, train, write."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(RANKS))  # as torchrun and its like do
    rng = np.random.default_rng(rank)
    net, sample = new_network(rng), rng.integers(0, len(digits["y"]), len(digits["y"]))
    returned = notebook(folder / "returned-calls", rank)

    with Session(name="digits", workspace="demo", local_path=str(folder)) as session:
        session.parameters().set({f"rank{rank}": {"seed": rank}})
        returned("parameters", f"rank{rank}.seed")
        step = 0
        for epoch in range(EPOCHS):
            for batch in np.array_split(rng.permutation(sample), len(sample) // BATCH):
                loss = learn(net, digits["x"][batch], digits["y"][batch])
                session.track("loss").append(value=loss, step=step, rank=rank)
                returned("points", step)
                step += 1
            right = forward(net, digits["test_x"])[1].argmax(1) == digits["test_y"]
            session.log(f"epoch {epoch} done", rank=rank, epoch=epoch, accuracy=float(right.mean()))
            returned("logs", epoch)
            checkpoint = folder / "scratch" / f"rank{rank}-epoch{epoch:02}.npz"
            np.savez(checkpoint, **net)
            session.files().upload(str(checkpoint), path="/checkpoints")
            checkpoint.unlink()  # upload() has captured the bytes: the file may go at once
            returned("files", checkpoint.name)


def train_and_kill_one(digits: Arrays, folder: Path) -> list[int | None]:
    """Run the workers, kill the victim half-way, wait for the rest; their exit codes."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one core is enough for each
    spawn = multiprocessing.get_context("spawn")
    workers: list[BaseProcess] = []
    try:
        for rank in range(RANKS):
            workers.append(spawn.Process(target=train, args=(rank, digits, folder), name=f"rank {rank}"))
            workers[-1].start()
        steps = EPOCHS * (len(digits["y"]) // BATCH)
        with progress(RANKS * steps) as show:
            while any(worker.is_alive() for worker in workers):
                time.sleep(0.05)
                calls = calls_noted(folder / "returned-calls")
                show(sum(len(calls["points", rank]) for rank in range(RANKS)))
                if workers[VICTIM].is_alive() and len(calls["points", VICTIM]) > steps / 2:
                    workers[VICTIM].kill()
                    workers[VICTIM].join()
                    print(f"rank {VICTIM} killed with SIGKILL; the others carry on", flush=True)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    return [worker.exitcode for worker in workers]


def read_digits() -> Arrays:
    from sklearn.datasets import load_digits  # slow to import, and the workers do not need it

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = x[order] / 16, y[order]
    return {"x": x[360:], "y": y[360:], "test_x": x[:360], "test_y": y[:360]}


def new_network(rng: np.random.Generator) -> Arrays:
    """One hidden layer of rectified units, then softmax."""
    w1, w2 = rng.normal(0, 1 / 8, (64, HIDDEN)), rng.normal(0, HIDDEN**-0.5, (HIDDEN, 10))
    return {"w1": w1, "b1": np.zeros(HIDDEN), "w2": w2, "b2": np.zeros(10)}


def forward(net: Arrays, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hidden layer, and the probability of each digit."""
    hidden = np.maximum(x @ net["w1"] + net["b1"], 0)
    scores = hidden @ net["w2"] + net["b2"]
    odds = np.exp(scores - scores.max(1, keepdims=True))
    return hidden, odds / odds.sum(1, keepdims=True)


def learn(net: Arrays, x: np.ndarray, y: np.ndarray) -> float:
    """One step of gradient descent, in place; returns the mean loss of the batch."""
    hidden, slope = forward(net, x)
    of_the_truth = (np.arange(len(y)), y)
    loss = -np.log(slope[of_the_truth] + 1e-12).mean()
    slope[of_the_truth] -= 1
    slope *= LEARNING_RATE / len(y)
    back = (slope @ net["w2"].T) * (hidden > 0)
    net["w2"] -= hidden.T @ slope
    net["b2"] -= slope.sum(0)
    net["w1"] -= x.T @ back
    net["b1"] -= back.sum(0)
    return float(loss)


def vote(directory: Path, digits: Arrays) -> float:
    """The last checkpoints of all ranks vote on the unseen digits; the share they get right."""
    newest = {path.name[:5]: path for path in sorted((directory / "files/checkpoints").glob("*.npz"))}
    votes = sum(forward(dict(np.load(path)), digits["test_x"])[1] for path in newest.values())
    return float((np.argmax(votes, axis=1) == digits["test_y"]).mean())


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere a line at every quarter."""
    if sys.stdout.isatty():
        from rich.progress import Progress

        with Progress() as bar:
            task = bar.add_task("points returned", total=total)
            yield lambda done: bar.update(task, completed=done)
    else:
        quarters = 0

        def show(done: int) -> None:
            nonlocal quarters
            if done * 4 // total > quarters:
                quarters = done * 4 // total
                print(f"{done} of {total} points returned", flush=True)

        yield show


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when it holds, or after `WAIT_SECONDS`."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)


def print_tree(folder: Path, indent: str = "") -> None:
    entries = sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name))
    shown = entries if len(entries) <= 8 else entries[:4]
    for path in shown:
        if path.name == ".dreamlake":
            print(f"{indent}.dreamlake/  (the agent's own)")
        elif path.is_dir():
            print(f"{indent}{path.name}/")
            print_tree(path, indent + "    ")
        else:
            print(f"{indent}{path.name}  {path.stat().st_size:,} bytes")
    if len(shown) < len(entries):
        print(f"{indent}... and {len(entries) - len(shown)} more")


def print_ends(path: Path) -> None:
    lines = whole_lines(path)
    print(f"{path.name}: {len(lines):,} lines")
    for line in lines[:1] + lines[-1:]:
        print("    " + (line if len(line) <= 110 else line[:107] + "..."))


def prepare(folder: Path) -> None:
    """An empty folder. One with files in it that this demo did not make is left alone."""
    if folder.exists():
        if any(folder.iterdir()) and not (folder / MARKER).exists():
            sys.exit(f"{folder} holds files that this demo did not make. Name another folder, or remove it.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
    (folder / "returned-calls").mkdir()
    (folder / "scratch").mkdir()


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "dreamlake-demo")
    directory = folder / "demo" / "digits"
    prepare(folder)
    digits = read_digits()
    print(f"{RANKS} processes train on {len(digits['y'])} images of digits and write into {directory}")

    with Session(name="digits", workspace="demo", local_path=str(folder), tags=["demo"]) as session:
        session.parameters().set(epochs=EPOCHS, batch=BATCH, hidden=HIDDEN, learning_rate=LEARNING_RATE)
        session.log("training started", workers=RANKS)
        exit_codes = train_and_kill_one(digits, folder)
        session.log("training done", exit_codes=exit_codes)
        session.flush()
        noted = calls_noted(folder / "returned-calls")
        # flush() speaks for this process only. What the dead worker left in its journal, the agent applies.
        wait_until(lambda: account(noted, calls_on_disk(directory), VICTIM)[1])
    wait_until(lambda: json_file(directory / "session.json").get("state") != "running")

    table, adds_up = account(noted, calls_on_disk(directory), VICTIM)
    as_planned = exit_codes == [-signal.SIGKILL if rank == VICTIM else 0 for rank in range(RANKS)]
    shutil.rmtree(folder / "scratch")

    print()
    print_tree(folder)
    print()
    print_ends(directory / "logs/logs.jsonl")
    print_ends(directory / "tracks/loss/data.jsonl")
    print(f"state: {json_file(directory / 'session.json').get('state')}")
    if adds_up:
        print(f"unseen digits that the last checkpoints get right by vote: {vote(directory, digits):.1%}")
    print()
    print(*table, sep="\n")
    print('("cut off": safe, but the kill came before the worker could note that its call had returned)')
    print("Every returned call is accounted for." if adds_up else "THE COUNTS DO NOT ADD UP.")
    if not as_planned:
        print(f"The workers did not end as planned: exit codes {exit_codes}.")
    command = os.path.relpath(Path(sys.executable).with_name("dreamlake"))
    print(f"\nTo look: {command} show {directory}\n         {command} agent status")
    return 0 if adds_up and as_planned else 1


if __name__ == "__main__":
    sys.exit(main())
