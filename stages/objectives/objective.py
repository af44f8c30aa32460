"""The interface between the training loop and a task: which texts a batch needs, and the losses of their embeddings.

Shapes: B rows of a batch, M texts of a batch, D student dimension.
"""

from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor, nn

from stages.modeling.encoder import Encoder
from stages.modeling.tokens import Tokens


class Objective(nn.Module, ABC):
    """A loss over rows of training data. The loop embeds the texts, in micro-batches and on several processes.

    Every parameter that requires a gradient is trained: those of the encoder, a projection, a temperature.
    """

    # The loss is a mean over rows, and a row is a single text: the loop may take it micro-batch by micro-batch.
    separable = False
    # `forward` also reads the embeddings of the frozen base model, with the adapter off.
    needs_base = False

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    @abstractmethod
    def texts(self, rows: np.ndarray) -> Tokens:
        """Return the token ids of the M texts that the loss of some rows [B] reads, in the order of `forward`."""

    @abstractmethod
    def forward(self, rows: np.ndarray, embeddings: Tensor, base: Tensor | None) -> dict[str, Tensor]:
        """Return named, weighted loss terms of rows [B]; the loop minimises their sum.

        Args:
            embeddings: unit embeddings [M, D] of the rows' texts.
            base: [M, D], those of the base model without gradients, where `needs_base`.
        """
