"""The examples in the metrics' docstrings are what the functions return."""

import doctest
import importlib

import pytest

MODULES = ("bootstrap", "classification", "clustering", "lexical", "retrieval", "row_outcomes", "similarity")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"stages.metrics.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
