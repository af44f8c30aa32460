"""Sentences and stretches of them."""

import pytest

from stages.corpus.sentences import sentences, split_first_sentence, stretches


@pytest.mark.parametrize(
    ("text", "first", "rest"),
    [
        ("A hat is worn. It is warm.", "A hat is worn.", "It is warm."),
        ("One sentence only.", "One sentence only.", ""),
        ("J. R. Smith was born. He died.", "J. R. Smith was born.", "He died."),
        ("The U.S. Army fought. It won.", "The U.S. Army fought.", "It won."),
        ("Dr. Who met St. Paul. They spoke.", "Dr. Who met St. Paul.", "They spoke."),
        ("Plato (c. 428 BC) taught. He wrote.", "Plato (c. 428 BC) taught.", "He wrote."),
        ("It costs 3.5 Euro. That is much.", "It costs 3.5 Euro.", "That is much."),
        ('She said "Go." They went.', 'She said "Go."', "They went."),
        ("Really? Yes! So be it.", "Really?", "Yes! So be it."),
        ("", "", ""),
    ],
)
def test_first_sentence(text: str, first: str, rest: str) -> None:
    assert split_first_sentence(text) == (first, rest)
    parts = sentences(text)
    assert parts[:1] == ([first] if first else [])
    assert " ".join(parts[1:]) == rest


def test_stretches_are_whole_sentences_of_at_least_so_many_words() -> None:
    parts = ["One two.", "Three four five.", "Six.", "Seven eight nine ten.", "Eleven."]
    assert list(stretches(parts, 4)) == [parts[:2], parts[2:4], parts[4:]]
    assert list(stretches(parts, 100)) == [parts]
    assert list(stretches(parts, 1)) == [[part] for part in parts]
    assert list(stretches([], 4)) == []
