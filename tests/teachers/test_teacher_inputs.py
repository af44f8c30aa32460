"""What the teacher reads of a recipe's sources."""

from stages.teachers.teacher_inputs import Want, wanted_columns


def test_every_column_that_something_needs_and_no_other() -> None:
    kinds = {"wiki": "pairs", "long": "pairs", "sts": "scored", "topics": "labelled", "books": "documents"}
    wanted = wanted_columns(kinds, left_out="long", pair_sources=["wiki"], clustering_sources=["wiki"])
    assert [want for want in wanted if want.kind == "pairs"] == [
        Want("pairs", "query", "query", ("wiki",)),
        Want("pairs", "document", "document", ("wiki",)),
        Want("pairs", "query", "document", ("wiki",)),
        Want("pairs", "query", "clustering", ("wiki",)),
        Want("pairs", "document", "clustering", ("wiki",)),
    ]
    assert {(want.column, want.side, want.sources) for want in wanted if want.kind != "pairs"} == {
        ("text_a", "document", ("sts",)),
        ("text_b", "document", ("sts",)),
        ("text", "document", ("topics",)),
    }


def test_nothing_is_left_out_unless_named() -> None:
    wanted = wanted_columns({"long": "pairs"}, left_out=None, pair_sources=[], clustering_sources=[])
    assert wanted[0].sources == ("long",)
    assert wanted[2].sources == ()
