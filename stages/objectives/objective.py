"""What a phase minimises, as the engine sees it: which texts a batch needs, and named losses of their embeddings.

Shapes: B rows of a batch, M texts of a batch, D student dimension.
"""

from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor, nn

from stages.modeling.encoder import Encoder
from stages.modeling.tokens import Tokens


class Objective(nn.Module, ABC):
    """A loss over rows of training data. The engine embeds the texts, in the pieces and on the processes it sees fit.

    Whatever of it requires a gradient is trained: the encoder, a projection, a temperature.
    """

    # The loss is a mean over rows and a row is one text: a large batch may go through piece by piece.
    separable = False
    # `forward` also reads the embeddings of the frozen base, the adapter off.
    needs_base = False

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    @abstractmethod
    def texts(self, rows: np.ndarray) -> Tokens:
        """Token ids of the M texts that the loss of some rows [B] reads, in the order of `forward`."""

    @abstractmethod
    def forward(self, rows: np.ndarray, embeddings: Tensor, base: Tensor | None) -> dict[str, Tensor]:
        """Named, weighted loss terms of rows [B] from unit embeddings [M, D] of their texts; their sum is minimised.

        `base` [M, D] are the base model's embeddings where `needs_base`, without gradients, else None.
        """
