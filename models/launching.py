"""Several processes for one training: what ``accelerate launch`` is told to start.

Free of torch. The file that says so, ``accelerate.json``, lies in the run's folder.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.backbones import split_backbone
from models.workdir import write_json

if TYPE_CHECKING:
    from models.training import TrainingConfig

LAUNCH: Final = "accelerate.json"
SHARED: Final = frozenset({"hf"})  # backbones that several devices train; others need seconds
# The table that torch's launcher leaves about the process that failed first.
EXIT_CODE: Final = re.compile(r"^\s*exitcode\s*:\s*(-?\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Launch:
    """So many processes, one per device. ``is_sharded``: each holds a share of the model (FSDP),
    else each holds all of it (DDP)."""

    processes: int
    is_sharded: bool = True

    def command(self, folder: Path) -> list[str]:
        """What starts them on a run's folder; writes the file that it reads."""
        config = folder / LAUNCH
        write_json(config, self.config())
        accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
        return [*accelerate, str(config), "-m", "models.neural.train", "--launched"]

    def config(self) -> dict[str, Any]:
        """As ``accelerate config`` would write it."""
        kind: dict[str, Any] = {"distributed_type": "MULTI_GPU"}
        if self.is_sharded:
            kind = {"distributed_type": "FSDP", "fsdp_config": FSDP}
        return {
            "compute_environment": "LOCAL_MACHINE",
            "debug": False,
            "downcast_bf16": "no",
            "enable_cpu_affinity": False,
            "machine_rank": 0,
            "main_process_port": 0,  # any that is free
            "main_training_function": "main",
            "mixed_precision": "no",  # autocast is up to the backbone
            "num_machines": 1,
            "num_processes": self.processes,
            "rdzv_backend": "static",
            "same_network": True,
            "use_cpu": False,  # without GPUs the same launcher is used, and processes speak gloo
            **kind,
        }


FSDP: Final = {
    "fsdp_version": 2,
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_cpu_ram_efficient_loading": False,
    "fsdp_offload_params": False,
    "fsdp_reshard_after_forward": True,
    "fsdp_state_dict_type": "FULL_STATE_DICT",
}


def launch_of(config: TrainingConfig, *, devices: int) -> Launch | None:
    """How to start a training where there are so many devices; None for one process."""
    asked = config.devices or devices
    processes = min(asked, devices)
    key, _ = split_backbone(config.backbone)
    if processes < 2 or key not in SHARED or config.members > 1:
        return None
    return Launch(processes, is_sharded=config.sharding == "full")


def exit_code(stderr: str) -> int | None:
    """That of the process that failed first, as the launcher told; negative is a signal."""
    found = EXIT_CODE.findall(stderr)
    return int(found[-1]) if found else None
