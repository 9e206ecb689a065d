"""The rolling checkpoint of one training run: everything needed to go on with the same bits after a kill.

One safetensors file (no pickle) with weights, optimiser state, random states and losses, and a JSON description with
epoch, step and history. It carries the digest of the run's configuration and is used by no other.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstrong.errors import BrokenFileError
from headstrong.models.store import read_tensors, write_tensors
from headstrong.provenance import partial_of, settings_json

FORMAT = "headstrong-checkpoint-1"
log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a run is: `epoch` epochs are done, and `step` steps of the next one.

    losses: (steps per epoch, columns) on the computing device, batch-mean losses of this epoch's steps so far, in the
    run's columns. known: bool, the same shape, False where no image of the step's batch had a label for the task.
    history: one row per epoch done: epoch, learning rate, mean of each column over the steps where it is known.
    """

    losses: Tensor
    known: Tensor
    epoch: int = 0
    step: int = 0
    history: list[list[float]] = field(default_factory=list)


class Termination:
    """Holds SIGTERM and SIGINT back while a run does what must not be cut short: `with Termination() as termination`.

    Schedulers send SIGTERM some seconds before they kill; Ctrl-C sends SIGINT. `asked`: the signal that came, 0 without
    one. It is passed on to whoever handled it before, at `obey` or at the end of the block. A second Ctrl-C is passed
    on at once. A signal that is ignored (nohup, a shell in the background) stays ignored. Only the main thread can hold
    signals back; elsewhere they work as ever.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Termination:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if (before := signal.getsignal(number)) is not signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
        if self.asked:
            number, self.asked = self.asked, 0
            signal.raise_signal(number)

    def obey(self) -> None:
        """Pass the signal on now, if one came; this ends the process unless someone handles it."""
        if self.asked:
            self.__exit__()

    def _note(self, number: int, _: object) -> None:
        again = self.asked and number == signal.SIGINT
        self.asked = number
        if again:
            self.obey()


def configuration_digest(**settings: Any) -> str:
    """Digest of all that decides the bits of a run."""
    return hashlib.sha256(settings_json(settings).encode()).hexdigest()[:16]


class RollingCheckpoint:
    """The one checkpoint of a run at `path`, replaced every `minutes` (0: whenever asked), used only by `digest`.

    `kept` are the files with the weights after some epochs, which the run writes beside the checkpoint. Within
    `with rolling:` SIGTERM and SIGINT wait for the next checkpoint, so that an interrupted run loses nothing.
    """

    def __init__(
        self,
        path: Path,
        digest: str,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        *,
        minutes: float,
        kept: dict[int, Path],
    ) -> None:
        self.path, self.digest = path, digest
        self.model, self.optimizer, self.progress = model, optimizer, progress
        self.minutes, self.kept = minutes, kept
        self._saved = time.monotonic()
        self._termination = Termination()

    def __enter__(self) -> RollingCheckpoint:
        self._termination.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._termination.__exit__()

    def due(self) -> bool:
        """Whether the last one is old enough, or a signal waits for a new one."""
        return bool(self._termination.asked) or time.monotonic() - self._saved >= 60 * self.minutes

    def save(self) -> None:
        """Write the run as it is now in place of the last checkpoint, atomically; then obey a signal that waited."""
        progress = self.progress
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items() if value is not None}
        tensors |= {name: getattr(progress, name)[: progress.step] for name in ("losses", "known")}
        tensors["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        description = {
            "format": FORMAT,
            "digest": self.digest,
            "epoch": progress.epoch,
            "step": progress.step,
            "history": progress.history,
        }
        write_tensors(self.path, tensors, description)
        self._saved = time.monotonic()
        if self._termination.asked:
            done = (signal.Signals(self._termination.asked).name, progress.epoch, progress.step)
            log.info("%s after %d epochs and %d steps: %s holds them", *done, self.path)
        self._termination.obey()

    def restore(self) -> bool:
        """Bring model, optimiser and progress to where the checkpoint was; False, with nothing changed, without one.

        A checkpoint that is damaged, of another configuration, or without the weights it kept, is left over from
        earlier: it is named in one line of the log and not used.
        """
        if not self.path.is_file():
            return False
        try:
            tensors, description = read_tensors(self.path)
        except BrokenFileError:
            return self._unusable("is damaged")
        if description.get("format") != FORMAT or description.get("digest") != self.digest:
            return self._unusable("is of another configuration, data, code or device")
        progress = self.progress
        if any(epoch <= description["epoch"] and not file.is_file() for epoch, file in self.kept.items()):
            return self._unusable("has lost the weights kept beside it")
        self.model.load_state_dict(_under("model.", tensors))
        _restore_optimizer(self.optimizer, _under("optimizer.", tensors))
        progress.epoch, progress.step = description["epoch"], description["step"]
        progress.history = description["history"]
        for name in ("losses", "known"):
            getattr(progress, name)[: progress.step] = tensors[name]
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
        return True

    def remove(self) -> None:
        """Remove the checkpoint and what was kept beside it, and their folder when nothing else is in it."""
        for path in (self.path, *self.kept.values()):
            path.unlink(missing_ok=True)
            partial_of(path).unlink(missing_ok=True)  # of a run that was killed while it wrote
        with contextlib.suppress(OSError):  # absent, or it holds what is not ours
            self.path.parent.rmdir()

    def _unusable(self, reason: str) -> bool:
        log.warning("starting from scratch: checkpoint %s %s", self.path, reason)
        return False


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:  # in the parameter's memory layout, as it was
            value = torch.empty_like(parameter, device="cpu").copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
