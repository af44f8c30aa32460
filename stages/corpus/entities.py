"""What a row is about, so that nothing stands in two splits: where no title says it, its text or the texts it meets."""

import hashlib
from collections.abc import Iterable


def text_entity(text: str) -> str:
    """A name for a text, the same in every source that holds it, however it is spaced and capitalised."""
    return hashlib.sha256(" ".join(text.casefold().split()).encode()).hexdigest()[:16]


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
