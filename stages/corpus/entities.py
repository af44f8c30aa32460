"""Entities, which keep rows about the same thing in one split. Where no column names the entity of a row, its text
does, or the connected component of the texts that a source pairs.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stages.corpus.normalisation import folded, normalise


def text_entity(text: str) -> str:
    """Name a text, the same in every source that holds it, however it is spaced, capitalised and encoded."""
    # A text that cannot be encoded gets a name too; cleaning rejects it later.
    return hashlib.sha256(folded(normalise(text)).encode(errors="backslashreplace")).hexdigest()[:16]


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


def component_names(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Name each pair of texts, in order, by the smallest `text_entity` in its connected component.

    In memory a pair is two 64-bit numbers, whatever the length of its texts.
    """
    entities = array("Q", (int(text_entity(text), 16) for pair in pairs for text in pair))
    numbers = np.frombuffer(entities, dtype=np.uint64).reshape(-1, 2)
    return (f"{name:016x}" for name in smallest_connected(numbers))
