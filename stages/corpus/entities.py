"""Entities: what rows are about, so that nothing stands in two splits. Where no column names the entity of a row, its
text does, or the connected component of the texts that are paired in a source.
"""

import hashlib
from array import array
from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def text_entity(text: str) -> str:
    """Name a text, the same in every source that holds it, however it is spaced and capitalised."""
    # A text that cannot be encoded gets a name too; cleaning rejects it later.
    folded = " ".join(text.casefold().split()).encode(errors="backslashreplace")
    return hashlib.sha256(folded).hexdigest()[:16]


def smallest_connected(pairs: np.ndarray) -> np.ndarray:
    """Return for each pair of nodes [N, 2] the smallest node [N] that is connected to them through any pairs.

    Example:
        >>> smallest_connected(np.array([["b", "c"], ["x", "y"], ["a", "b"]])).tolist()
        ['a', 'x', 'a']
    """
    nodes, numbers = np.unique(pairs, return_inverse=True)
    left, right = numbers.reshape(-1, 2).T
    edges = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(len(nodes), len(nodes)))
    _, component = connected_components(edges, directed=False)
    smallest = np.unique(component, return_index=True)[1]  # nodes are sorted: the first of a component
    found: np.ndarray = nodes[smallest[component[left]]]
    return found


class Components:
    """Connected components of paired texts, held as two 64-bit numbers a pair."""

    def __init__(self) -> None:
        self._pairs = array("Q")

    def link(self, left: str, right: str) -> None:
        """Add a pair."""
        self._pairs.extend((int(text_entity(left), 16), int(text_entity(right), 16)))

    def names(self) -> Iterator[str]:
        """Yield the component of each pair in the order of linking, named by the smallest `text_entity` in it."""
        pairs = np.frombuffer(self._pairs, dtype=np.uint64).reshape(-1, 2)
        return (f"{name:016x}" for name in smallest_connected(pairs))
