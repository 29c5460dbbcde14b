"""Train one model on several processes; all of them, and the workers that load their data, write into one session.

    torchrun --standalone --nproc-per-node 4 docs/examples/ddp.py [FOLDER]

A small network learns which points of a square lie in a disc, with DistributedDataParallel on the processor (gloo).
Every rank makes the same `Session(...)` call: there is one session, `examples/ddp`, and each row says which rank wrote
it. Run again, or restarted by `torchrun --max-restarts`, it goes on from the last checkpoint, in the same session.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler, get_worker_info

from dreamlake import Session

EPOCHS, BATCH, SAMPLES, LEARNING_RATE = 4, 16, 512, 0.03


class Disc(Dataset[tuple[Tensor, Tensor]]):
    """Points of a square, and whether each lies in the disc inside it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.points = torch.rand(SAMPLES, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        worker = get_worker_info()  # the workers of the loader write into the session like anybody
        self.session.track("loaded").append(sample=number, worker=worker.id if worker else None)
        point = self.points[number]
        return point, (point.norm() < 0.8).long()


def train(session: Session, folder: Path) -> None:
    torch.manual_seed(0)
    data = Disc(session)
    sampler: DistributedSampler[tuple[Tensor, Tensor]] = DistributedSampler(data)
    loader = DataLoader(data, BATCH, sampler=sampler, num_workers=2)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2)))
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    checkpoint = folder / "checkpoint.pt"
    begin = 0
    if checkpoint.exists():
        stored = torch.load(checkpoint)
        model.load_state_dict(stored["model"])
        optimizer.load_state_dict(stored["optimizer"])
        begin = stored["epoch"] + 1
        session.log("resumed", epoch=begin)

    session.parameters().set(epochs=EPOCHS, batch=BATCH, learning_rate=LEARNING_RATE)  # alike on all ranks: kept once
    for epoch in range(begin, EPOCHS):
        sampler.set_epoch(epoch)
        for step, (points, inside) in enumerate(loader):
            loss = nn.functional.cross_entropy(model(points), inside)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            session.track("loss").append(value=loss, epoch=epoch, step=epoch * len(loader) + step)
        session.log("epoch done", epoch=epoch, weights=sum(weight.sum() for weight in model.parameters()))
        if session.is_main:
            written = checkpoint.with_suffix(".new")
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}, written)
            os.replace(written, checkpoint)
            session.files().upload(str(checkpoint), path="/checkpoints")
        torch.distributed.barrier()  # nobody begins the next epoch before this one is kept


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "dreamlake-ddp")
    folder.mkdir(parents=True, exist_ok=True)
    torch.distributed.init_process_group("gloo")
    with Session(name="ddp", workspace="examples", local_path=folder, tags=["ddp"]) as session:
        train(session, folder)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
