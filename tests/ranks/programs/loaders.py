"""One training whose loader's workers write into its session: loaders.py ROOT METHOD WORKERS FATAL STOP. A worker that
comes to the sample FATAL is killed, the process STOP is stopped once the session is open; for neither, -1."""

from __future__ import annotations

import os
import signal
import sys

from torch.utils.data import DataLoader, Dataset

from dreamlake import Session


class Numbers(Dataset[int]):
    def __init__(self, session: Session, fatal: int) -> None:
        self.track, self.fatal = session.track("loaded"), fatal

    def __len__(self) -> int:
        return 64

    def __getitem__(self, number: int) -> int:
        self.track.append(value=number, pid=os.getpid())
        if number == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return number


def main() -> None:
    root, method, workers, fatal, stop = sys.argv[1:]
    with Session("run", "project", local_path=root) as session:
        loader = DataLoader(
            Numbers(session, int(fatal)),
            batch_size=8,
            num_workers=int(workers),
            multiprocessing_context=method,
            persistent_workers=True,
        )
        if int(stop) > 0:
            os.kill(int(stop), signal.SIGSTOP)
        for epoch in range(2):
            for batch in loader:
                session.track("loss").append(value=batch.sum(), epoch=epoch)
        processes = loader._iterator._workers
        del loader  # joins its workers, and ends by SIGTERM who is not gone after 5 s
        print([process.exitcode for process in processes])


if __name__ == "__main__":
    main()
