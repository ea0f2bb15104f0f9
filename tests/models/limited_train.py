"""``models.neural.train`` where one process runs out of memory over so many tokens, as a GPU would.

``TOUCHSTONE_TEST_LIMIT=rank:tokens`` of the environment says which one, and how many.
"""

from __future__ import annotations

import os
import sys

import torch

from models.neural import train
from models.neural.loop import Trainer

load = Trainer.load


def limited(trainer: Trainer) -> None:
    load(trainer)
    rank, most = map(int, os.environ["TOUCHSTONE_TEST_LIMIT"].split(":"))

    def refuse(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].numel() > most and trainer.team.rank == rank:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    trainer.backbone.module.get_input_embeddings().register_forward_pre_hook(refuse)


if __name__ == "__main__":
    Trainer.load = limited
    sys.exit(train.main())
