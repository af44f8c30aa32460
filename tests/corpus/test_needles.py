"""Needles: invented, repeatable, and where they were planted."""

import pytest

from stages.corpus.needles import FACTS, HELD_OUT_FACTS, Needle, depth, fact, passkey, plant


def test_a_key_gives_the_same_needle_again_and_another_key_another() -> None:
    assert fact("1/speech/0", FACTS) == fact("1/speech/0", FACTS)
    assert passkey("a") == passkey("a")
    needles = {passkey(str(number)) for number in range(500)} | {fact(str(number), FACTS) for number in range(500)}
    assert len({needle.query for needle in needles}) == len({needle.sentence for needle in needles}) == 1000


@pytest.mark.parametrize("forms", [FACTS, HELD_OUT_FACTS])
def test_a_question_names_someone_or_somewhere_that_its_sentence_names(forms: tuple[tuple[str, str], ...]) -> None:
    for number in range(60):
        needle = fact(str(number), forms)
        named = {word.strip(".,?") for word in needle.query.split()[1:] if word[0].isupper()}
        assert named
        assert named <= {word.strip(".,?") for word in needle.sentence.split()}
        assert "{" not in needle.query + needle.sentence


def test_a_pass_key_is_in_the_sentence_and_not_in_the_question() -> None:
    needle = passkey("a")
    numbers = [word.strip(".") for word in needle.sentence.split() if word.strip(".").isdigit()]
    assert len(numbers) == 2
    assert numbers[0] == numbers[1]
    assert numbers[0] not in needle.query


def test_evaluation_asks_in_forms_that_training_never_saw() -> None:
    assert not set(FACTS) & set(HELD_OUT_FACTS)


@pytest.mark.parametrize(
    ("at", "text"), [(0.0, "N. A. B. C. D."), (0.5, "A. B. N. C. D."), (0.7, "A. B. C. N. D."), (1.0, "A. B. C. D. N.")]
)
def test_a_needle_is_planted_between_sentences_at_its_depth(at: float, text: str) -> None:
    assert plant(["A.", "B.", "C.", "D."], Needle("?", "N."), at) == text


def test_depths_fall_everywhere() -> None:
    quarters = [int(4 * depth(str(number))) for number in range(400)]
    counts = [quarters.count(quarter) for quarter in range(4)]
    assert sum(counts) == 400
    assert min(counts) > 70
