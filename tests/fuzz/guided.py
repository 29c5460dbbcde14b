"""``python -m tests.fuzz.guided TARGET [libFuzzer's options]``: one target under atheris, which sees what the shipped
code does with an input and goes on from those that make it do something new."""

from __future__ import annotations

import logging
import sys
from random import Random

import atheris

with atheris.instrument_imports(include=["dreamlake", "dreamlake_agent"]):
    from tests.fuzz.choices import Choices
    from tests.fuzz.limits import limited
    from tests.fuzz.seeds import varied
    from tests.fuzz.targets import TARGETS


def main() -> None:
    logging.disable(logging.CRITICAL)
    name = sys.argv.pop(1)
    target = TARGETS[name]

    def one_input(data: bytes) -> None:
        with limited():
            target(data)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        """Every other time as libFuzzer would, else one that knows what the bytes say."""
        random = Random(seed)
        if random.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        return varied(name, Choices(random.randbytes(60)), bytes(data))[:most]

    atheris.Setup(sys.argv, one_input, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
