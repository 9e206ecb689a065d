"""What is measured on a view of a network: errors, and how far predictions are from those on clean images.

Outputs and reference are tensors by label or letter, as `View.outputs` gives them; columns are the tasks of the view.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from headstrong.attacks.balancers import FLOOR
from headstrong.attacks.hidden import kept_classes, kept_values
from headstrong.folding import frozen
from headstrong.hidden_views import ClassView, DenseView, View
from headstrong.metrics import per_sample_errors

Outputs = Mapping[str, Tensor]


def errors(view: View, outputs: Outputs, batch: Any, *, error_pixels: str = "valid", miou: str = "labelled") -> Tensor:
    """Errors (B, T): the share, 0 to 1, of a task's labels told wrongly, or of dense tasks `headstrong.metrics`."""
    if isinstance(view, ClassView):
        wrong = {label: (found.argmax(dim=1) != batch.labels[label]).float() for label, found in outputs.items()}
        return view.by_task(wrong)
    how: Any = {"pixels": error_pixels, "miou": miou}
    return per_sample_errors(dict(outputs), batch, cast(DenseView, view).letters, **how)[0]


def units(view: View, outputs: Outputs, batch: Any) -> Tensor:
    """What a loss (B, T) is divided by where it is weighed against changes of predictions.

    outputs: of the clean images. The unit of classes is 1, of a dense task its loss on the clean image: losses of dense
    tasks differ by orders of magnitude.
    """
    if isinstance(view, ClassView):
        return torch.ones(len(batch.index), len(view.tasks), device=batch.images.device)
    return view.losses(outputs, batch).detach().clamp(min=FLOOR)


def changes(view: View, outputs: Outputs, reference: Outputs) -> Tensor:
    """How far predictions (B, T) are from those of a reference, differentiable; see `attacks.hidden`."""
    if isinstance(view, ClassView):
        return view.by_task({label: kept_classes(found.float(), reference[label]) for label, found in outputs.items()})
    columns = []
    for letter in cast(DenseView, view).letters:
        measure = kept_classes if letter == "s" else kept_values
        columns.append(measure(outputs[letter].float(), reference[letter].float()))
    return torch.stack(columns, dim=1)


def folded(view: View) -> View:
    """The same view with the network's batch norms folded into its convolutions, which is faster.

    Raises what `folding.fold_batch_norm` raises.
    """
    found = copy.copy(view)
    example = torch.full((1, 3, *view.size), 0.5, device=next(view.network.parameters()).device)
    found.network = frozen(view.network, example)
    return found
