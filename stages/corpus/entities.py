"""What a row is about, so that nothing stands in two splits: where no title says it, its text or the texts it meets."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator

import numpy as np


def text_entity(text: str) -> str:
    """A name for a text, the same in every source that holds it, however it is spaced and capitalised."""
    # A text that cannot be encoded has a name too; cleaning rejects it later.
    folded = " ".join(text.casefold().split()).encode(errors="backslashreplace")
    return hashlib.sha256(folded).hexdigest()[:16]


def components(edges: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The connected component of each node, named by its alphabetically first node (union-find)."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for left, right in edges:
        first, second = sorted((root(left), root(right)))
        parent[second] = first
    return {node: root(node) for node in parent}


class Components:
    """The connected components of texts that meet in pairs, of more pairs than texts would fit in memory."""

    def __init__(self) -> None:
        self._pairs = array("Q")  # two numbers a pair: `text_entity` of each text

    def link(self, left: str, right: str) -> None:
        """Two texts meet."""
        self._pairs.extend((int(text_entity(left), 16), int(text_entity(right), 16)))

    def names(self) -> Iterator[str]:
        """The component of each pair, in the order of linking, named by the smallest `text_entity` in it."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        texts, nodes = np.unique(np.frombuffer(self._pairs, dtype=np.uint64), return_inverse=True)
        left, right = nodes.reshape(-1, 2).T
        edges = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(len(texts), len(texts)))
        _, component = connected_components(edges, directed=False)
        smallest = np.unique(component, return_index=True)[1]  # texts are sorted: the first of a component
        return (f"{texts[first]:016x}" for first in smallest[component[left]])
